"""The training flows, one after the other, through a real server and worker: the bytes of the commands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.draw import disk

from tests.flows.deployed.support import Site
from tests.flows.support import run_installed, tree, write_array

pytestmark = pytest.mark.slow

STEPS = 12


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with four cells each."""
    folder, rng = tmp_path_factory.mktemp("annotated"), np.random.default_rng(0)
    for number in range(2):
        ids = np.zeros((96, 96), np.uint16)
        for cell, (row, column) in enumerate(((24, 24), (24, 70), (70, 24), (70, 70)), start=1):
            ids[disk((row + number, column), 14)] = cell
        pixels = (60 + 120 * (ids > 0) + rng.normal(0, 10, ids.shape)).astype(np.uint8)
        write_array(folder / f"images/{number}.zarr", pixels)
        write_array(folder / f"labels/{number}.zarr", ids)
    return folder


def test_three_flows_make_what_three_commands_make(site: Site, annotated: Path, tmp_path: Path) -> None:
    images, labels = ([str(annotated / kind / f"{n}.zarr") for n in range(2)] for kind in ("images", "labels"))
    by_flow, by_command = tmp_path / "flow", tmp_path / "command"
    axes = {"axes": "yx"}

    def run(deployment: str, **parameters: Any) -> str:
        number = site.begin_run(deployment, **parameters)
        assert site.finish(number)["type"] == "COMPLETED", site.log("worker")
        return number

    weighed = run(
        "prepare-weight-maps/local", images=images, labels=labels, output=str(by_flow / "set.zarr"), annotation=axes
    )
    drawn = run(
        "generate-training-data/local",
        training_set=str(by_flow / "set.zarr"),
        output=str(by_flow / "samples.zarr"),
        n=16,
        samples={"tile": "32", "depth": 1, "validation": 0.5},
    )
    trained = run(
        "train-unet/local",
        samples=str(by_flow / "samples.zarr"),
        output=str(by_flow / "cells.safetensors"),
        training={"base_channels": 4, "steps": STEPS, "validate_every": STEPS},
        device="cpu",
    )
    in_labels = [word for path in labels for word in ("--labels", path)]
    weigh = ["weight-maps", *images, *in_labels, "--axes", "yx", "-o", by_command / "set.zarr"]
    draw = ["training-data", by_command / "set.zarr", "-o", by_command / "samples.zarr", "-n", 16]
    draw += ["--tile", "32", "--depth", 1, "--validation", 0.5]
    train = ["train", by_command / "samples.zarr", "-o", by_command / "cells.safetensors", "--device", "cpu"]
    train += ["--base-channels", 4, "--steps", STEPS, "--validate-every", STEPS]
    for command in (weigh, draw, train):
        outcome = run_installed(*command)
        assert outcome.exit_code == 0, outcome
    for name in ("set.zarr", "samples.zarr"):
        found, wanted = tree(by_flow / name), tree(by_command / name)
        assert list(found) == list(wanted)
        assert {file for file in found if found[file] != wanted[file]} <= {"zarr.json"}  # says where its input lies

    for number, title in ((weighed, "Training set"), (drawn, "Training samples"), (trained, "Trained network")):
        (page,) = site.artifacts(number, "markdown")
        assert page["data"].startswith(f"# {title}")
        assert site.artifacts(number, "progress")
    assert "data:image/png;base64," in page["data"]  # the curves
    (chosen,) = [line for line in site.logs(drawn) if line.startswith("normalised: ")]
    assert "chosen because" in chosen
    assert (by_flow / "cells.safetensors").is_file()


def test_a_training_set_that_is_not_there_is_refused_before_anything_is_begun(site: Site, tmp_path: Path) -> None:
    parameters = {"training_set": str(tmp_path / "none.zarr"), "output": str(tmp_path / "samples.zarr")}
    number = site.begin_run("generate-training-data/local", **parameters)
    state = site.finish(number)
    assert state["type"] == "FAILED"
    assert "none.zarr" in state["message"]
    assert site.tasks(number) == []
    assert list(tmp_path.iterdir()) == []
