"""Make what tests of a version read and go on with: outputs of the version before it, finished and half-done.

::

    python tests/previous_version/make_fixture.py PYTHON_OF_THE_PREVIOUS_VERSION tests/previous_version/v0.1.0.tar.xz

The first `python` is this tree's; the other is the interpreter of an environment in which the previous version is
installed, for example of a checkout of its tag after ``make install``. Everything is made by that version's
command line, below `FOLDER`, and what is half-done was really killed, by SIGKILL, in the middle::

    annotated/images, masks      TIFFs to learn from
    slide.tif, stack.tif         to be converted
    watch/                       acquisitions: 1-truncated.tif, 2-done.tif, 3-half.ome.zarr
    done/                        results of undisturbed runs
        slide.ome.zarr, stack.ome.zarr           ingest
        set.zarr                                 weight-maps
        samples.zarr                             training-data
        cells.safetensors, cells.training/       train
        cells.ome.zarr, cells.report.html        segment, instances, measure, report
        outputs/                                 segment-new
    half/                        the same commands, killed: each name says which
        instances*.ome.zarr and measure.ome.zarr are copies of done/cells.ome.zarr, from when the step before was done
    made.json                    arguments of each command, and what decides the last bits and bytes

Times of files are kept to the nanosecond, since fingerprints hold them. Paths in records begin with `FOLDER`. Pictures
and pages (`DRAWN`) are left out of the archive: they are most of the bytes, and no command reads them.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile

FOLDER = Path("/tmp/segment-slide-fixture")
DISTURBING = Path(__file__).parents[1] / "flows" / "disturbing"  # for PYTHONPATH: see the file there
log = logging.getLogger(__name__)

DRAWN = (".png", ".html")
PATIENCE_S = 300

BLOCKS = ("--block", 64, "--workers", 1)
SEGMENT = ("--precision", "float32", "--device", "cpu", "--probabilities", "uint8", *BLOCKS)
INSTANCES = ("--fill-holes", 60, "--min-size", 12, "--regrow", *BLOCKS)
WEIGHTS = ("--labels", "annotated/masks", "--kind", "binary", "--sigma", 2, "--block", 32, "--workers", 1)
SAMPLES = ("-n", 36, "--tile", 8, "--depth", 1, "--elastic-std", 2, "--validation", 0.5, "--validation-tiles", 32,
           "--workers", 1)  # fmt: skip
TRAIN = ("--base-channels", 2, "--steps", 120, "--batch", 4, "--optimiser", "adamw", "--learning-rate", 0.02,
         "--dropout", 0, "--validate-every", 20, "--save-every", 5, "--device", "cpu")  # fmt: skip
NIGHT = ("-m", "done/cells.safetensors", "--stable-minutes", 0, "--block", 32, "--precision", "float32",
         "--device", "cpu", "--workers", 1)  # fmt: skip

Command = tuple[object, ...]


def commands(place: str, name: Callable[[str], str]) -> dict[str, Command]:
    """Arguments by command, with paths relative to `FOLDER`.

    Parameters
    ----------
    place : str
        Folder of the outputs: "done" or "half".
    name : callable
        Store in which a command writes or goes on: all into one, or each into its own.
    """
    return {
        "ingest": ("ingest", "stack.tif", f"{place}/stack.ome.zarr", "--pixel-size", 0.5, "--z-step", 2),
        "weight-maps": ("weight-maps", "annotated/images", "-o", f"{place}/set.zarr", *WEIGHTS),
        "training-data": ("training-data", "done/set.zarr", "-o", f"{place}/samples.zarr", *SAMPLES),
        "train": ("train", "done/samples.zarr", "-o", f"{place}/cells.safetensors", *TRAIN),
        "segment": ("segment", "done/slide.ome.zarr", "-m", "done/cells.safetensors", "-o", name("segment"), *SEGMENT),
        "instances": ("instances", name("instances"), *INSTANCES),
        "instances-begun": ("instances", name("instances-begun"), *INSTANCES),
        "measure": ("measure", name("measure"), "--workers", 1),
        "report": ("report", name("report")),
        "segment-new": ("segment-new", "watch", "-o", f"{place}/outputs", *NIGHT),
    }


DONE = commands("done", lambda _: "done/cells.ome.zarr")
HALF = commands("half", lambda command: f"half/{command}.ome.zarr")


# -- inputs ------------------------------------------------------------------------------------------------------


def draw(*shape: int, cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of cells, some with a dark hole and some touching, and its mask; uint8, (y, x).

    The two lie far apart in grey value, and noise has few values: classes do not nearly tie, and files are small.
    """
    random = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    y, x = np.indices(shape)
    for number in range(cells):
        centre = random.uniform(0, shape)
        distance = np.hypot(y - centre[0], x - centre[1])
        radius = random.uniform(5, 10)
        mask[distance < radius] = 1
        if number % 3 == 0:
            mask[distance < radius / 3] = 0
    noise = random.choice(np.array([-12, 0, 12], np.int16), shape)
    return (60 + 120 * mask + noise).astype(np.uint8), mask


