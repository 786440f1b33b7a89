"""One small thing of each kind that commands read, and the commands that read it, all in this process."""

import contextlib
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import segment_slide.flows.instances
import segment_slide.flows.measure
import segment_slide.flows.segment
import segment_slide.flows.training_data
import segment_slide.flows.weight_maps
from tests.flows.support import Outcome, noise, run_here, write_model, write_ome, write_segmentation
from tests.pipeline.training.support import write_training_set

STATE = "trained.training/state.safetensors"
CLUSTER = "kind: local\nworkers: 1\ncores: 1\nmemory: 4 GiB\n"
FLOWS = (
    segment_slide.flows.instances,
    segment_slide.flows.measure,
    segment_slide.flows.segment,
    segment_slide.flows.training_data,
    segment_slide.flows.weight_maps,
)


@contextlib.contextmanager
def without_workers() -> Iterator[None]:
    """Let stages run in this process, block by block: the same functions, without processes that take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for flow in FLOWS:
            patch.setattr(flow, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        yield


@dataclass(frozen=True)
class Fault:
    """A command that ended in a traceback."""

    command: str
    error: BaseException

    @property
    def place(self) -> str:
        """Error and the last line of ours in it."""
        frames = traceback.extract_tb(self.error.__traceback__)
        ours = [frame for frame in frames if "/tests/" not in frame.filename and "site-packages" not in frame.filename]
        last = ours[-1]
        return f"{type(self.error).__name__} at {Path(last.filename).name}:{last.lineno} ({self.error!s:.90})"


def run(*words: object) -> Outcome | Fault:
    """Run a command in this process; a traceback of it comes back as `Fault`."""
    try:
        with without_workers():
            return run_here(*words)
    except Exception as error:  # noqa: BLE001, whatever would be a traceback
        return Fault(str(words[0]), error)


Commands = Sequence[Sequence[object]]


class World:
    """A folder with everything.

    Attributes
    ----------
    folder : Path
        Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build_small(self) -> "World":
        """Make an image, a network, a segmentation and a description of a cluster, without running a command."""
        f = self.folder
        f.mkdir(parents=True, exist_ok=True)
        write_model(f / "cells.safetensors")
        write_ome(f / "slide.ome.zarr", noise(1, 40, 50), "cyx", scale=(1, 0.5, 0.5), n_levels=2, channels=["DAPI"])
        classes = np.random.default_rng(1).integers(0, 2, (40, 50)).astype(np.uint8)
        write_segmentation(f / "out.ome.zarr", classes, scale=(0.5, 0.5), n_levels=2)
        (f / "cluster.yaml").write_text(CLUSTER)
        return self

    def build(self) -> "World":
        """Make everything with the commands themselves."""
        f = self.folder
        f.mkdir(parents=True, exist_ok=True)
        write_model(f / "cells.safetensors")
        write_ome(f / "slide.ome.zarr", noise(1, 40, 50), "cyx", scale=(1, 0.5, 0.5), n_levels=2, channels=["DAPI"])
        classes = np.random.default_rng(1).integers(0, 2, (60, 70)).astype(np.uint8)
        write_training_set(f / "train", {"a": (noise(1, 60, 70), classes), "b": (noise(1, 60, 70, seed=2), classes)})
        (f / "watch").mkdir()
        write_ome(f / "watch" / "a.ome.zarr", noise(40, 50), "yx", scale=(0.5, 0.5))
        (f / "cluster.yaml").write_text(CLUSTER)
        for words in (
            (*self.segment(), "--instances", "--measure"),
            ("training-data", f / "train" / "set.zarr", "-o", f / "samples.zarr", "--n", 2, "--tile", 64, "--depth", 1),
            self.train(),
            self.night()[:-1],
        ):
            outcome = run(*words)
            assert isinstance(outcome, Outcome), outcome
            assert outcome.exit_code == 0, (words, outcome)
        return self

    def segment(self) -> tuple[object, ...]:
        """Words that segment the slide, or go on with it."""
        f = self.folder
        options = ("--block", 32, "--tile", 32, "--precision", "float32", "--probabilities", "uint8")
        return "segment", f / "slide.ome.zarr", "-m", f / "cells.safetensors", "-o", f / "out.ome.zarr", *options

    def train(self) -> tuple[object, ...]:
        """Words that train, or go on."""
        f = self.folder
        sizes = ("--base-channels", 2, "--steps", 2, "--device", "cpu", "--validate-every", 1, "--save-every", 1)
        return "train", f / "samples.zarr", "-o", f / "trained.safetensors", *sizes

    def night(self) -> tuple[object, ...]:
        """Words that plan a night."""
        f = self.folder
        times = ("--stable-minutes", 0, "--block", 32, "--precision", "float32")
        return "segment-new", f / "watch", "-o", f / "nights", "-m", f / "cells.safetensors", *times, "--dry-run"

    def files(self) -> dict[str, Commands]:
        """Each JSON or YAML file, relative to the folder, and the commands that read it."""
        f = self.folder
        slide, out, model = f / "slide.ome.zarr", f / "out.ome.zarr", f / "cells.safetensors"
        page = f / "page"
        plan = ("plan", slide, "-m", model)
        of_slide: Commands = (
            ("info", slide),
            plan,
            ("segment", slide, "-m", model, "-o", f / "new.ome.zarr"),
            ("view", slide, "--export", page),
            ("instances", slide, "-o", f / "ids.ome.zarr"),
            ("evaluate", slide, slide),
            ("weight-maps", slide, "--labels", slide, "-o", f / "maps.zarr"),
            self.segment(),
            ("measure", out),
            ("report", out),
        )
        of_output: Commands = (
            ("info", out),
            self.segment(),
            ("instances", out),
            ("measure", out),
            ("report", out),
            ("view", out, "--export", page),
            ("evaluate", out, out),
            ("segment", out, "-m", model, "-o", f / "new.ome.zarr"),
        )
        of_set: Commands = (
            ("info", f / "train" / "set.zarr"),
            ("training-data", f / "train" / "set.zarr", "-o", f / "more.zarr", "--n", 2, "--tile", 64, "--depth", 1),
        )
        of_samples: Commands = (
            ("info", f / "samples.zarr"),
            self.train(),
            ("training-data", f / "train" / "set.zarr", "-o", f / "samples.zarr", "--n", 2, "--tile", 64, "--depth", 1),
        )
        of_night: Commands = (self.night(), self.night()[:-1])
        of_model: Commands = (("info", model), plan, self.segment())
        found: dict[str, Commands] = {"cluster.yaml": ((*plan, "--cluster", f / "cluster.yaml"),)}
        for root, commands in (
            ("slide.ome.zarr", of_slide),
            ("out.ome.zarr", of_output),
            ("train/set.zarr", of_set),
            ("samples.zarr", of_samples),
            ("nights", of_night),
            ("watch", of_night),
        ):
            for path in sorted((f / root).rglob("*.json")):
                found[str(path.relative_to(f))] = commands
        found["cells.safetensors"] = of_model
        if (f / STATE).exists():
            found[STATE] = (self.train(),)
        return found


def damage_header(path: Path, change: Callable[[str], str]) -> None:
    """Change the JSON text in the metadata of a safetensors file; the weights stay."""
    from safetensors import safe_open
    from safetensors.numpy import save

    with safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    (key,) = metadata
    path.write_bytes(save(tensors, metadata={key: change(metadata[key])}))


def header(path: Path) -> str:
    """The JSON text in a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return json.dumps(json.loads(next(iter((file.metadata() or {}).values()))))
