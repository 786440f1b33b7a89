"""Every page that a command writes forbids scripts and other hosts, and shows names of files as text."""

import contextlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from segment_slide.flows import browser
from segment_slide.flows import measure as flows_measure
from segment_slide.flows.deployed.reports import fenced, plain
from segment_slide.pipeline.documents.csv_table import make_csv
from segment_slide.pipeline.documents.page import make_head
from segment_slide.pipeline.viewer.handler import CONTENT_SECURITY_POLICY
from tests.flows.support import run_here, run_without_workers, write_segmentation

ROOT = Path(__file__).parents[2]
EVIL = "<script>alert(1)</script>"
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="(default-src \'(?:none|self)\'[^"]*)">')


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All pages that commands write about an output whose name is markup, with the page that leads to the viewer."""
    folder = tmp_path_factory.mktemp("pages")
    classes = np.zeros((96, 96), np.uint8)
    classes[10:30, 10:30] = 1
    output = write_segmentation(folder / f"{EVIL.replace('/', '')}.ome.zarr", classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows_measure, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        said = [run_without_workers("instances", output), run_here("measure", output, "--no-image")]
    said += [run_here("report", output), run_here("view", output, "--export", folder / "site")]
    assert [outcome.exit_code for outcome in said] == [0] * 4, said
    with browser._redirect(f"http://127.0.0.1:1/v/{EVIL}/", {"XDG_RUNTIME_DIR": str(folder)}) as page:
        shutil.copy(page, folder / "redirect.html")
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.html")}


def test_all_pages_are_seen(pages):
    assert {Path(name).name for name in pages} >= {"segmentation-instances.html", "index.html", "redirect.html"}
    assert any(name.endswith(".report.html") for name in pages)
    assert sum(name.endswith("index.html") for name in pages) == 2


def test_every_page_begins_with_a_policy_that_allows_no_script_of_a_name_and_no_other_host(pages):
    for name, page in pages.items():
        (policy,) = POLICY.findall(page)
        scripts = re.search(r"script-src ([^;]*)", policy)
        assert "'unsafe-inline'" not in (scripts[1] if scripts else ""), name
        assert "http" not in policy
        before = page[: page.index("Content-Security-Policy")]
        assert not re.search(r"<(script|style|link|img|body|title)", before), name


def test_names_are_text_in_every_page(pages):
    for name, page in pages.items():
        assert EVIL not in page, name
        assert "<script>alert" not in page, name
    assert any("&lt;script&gt;alert" in page for page in pages.values()), "a control: the name is shown"
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY


def test_only_one_file_of_ours_writes_a_head():
    """Whatever writes a page takes its head from there, so no page can be without the policy."""
    sources = [path for part in ("unet", "pipeline", "cluster", "flows") for path in (ROOT / part).rglob("*.py")]
    written = {
        str(path.relative_to(ROOT)): path.read_text()
        for path in sources
        if re.search(r"(?i)<!doctype html|<html|text/html; charset", path.read_text())
    }
    for name, source in written.items():
        if "doctype html" in source:
            assert "make_head" in source, name
    assert "<title>&lt;b&gt;</title>" in make_head("<b>")


def test_prefect_s_pages_show_names_as_text():
    assert "<" not in plain(EVIL)
    block = fenced("a\n```\n<script>", "sh").split("\n")
    assert block[0] == "````sh"
    assert block[-1] == "````"


@pytest.mark.parametrize("sign", "=+-@\t\r")
def test_a_text_that_a_spreadsheet_would_compute_is_escaped_and_a_number_is_not(sign):
    evil = f"{sign}HYPERLINK(1)"
    assert make_csv([evil], [[evil]]).count(f"'{evil}") == 2
    assert make_csv(["a"], [[-1.5, "-1.5", "1e-05", "nan"]]) == "a\n-1.5,-1.5,1e-05,nan\n"
    users = [path for path in (ROOT / "pipeline").rglob("*.py") if re.search(r"^import csv$", path.read_text(), re.M)]
    users += [path for path in (ROOT / "flows").rglob("*.py") if re.search(r"^import csv$", path.read_text(), re.M)]
    assert [path.name for path in users] == ["csv_table.py"]