def write_inputs() -> None:
    """All images, as TIFF."""
    for folder in ("annotated/images", "annotated/masks", "watch", "done", "half"):
        Path(folder).mkdir(parents=True)
    for name, seed in (("first", 1), ("second", 2)):
        image, mask = draw(70, 90, cells=8, seed=seed)
        tifffile.imwrite(f"annotated/images/{name}.tif", image)
        tifffile.imwrite(f"annotated/masks/{name}.tif", mask)
    tifffile.imwrite("slide.tif", draw(200, 270, cells=60, seed=3)[0])
    tifffile.imwrite("stack.tif", np.stack([draw(16, 530, cells=9, seed=seed)[0] for seed in range(10, 16)]))
    for number, name in enumerate(("1-truncated", "2-done", "3-half")):
        tifffile.imwrite(f"watch/{name}.tif", draw(90, 125, cells=14, seed=20 + number)[0])
    truncated = Path("watch/1-truncated.tif")
    truncated.write_bytes(truncated.read_bytes()[:3000])


# -- commands ----------------------------------------------------------------------------------------------------


class PreviousVersion:
    """The command of another environment.

    Parameters
    ----------
    python : Path
        Its interpreter.
    """

    def __init__(self, python: Path) -> None:
        self._python = python

    @property
    def folder(self) -> Path:
        """Of its environment."""
        return self._python.parents[1]

    def ask(self, script: str) -> str:
        """What a script prints."""
        return subprocess.run([self._python, "-c", script], check=True, capture_output=True, text=True).stdout.strip()

    def run(self, *arguments: object, exit_code: int = 0) -> None:
        """Run a command to its end.

        Raises
        ------
        RuntimeError
            If it ends otherwise than expected.
        """
        with self._start(arguments, {}) as process:
            out, err = process.communicate(timeout=PATIENCE_S)
        if process.returncode != exit_code:
            raise RuntimeError(f"{arguments} ended with {process.returncode}:\n{out}{err}")

    def kill(self, *arguments: object, folder: str, files: int) -> None:
        """Run a command until a folder holds so many files, and kill it with all its processes.

        Parameters
        ----------
        *arguments : object
            Of the command.
        folder : str
            Path of a folder or file, which the command works on slowly from then on.
        files : int
            That it holds; of a table, lines.

        Raises
        ------
        RuntimeError
            If it ends before, or gets nowhere.
        """
        brake = Path("brake")
        brake.touch()
        slowly = {"BRAKE_FILE": brake.absolute(), "BRAKED_FOLDER": folder, "BRAKED_FROM": files}
        with self._start(arguments, {**slowly, "PYTHONPATH": DISTURBING}) as process:
            try:
                ends = time.monotonic() + PATIENCE_S
                while count(Path(folder)) < files:
                    if process.poll() is not None or time.monotonic() > ends:
                        raise RuntimeError(f"{arguments} was not there to be killed: {process.communicate()}")
                    time.sleep(0.005)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        brake.unlink()

    @contextlib.contextmanager
    def _start(self, arguments: Command, environment: dict[str, object]) -> Iterator["subprocess.Popen[str]"]:
        log.info("segment-slide %s %s", " ".join(map(str, arguments)), "(to be killed)" if environment else "")
        command = [self._python.with_name("segment-slide"), *map(str, arguments)]
        more = {"OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **more},
        ) as process:  # fmt: skip
            yield process


def count(path: Path) -> int:
    """Files below a folder, half-written ones left out; of a table its lines."""
    if path.is_file():
        return len(path.read_text().splitlines())
    return sum(file.is_file() and file.suffix != ".partial" for file in path.rglob("*"))


