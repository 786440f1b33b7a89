"""What the command says of files that are not read as they are stored, or not at all."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.flows.support import run_here
from tests.pipeline.readers import slides

SAMPLES = np.random.default_rng(0).integers(0, 255, (30, 44, 4), dtype=np.uint8)


def test_notes_name_the_option_that_keeps_alpha(tmp_path: Path) -> None:
    Image.fromarray(SAMPLES).save(tmp_path / "a.png")
    found = run_here("ingest", tmp_path / "a.png", tmp_path / "a.ome.zarr")
    assert found.exit_code == 0
    assert "the 4th channel is alpha and not used; --axes yxc keeps it" in " ".join((found.out + found.err).split())
    assert "`axes" not in (found.out + found.err)
    kept = run_here("ingest", tmp_path / "a.png", tmp_path / "b.ome.zarr", "--axes", "yxc")
    assert kept.exit_code == 0
    assert "alpha" not in (kept.out + kept.err)


@pytest.mark.parametrize("kind", ["inks", "slide without OpenSlide", "overview"])
def test_what_is_not_read_rightly_is_refused_before_anything_is_written(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "inks":
        path, remedy = tmp_path / "a.tif", "--axes yxc"
        Image.fromarray(SAMPLES, "CMYK").save(path)
    elif kind == "overview":
        path, remedy = tmp_path / "a.vsi", "Export the slide as TIFF"
        tifffile.imwrite(path, SAMPLES[..., 0])
    else:
        path, remedy = tmp_path / "a.bif", "pip install '.[openslide]'"
        slides.write_ventana(path, slides.draw(122, 172))
        monkeypatch.setitem(sys.modules, "openslide", None)
    found = run_here("ingest", path, tmp_path / "out.ome.zarr")
    assert found.exit_code == 2
    assert remedy in " ".join((found.out + found.err).split())
    assert "Traceback" not in (found.out + found.err)
    assert not (tmp_path / "out.ome.zarr").exists()
