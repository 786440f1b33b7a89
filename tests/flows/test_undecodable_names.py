"""File names that are no text in UTF-8, as old microscopes write them: nothing crashes, each file is found again."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from segment_slide.pipeline.report.commands import command
from tests.flows.support import noise, run_here, write_model, write_ome

NAME = os.fsdecode(b"Pr\xe4parat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    try:
        path.mkdir()
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    return path


@pytest.mark.slow
def test_a_slide_goes_through_all_stages(folder, warm):
    model = write_model(folder / f"{NAME}.safetensors")
    image = write_ome(folder / f"{NAME}.zarr", noise(100, 130), "yx", scale=(0.5, 0.5))
    output = folder / f"{NAME} out.ome.zarr"
    for words in (
        ("segment", image, "-m", model, "-o", output, "--block", 96),
        ("segment", image, "-m", model, "-o", output, "--block", 96),
        ("info", output),
        ("instances", output),
        ("measure", output),
        ("report", output),
        ("view", output, "--export", folder / "page"),
    ):
        outcome = run_here(*words)
        assert outcome.exit_code == 0, (words[0], outcome)
    record = json.loads((output / "labels/segmentation/zarr.json").read_text())["attributes"]["segment_slide"]
    assert (output / record["input"]["location"]).resolve() == image.resolve()
    assert set(np.unique(zarr.open_array(output / "labels/segmentation/0", mode="r")[...])) == {0, 1}
    pages = [page.read_text(encoding="utf-8") for page in (*output.rglob("*.html"), *folder.glob("*.html"))]
    assert any("Pr\\udce4parat" in page for page in pages)


def test_a_file_is_converted_and_scored(folder):
    classes = (noise(40, 50) > 128).astype(np.uint8)
    tifffile.imwrite(folder / f"{NAME}.tif", classes)
    ingested = run_here("ingest", folder / f"{NAME}.tif", folder / "out.ome.zarr", "--pixel-size", 0.5)
    assert ingested.exit_code == 0, ingested
    np.testing.assert_array_equal(zarr.open_array(folder / "out.ome.zarr/0", mode="r")[...], classes)
    scored = run_here("evaluate", folder / f"{NAME}.tif", folder / f"{NAME}.tif", "--json", folder / f"{NAME}.json")
    assert scored.exit_code == 0, scored
    assert (folder / f"{NAME}.json").stat().st_size > 0


def test_a_command_of_a_report_names_the_file_for_the_shell(folder):
    path = folder / "it's a \\ slide"
    path.write_text("found")
    shown = command("cat", path).encode()  # text in UTF-8 now
    assert subprocess.run(["bash", "-c", shown], capture_output=True, check=True).stdout == b"found"
    assert command("cat", "it's") == shlex.join(["cat", "it's"])