def make(previous: PreviousVersion) -> None:
    """Everything, finished and half-done, in the working directory."""
    write_inputs()
    ids = "labels/segmentation-instances"
    previous.run("ingest", "slide.tif", "done/slide.ome.zarr", "--pixel-size", 0.5)
    previous.run("ingest", "watch/3-half.tif", "watch/3-half.ome.zarr", "--pixel-size", 0.5)
    Path("watch/3-half.tif").unlink()
    for command in ("ingest", "weight-maps", "training-data", "train", "segment"):
        previous.run(*DONE[command])
    previous.kill(*HALF["ingest"], folder="half/stack.ome.zarr/0/c", files=3)
    previous.kill(*HALF["weight-maps"], folder="half/set.zarr/000-first/weights/c", files=3)
    previous.kill(*HALF["training-data"], folder="half/samples.zarr/training/images/c", files=1)
    previous.kill(*HALF["train"], folder="half/cells.training/losses.csv", files=41)
    previous.kill(*HALF["segment"], folder="half/segment.ome.zarr/labels/segmentation/0/c", files=6)
    for command, folder, files in (
        ("instances-begun", f"{ids}/work/filled/c", 6),
        ("instances", f"{ids}/0/c", 6),
    ):
        shutil.copytree("done/cells.ome.zarr", f"half/{command}.ome.zarr")
        previous.kill(*HALF[command], folder=f"half/{command}.ome.zarr/{folder}", files=files)
    previous.run(*DONE["instances"])
    shutil.copytree("done/cells.ome.zarr", "half/measure.ome.zarr")
    previous.kill(*HALF["measure"], folder="half/measure.ome.zarr/tables/segmentation-instances.work/rows", files=6)
    previous.run(*DONE["measure"])
    previous.run(*DONE["report"])
    previous.run(*DONE["segment-new"], exit_code=3)  # one of them cannot be read
    folder = next(Path("done/outputs").glob("cells-*")).name
    previous.kill(
        *HALF["segment-new"], folder=f"half/outputs/{folder}/3-half.ome.zarr/labels/segmentation/0/c", files=4
    )


# -- the archive -------------------------------------------------------------------------------------------------

_FACTS = """
import importlib.metadata, json
record = json.load(open("done/cells.ome.zarr/labels/segmentation/zarr.json"))["attributes"]["segment_slide"]
print(json.dumps({
    "version": importlib.metadata.version("segment-slide"),
    "torch": record["code"]["torch"],
    "processor": record["parameters"]["processor"],
    "libraries": {name: importlib.metadata.version(name) for name in ("numcodecs", "numpy", "zarr")},
}))
"""


def write_facts(previous: PreviousVersion) -> None:
    """What made everything, and with which arguments."""
    facts = json.loads(previous.ask(_FACTS))
    facts |= {"folder": str(FOLDER), "done": DONE, "half": HALF}
    Path("made.json").write_text(json.dumps(facts, indent=1) + "\n")


def check_neutral(previous: PreviousVersion) -> None:
    """Refuse files that name places of the machine, beyond `FOLDER`.

    Raises
    ------
    RuntimeError
        Naming the file and the place.
    """
    places = [os.fsencode(place) for place in (Path.home(), Path(__file__).parents[2], sys.prefix, previous.folder)]
    for path in filter(Path.is_file, Path().rglob("*")):
        content = path.read_bytes()
        if named := [place for place in places if place in content]:
            raise RuntimeError(f"{path} names {named}")


def pack(archive: Path) -> None:
    """All files of the working directory as one archive, with exact times and no owner."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", format=tarfile.PAX_FORMAT, preset=9) as tar:
        for path in sorted(path for path in Path().rglob("*") if path.suffix not in DRAWN):
            entry = tar.gettarinfo(path)
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if path.is_file():
                seconds, nanoseconds = divmod(path.stat().st_mtime_ns, 10**9)
                entry.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09}"}
                tar.addfile(entry, io.BytesIO(path.read_bytes()))
            else:
                entry.mtime = 0
                tar.addfile(entry)
    archive.write_bytes(buffer.getvalue())


def main() -> None:
    """Make the archive.

    Raises
    ------
    FileExistsError
        If `FOLDER` is there: nothing of another run is packed.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("python", type=Path, help="interpreter of the previous version's environment")
    parser.add_argument("archive", type=Path, help="archive to write, by convention vX.Y.Z.tar.xz")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    archive, previous = arguments.archive.absolute(), PreviousVersion(arguments.python.absolute())
    FOLDER.mkdir()
    os.chdir(FOLDER)
    make(previous)
    write_facts(previous)
    check_neutral(previous)
    pack(archive)
    shutil.rmtree(FOLDER)
    log.info("%s: %s bytes", archive, f"{archive.stat().st_size:,}")


if __name__ == "__main__":
    main()
