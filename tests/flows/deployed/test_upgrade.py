"""Deployments that version 0.1.0 stored: how they fail under this version, and how the page says to replace them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.flows.deployed.support import REPOSITORY, Site
from tests.flows.support import noise, write_model, write_ome

pytestmark = pytest.mark.slow

PRESENT = (REPOSITORY / "prefect.yaml").read_text()
PREVIOUS = PRESENT.replace("entrypoint: segment_slide.flows.", "entrypoint: flows.").replace(
    "EXTRA_LOGGERS: segment_slide", "EXTRA_LOGGERS: cluster,flows,pipeline,unet"
)
DEPLOYMENT = "segment-slide/local"


def run_line_of_the_page(folder: Path) -> None:
    """What deploy.md tells people to do with a prefect.yaml of their own."""
    page = (REPOSITORY / "docs/how-to/deploy.md").read_text()
    (line,) = re.findall(r"^\$ (sed .*)$", page, re.MULTILINE)
    subprocess.run(["bash", "-c", line], cwd=folder, check=True)


def test_a_deployment_of_version_0_1_0_crashes_with_the_reason_and_completes_after_the_steps_of_the_page(
    site: Site, tmp_path: Path
) -> None:
    slide = write_ome(tmp_path / "slide.ome.zarr", noise(70, 70), "yx", scale=(1.0, 1.0))
    trained = write_model(tmp_path / "cells.safetensors", pixel_size_um=(0.25, 0.25))
    output = tmp_path / "out.ome.zarr"
    asked: dict[str, Any] = {"input": str(slide), "model": str(trained), "output": str(output), "objects": None}
    asked["segmentation"] = {"block": 64, "tile": 64, "precision": "float32", "device": "cpu"}
    (tmp_path / "prefect.yaml").write_text(PREVIOUS)
    try:
        # Prefect imports a flow to deploy it. The repository's folder `flows` stands for the package of 0.1.0.
        site.prefect("--no-prompt", "deploy", "--name", DEPLOYMENT, cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
        stored = site.get(f"deployments/name/{DEPLOYMENT}")
        before = site.begin_run(DEPLOYMENT, **asked)
        state, log = site.finish(before), "\n".join(site.logs(before))
    finally:  # other tests use the deployment too
        run_line_of_the_page(tmp_path)
        site.prefect("--no-prompt", "deploy", "--all", cwd=tmp_path)

    assert stored["entrypoint"] == "flows.deployed.segment_slide:segment_slide"
    assert state["type"] == "CRASHED"
    assert "ModuleNotFoundError: No module named 'flows'" in log
    assert not output.exists()

    assert (tmp_path / "prefect.yaml").read_text() == PRESENT
    assert site.get(f"deployments/name/{DEPLOYMENT}")["id"] == stored["id"]
    after = site.begin_run(DEPLOYMENT, **asked)
    assert site.finish(after)["type"] == "COMPLETED", site.log("worker")
    assert output.exists()
    assert [line for line in site.logs(after) if "the model was trained at 0.25 um" in line]


def test_the_line_of_the_page_keeps_what_a_site_edited_and_changes_nothing_when_run_twice(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        return text.replace("/data/acquisitions", "/sites/flows.new").replace("active: false", "active: true")

    (tmp_path / "prefect.yaml").write_text(edit(PREVIOUS))
    for _ in range(2):
        run_line_of_the_page(tmp_path)
        assert (tmp_path / "prefect.yaml").read_text() == edit(PRESENT)
