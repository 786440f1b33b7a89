"""Each command that computes, given each kind of input that is not complete: refused, naming what completes it."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segment_slide.pipeline.blocks import sizes
from segment_slide.pipeline.completeness.judge import judge
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.synthetic import stored
from segment_slide.pipeline.synthetic.slide import SyntheticSlide
from segment_slide.pipeline.viewer.find import find_contents
from tests.flows.support import noise, run_here, tree, write_array, write_model

LABELS = "out.ome.zarr/labels/segmentation"
IDS = f"{LABELS}-instances"
SCORES = "out.ome.zarr/probability/segmentation"
TABLE = "out.ome.zarr/tables/segmentation-instances.parquet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of everything, complete; commands work in this process."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        for flow in ("instances", "measure", "segment", "training_data", "weight_maps"):
            patch.setattr(f"segment_slide.flows.{flow}.open_cluster", lambda *_, **__: contextlib.nullcontext())
        patch.setitem(sizes.DEFAULT_CHUNK, 2, 16)
        tifffile.imwrite(folder / "slide.tif", noise(40, 60))
        run_ingest(plan_ingest(folder / "slide.tif", IngestOptions(chunk=32, shard=32)), folder / "slide.ome.zarr")
        write_model(folder / "m.safetensors")
        more = ("--block", 32, "--probabilities", "uint8", "--precision", "float32")
        run("segment", folder / "slide.ome.zarr", "-m", folder / "m.safetensors", "-o", folder / "out.ome.zarr", *more)
        run("instances", folder / "out.ome.zarr", "--block", 32)
        run("measure", folder / "out.ome.zarr")
        write_array(folder / "truth.zarr", (noise(40, 60) > 127).astype(np.uint8))
        run(*weight_maps(folder), "--block", 32)
        run(*training_data(folder))
        stored.store_slide(SyntheticSlide((64, 64), seed=1), str(folder / "drawn.ome.zarr"))
        yield folder


def run(*arguments: object) -> None:
    outcome = run_here(*arguments)
    assert outcome.exit_code == 0, outcome


# -- commands; each writes into FOLDER/new, or into what it is given ---------------------------------------------------


def segment(folder: Path, image: str = "slide.ome.zarr", *more: object) -> tuple[object, ...]:
    """Of an image."""
    return "segment", folder / image, "-m", folder / "m.safetensors", "-o", folder / "new.ome.zarr", *more


def instances(folder: Path, labels: str = "out.ome.zarr") -> tuple[object, ...]:
    """Of a class map."""
    return "instances", folder / labels, "-o", folder / "new.ome.zarr", "--block", 32


def measure(folder: Path, *more: object) -> tuple[object, ...]:
    """Of instances, with classes, probabilities and intensities."""
    return "measure", folder / "out.ome.zarr", *more


def evaluate(folder: Path, predicted: str = LABELS, truth: str = "truth.zarr", *more: object) -> tuple[object, ...]:
    """Of a class map."""
    axes = ("--truth-axes", "yx") if truth == "truth.zarr" else ()
    return "evaluate", folder / predicted, folder / truth, *axes, *more


def weight_maps(folder: Path, image: str = "slide.ome.zarr", labels: str = LABELS) -> tuple[object, ...]:
    """Of an image with labels."""
    named = ("--labels", folder / labels, "--kind", "classes", "--sigma", 2)
    return "weight-maps", folder / image, *named, "-o", folder / "set.zarr"


def training_data(folder: Path) -> tuple[object, ...]:
    """Of a training set."""
    small = ("--n", 17, "--tile", 16, "--depth", 1)
    return "training-data", folder / "set.zarr", "-o", folder / "samples.zarr", *small


def train(folder: Path) -> tuple[object, ...]:
    """On samples."""
    return "train", folder / "samples.zarr", "-o", folder / "new.safetensors", "--steps", 1, "--base-channels", 2


@dataclass(frozen=True)
class Case:
    """A command, what is missing of one of its inputs, and the command that makes it again."""

    command: Callable[[Path], tuple[object, ...]]
    missing: str
    made_by: str
    new: tuple[str, ...] = ("new.ome.zarr",)


def no_count(folder: Path) -> None:
    """Take the number of objects out of the record of instances."""
    file = folder / IDS / "zarr.json"
    content = json.loads(file.read_text())
    del content["attributes"][ATTRIBUTE]["n_objects"]
    file.write_text(json.dumps(content))


SLIDE, COARSE, BLOCK = "slide.ome.zarr/0/c/0/1", "slide.ome.zarr/1/c/0/0", f"{LABELS}/0/c/1/0"
CASES = {
    "segment an ingest": Case(segment, SLIDE, "segment-slide ingest"),
    "segment an ingest whose overview is missing": Case(segment, COARSE, "segment-slide ingest"),
    "segment an ingest as an array": Case(
        lambda folder: segment(folder, "slide.ome.zarr/0", "--axes", "yx"), SLIDE, "segment-slide ingest"
    ),
    "segment in place": Case(
        lambda folder: (*segment(folder)[:4], "--in-place"), SLIDE, "segment-slide ingest", ("slide.ome.zarr/labels",)
    ),
    "segment a drawn slide": Case(
        lambda folder: segment(folder, "drawn.ome.zarr", "--channels", "red"),
        "drawn.ome.zarr/0/c/0/0/0",
        "segment-slide demo",
    ),
    "segment a class map": Case(lambda folder: segment(folder, LABELS), BLOCK, "segment-slide segment"),
    "number a class map": Case(instances, BLOCK, "segment-slide segment"),
    "number a class map by its path": Case(lambda folder: instances(folder, LABELS), BLOCK, "segment-slide segment"),
    "measure instances": Case(measure, f"{IDS}/0/c/0/1", "segment-slide instances"),
    "measure instances that are not numbered": Case(measure, "n_objects", "segment-slide instances"),
    "measure with classes": Case(measure, BLOCK, "segment-slide segment"),
    "measure with probabilities": Case(measure, f"{SCORES}/0/c/0/1/0", "segment-slide segment"),
    "measure in an ingest": Case(measure, SLIDE, "segment-slide ingest"),
    "measure labels": Case(
        lambda folder: measure(folder, "--labels", "segmentation-instances", "--no-image"),
        f"{IDS}/0/c/0/1",
        "segment-slide instances",
    ),
    "evaluate classes": Case(evaluate, BLOCK, "segment-slide segment"),
    "evaluate the root": Case(lambda folder: evaluate(folder, "out.ome.zarr"), BLOCK, "segment-slide segment"),
    "evaluate instances": Case(
        lambda folder: evaluate(folder, IDS, "truth.zarr", "--kind", "instances"),
        f"{IDS}/0/c/0/1",
        "segment-slide instances",
    ),
    "evaluate instances that are not numbered": Case(
        lambda folder: evaluate(folder, IDS, "truth.zarr", "--kind", "instances"),
        "n_objects",
        "segment-slide instances",
    ),
    "evaluate probabilities": Case(
        lambda folder: evaluate(folder, SCORES, "truth.zarr", "--kind", "membranes", "--channel", 1),
        f"{SCORES}/0/c/0/1/0",
        "segment-slide segment",
    ),
    "evaluate against a truth of ours": Case(
        lambda folder: ("evaluate", folder / "truth.zarr", folder / LABELS, "--axes", "yx"),
        BLOCK,
        "segment-slide segment",
    ),
    "weigh an ingest": Case(weight_maps, SLIDE, "segment-slide ingest", ("set.zarr",)),
    "weigh with labels of ours": Case(weight_maps, BLOCK, "segment-slide segment", ("set.zarr",)),
    "draw from a set": Case(training_data, "set.zarr/*/weights/c/0/1", "segment-slide weight-maps", ("samples.zarr",)),
    "draw from a set whose image is an ingest": Case(training_data, SLIDE, "segment-slide ingest", ("samples.zarr",)),
    "train": Case(train, "samples.zarr/training/weights/c/1/0/0", "segment-slide training-data", ("new.safetensors",)),
}


def take_away(folder: Path, missing: str) -> None:
    """Let something be missing as after an interrupted run."""
    if missing == "n_objects":
        no_count(folder)
        return
    (file,) = folder.glob(missing)
    file.unlink()


def copy(whole: Path, folder: Path, case: Case) -> Path:
    """All inputs where they were made, without what the command is to make; the records name their places."""
    shutil.copytree(whole, folder, copy_function=shutil.copy2)
    for name in case.new:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    return folder


QUICK = (
    "segment an ingest",
    "number a class map by its path",
    "measure in an ingest",
    "evaluate classes",
    "weigh an ingest",
    "draw from a set",
    "train",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_what_is_not_complete_is_refused_and_nothing_is_written(name, whole, tmp_path):
    case = CASES[name]
    folder = copy(whole, tmp_path / "inputs", case)
    for file in folder.rglob("zarr.json"):  # the records name the copies
        file.write_text(file.read_text().replace(str(whole), str(folder)))
    take_away(folder, case.missing)
    before = tree(folder)
    outcome = run_here(*case.command(folder))
    assert outcome.exit_code == 2, outcome
    said = " ".join(outcome.err.split())
    assert "not complete" in said, said
    assert case.made_by in said
    assert "Traceback" not in said
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["segment an ingest", "evaluate classes", "number a class map by its path"])
def test_an_image_of_another_program_may_leave_out_files(name, whole, tmp_path):
    """The control: the same inputs without our marks. Missing files are background, as Zarr says."""
    case = CASES[name]
    folder = copy(whole, tmp_path / "inputs", case)
    for group in ("slide.ome.zarr", LABELS):
        file = folder / group / "zarr.json"
        content = json.loads(file.read_text())
        del content["attributes"][ATTRIBUTE]
        file.write_text(json.dumps(content))
    take_away(folder, case.missing)
    outcome = run_here(*case.command(folder))
    assert outcome.exit_code == 0, outcome


# -- the one function --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "missing", "text", "made_by"),
    [
        ("slide.ome.zarr", SLIDE, "4 of 5 files", "segment-slide ingest"),
        ("drawn.ome.zarr", "drawn.ome.zarr/0/c/0/0/0", "0 of 1 files", "segment-slide demo"),
        (f"drawn.ome.zarr/{stored.TRUTH_GROUP}", f"drawn.ome.zarr/{stored.TRUTH_GROUP}/0/c/0/0", "0 of 1", "demo"),
        ("out.ome.zarr", BLOCK, " of ", "segment-slide segment"),
        (LABELS, BLOCK, " of ", "segment-slide segment"),
        (SCORES, f"{SCORES}/0/c/0/1/0", " of ", "segment-slide segment"),
        (IDS, f"{IDS}/0/c/0/1", " of ", "segment-slide instances"),
        (IDS, "n_objects", "not all numbered", "segment-slide instances"),
        (TABLE, f"{TABLE}/part-00000.parquet", "0 of 1 parts", "segment-slide measure"),
        ("set.zarr", "set.zarr/*/weights/c/0/1", "3 of 4 blocks", "segment-slide weight-maps"),
        ("samples.zarr", "samples.zarr/training/weights/c/1/0/0", " of ", "segment-slide training-data"),
    ],
)
def test_the_one_function_says_what_is_complete_and_what_is_not(path, missing, text, made_by, whole, tmp_path):
    assert judge(str(whole / path)).is_complete
    assert judge(str(whole / path)).n_files > 0
    shutil.copytree(whole, tmp_path / "inputs")
    take_away(tmp_path / "inputs", missing)
    found = judge(str(tmp_path / "inputs" / path))
    assert not found.is_complete
    assert text in found.text
    assert made_by in found.remedy
    shown = " ".join(run_here("info", tmp_path / "inputs" / path).out.split())
    assert "not complete" in shown
    assert text in shown


def test_what_only_shows_says_how_much_is_there(whole, tmp_path):
    slide = shutil.copytree(whole / "slide.ome.zarr", tmp_path / "slide.ome.zarr")
    assert "not complete" not in run_here("info", slide).out
    assert not find_contents(str(slide), None, None).notes
    (slide / "0/c/0/1").unlink()
    shown = run_here("info", slide)
    assert shown.exit_code == 0
    assert "4 of 5 files" in " ".join(shown.out.split())
    (note,) = find_contents(str(slide), None, None).notes
    assert "4 of 5 files are there" in note
    assert "segment-slide ingest" in note
