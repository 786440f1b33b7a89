"""What an operator sees in a browser: the form, the run, the report; kept as pictures where SCREENS names a folder."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import PATIENCE_MS, open_browser
from tests.flows.deployed.support import Site
from tests.flows.support import noise, write_ome

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="light")
        page.set_default_timeout(PATIENCE_MS)
        yield page


def keep(page: Any, name: str) -> None:
    if folder := os.environ.get("SCREENS"):
        page.wait_for_timeout(2000)  # panels fade in
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_an_operator_sees_form_run_and_report(site: Site, page: Any, model: Path, tmp_path: Path) -> None:
    slide = os.environ.get("SCREENS_SLIDE") or write_ome(tmp_path / "slide.ome.zarr", noise(200, 180), "yx")
    network = os.environ.get("SCREENS_MODEL") or model
    output = os.environ.get("SCREENS_OUTPUT") or tmp_path / "cells.ome.zarr"

    deployment = site.get("deployments/name/segment-slide/local")["id"]
    page.goto(f"{site.url}/deployments/deployment/{deployment}/run")
    page.get_by_text("Trained network (.safetensors).").wait_for()
    for text in ("Pixels per side of one pass of the network", "worker processes on this machine"):
        page.get_by_text(text).first.wait_for()
    keep(page, "prefect-form")

    run = site.begin_run("segment-slide/local", input=str(slide), model=str(network), output=str(output))
    assert site.finish(run)["type"] == "COMPLETED", site.log("worker")
    page.goto(f"{site.url}/runs/flow-run/{run}")
    page.get_by_text(f"segment {Path(slide).name}").first.wait_for()
    page.get_by_text("Completed").first.wait_for()
    keep(page, "prefect-run")

    (report,) = site.artifacts(run, "markdown")
    page.goto(f"{site.url}/artifacts/artifact/{report['id']}")
    picture = page.locator("img[src^='data:image/png']").first
    picture.wait_for()
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 100
    page.get_by_text("Time by stage").wait_for()
    keep(page, "prefect-report")
