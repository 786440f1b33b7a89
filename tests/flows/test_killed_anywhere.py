"""Every command that writes is killed at every operation on metadata, and goes on to the same bytes."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

from segment_slide.pipeline.blocks import sizes
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.pipeline.synthetic import stored
from segment_slide.pipeline.synthetic.slide import SyntheticSlide
from tests.flows.killed import Killed, killed_at, list_points
from tests.flows.support import Outcome, noise, run_here, tree, write_array, write_model, write_segmentation
from tests.tiers import exhaustive

log = logging.getLogger(__name__)

Command = Callable[[Path, Path], Outcome]  # of the inputs' folder and of one to write into
EXEMPT = (".html",)  # pages hold times


# -- commands: each writes below OUT, and begins with what `begin` has put there ---------------------------------------


def ingest(inputs: Path, out: Path) -> Outcome:
    """Three channels, two levels."""
    run_ingest(plan_ingest(inputs / "rgb.tif", IngestOptions(chunk=32, shard=32)), out / "image.ome.zarr")
    return Outcome(0, "", "")


def segment(inputs: Path, out: Path) -> Outcome:
    """With probabilities."""
    fixed = ("--axes", "yx", "--precision", "float32", "--block", 32, "--probabilities", "uint8")
    return run_here("segment", inputs / "slide.zarr", "-m", inputs / "m.safetensors", "-o", out / "o.zarr", *fixed)


def instances(_: Path, out: Path) -> Outcome:
    """Beside the classes."""
    return run_here("instances", out / "cells.ome.zarr", "--block", 32)


def measure(_: Path, out: Path) -> Outcome:
    """Of numbered objects."""
    return run_here("measure", out / "numbered.ome.zarr", "--no-image")


def measure_labels(_: Path, out: Path) -> Outcome:
    """Of ids that another program chose."""
    return run_here("measure", out / "ids.ome.zarr", "--labels", "ids", "--no-image")


def weight_maps(inputs: Path, out: Path) -> Outcome:
    """Of files, which are ingested, and of masks, whose objects are found."""
    images = (inputs / "images", "--labels", inputs / "masks", "--kind", "binary", "--sigma", 2)
    return run_here("weight-maps", *images, "-o", out / "set.zarr", "--block", 32)


def training_data(inputs: Path, out: Path) -> Outcome:
    """Of the set that `weight_maps` makes."""
    small = ("--n", 17, "--tile", 16, "--depth", 1)
    return run_here("training-data", inputs / "made/set.zarr", "-o", out / "samples.zarr", *small)


def train(inputs: Path, out: Path) -> Outcome:
    """Two states."""
    small = ("--steps", 4, "--save-every", 2, "--validate-every", 2, "--base-channels", 2, "--device", "cpu")
    return run_here("train", inputs / "made/samples.zarr", "-o", out / "model.safetensors", *small)


def draw(_: Path, out: Path) -> Outcome:
    """A synthetic slide with its truth, as the demo draws it."""
    stored.store_slide(SyntheticSlide((64, 64), seed=1), str(out / "slide.ome.zarr"))
    return Outcome(0, "", "")


def export(inputs: Path, out: Path) -> Outcome:
    """The viewer as a folder."""
    return run_here("view", inputs / "cells.ome.zarr", "--export", out / "site")


COMMANDS: dict[str, Command] = {
    "ingest": ingest,
    "segment": segment,
    "instances": instances,
    "measure": measure,
    "measure labels": measure_labels,
    "weight-maps": weight_maps,
    "training-data": training_data,
    "train": train,
    "draw": draw,
    "export": export,
}
BEGINS_WITH = {instances: "cells.ome.zarr", measure: "numbered.ome.zarr", measure_labels: "ids.ome.zarr"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small images, masks, labels and networks; commands work in this process."""
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patch:
        for flow in ("instances", "measure", "segment", "training_data", "weight_maps"):
            patch.setattr(f"segment_slide.flows.{flow}.open_cluster", lambda *_, **__: contextlib.nullcontext())
        patch.setitem(sizes.DEFAULT_CHUNK, 2, 16)
        smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((2, 40, 40)), (0, 2, 2))
        blobs = (smooth > 0.5).astype(np.uint8)
        tifffile.imwrite(folder / "rgb.tif", noise(40, 60, 3), photometric="rgb")
        write_array(folder / "slide.zarr", noise(40, 60), chunk=32)
        write_model(folder / "m.safetensors")
        for name, planes in (("images", noise(2, 40, 40)), ("masks", blobs)):
            (folder / name).mkdir()
            for number, plane in enumerate(planes):
                tifffile.imwrite(folder / name / f"t{number}.tif", plane)
        write_segmentation(folder / "cells.ome.zarr", blobs[0], files=(32, 32))
        labels = ndimage.label(blobs[1])[0].astype(np.uint16) * 3
        write_segmentation(folder / "ids.ome.zarr", labels, files=(32, 32), name="ids")
        zarr.open_group(folder / "ids.ome.zarr/labels/ids", mode="r+").attrs.pop(ATTRIBUTE)  # another program's
        shutil.copytree(folder / "cells.ome.zarr", folder / "numbered.ome.zarr")
        assert run_here("instances", folder / "numbered.ome.zarr", "--block", 32).exit_code == 0
        (folder / "made").mkdir()
        yield folder


def begin(command: Command, inputs: Path, out: Path) -> Path:
    out.mkdir()
    if name := BEGINS_WITH.get(command):
        shutil.copytree(inputs / name, out / name)
    return out


SLOW = ("instances", "measure", "weight-maps", "training-data")  # `exhaustive` has all commands at all points


@pytest.mark.parametrize(
    ("name", "is_all"),
    [
        ("ingest", True),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in SLOW),
        *(exhaustive(name, True) for name in COMMANDS if name != "ingest"),
    ],
)
def test_a_command_killed_between_any_two_operations_on_metadata_goes_on_to_equal_bytes(name, is_all, inputs, tmp_path):
    command = COMMANDS[name]
    for needed, make in (("set.zarr", weight_maps), ("samples.zarr", training_data)):
        if command in (training_data, train) and not (inputs / "made" / needed).exists():
            assert make(inputs, inputs / "made").exit_code == 0
    out = begin(command, inputs, tmp_path / "out")
    with killed_at(out, 1_000_000) as done:
        assert command(inputs, out).exit_code == 0
    expected = {file: mark for file, mark in tree(out).items() if not file.endswith(EXEMPT)}
    shutil.rmtree(out)
    points, bad = list_points(done, is_all=is_all), {}
    log.info("%s: killed at %d of %d operations", name, len(points), len(done))
    for point in points:
        out = begin(command, inputs, tmp_path / "out")
        with killed_at(out, point), contextlib.suppress(Killed):
            command(inputs, out)
        again = command(inputs, out)
        found = {file: mark for file, mark in tree(out).items() if not file.endswith(EXEMPT)}
        if again.exit_code or found != expected:
            before = done[point - 1] if point else "the beginning"
            bad[before] = again.err or sorted(file for file, _ in found.items() ^ expected.items())
        shutil.rmtree(out)
    assert not bad, "\n".join(f"killed after {before}: {what}" for before, what in bad.items())
    assert len(points) > 3
