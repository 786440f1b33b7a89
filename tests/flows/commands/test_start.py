"""Commands that answer at once import no more than they need; importing torch alone takes seconds."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from segment_slide.unet.device_facts import guess_device
from tests.flows.support import noise, write_array, write_model

HEAVY = {
    "torch", "distributed", "dask", "prefect", "numba", "scipy", "skimage", "pandas", "pyarrow", "matplotlib",
    "tifffile", "imagecodecs", "onnxruntime", "ome_zarr", "sqlalchemy", "fastapi",
}  # fmt: skip
KEEP: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120}
SCRIPT = """
import sys
from segment_slide.flows.commands.main import main
try:
    main()
except SystemExit:
    pass
print("imported", *sorted({name.partition(".")[0] for name in sys.modules} & set(HEAVY)))
"""


def run(*words: object) -> str:
    code = SCRIPT.replace("HEAVY", repr(HEAVY))
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], check=False, **KEEP)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("start")
    write_model(folder / "cells.safetensors")
    return write_array(folder / "slide.zarr", noise(100, 130)), folder / "cells.safetensors"


@pytest.mark.parametrize("options", [("--device", "cpu"), ("--device", "cpu", "--precision", "float32")])
def test_plan_imports_nothing_heavy(inputs: tuple[Path, Path], options: tuple[str, ...]) -> None:
    slide, model = inputs
    if "--precision" not in options and guess_device("cpu", "auto") is None:
        pytest.skip("only torch knows the instructions of this processor")
    shown = run("plan", slide, "-m", model, "--axes", "yx", *options)
    assert "blocks" in shown
    assert shown.splitlines()[-1].split() == ["imported"]


def test_info_and_version_import_nothing_heavy_and_the_check_would_notice(inputs: tuple[Path, Path]) -> None:
    for words in (["info", inputs[1]], ["info", inputs[0]], ["--version"]):
        assert run(*words).splitlines()[-1].split() == ["imported"], words
    code = SCRIPT.replace("HEAVY", repr(HEAVY)).replace("import sys\n", "import sys, scipy\n", 1)
    done = subprocess.run([sys.executable, "-c", code, "--version"], check=True, **KEEP)
    assert done.stdout.splitlines()[-1].split() == ["imported", "scipy"]


def test_only_what_writes_metadata_imports_ome_zarr() -> None:
    """It takes more than a second. Workers import the modules of tasks, and read and write pixels only."""
    tasks = ("segmentation.run", "objects.run", "measurement.run", "scoring.run", "training.weights_run", "ingest.run")
    code = "import sys\n" + "".join(f"import segment_slide.pipeline.{name}\n" for name in tasks)
    code += "from segment_slide.pipeline.storage import ome\nprint('ome_zarr' in sys.modules)\n"
    code += "level = ome.Level('0', (1.0, 1.0), (0.0, 0.0))\n"
    code += "ome.label_attributes(ome.Multiscale('yx', (None, None), (level,)))\nprint('ome_zarr' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, **KEEP)
    assert done.stdout.split() == ["False", "True"]
    assert run("--help").splitlines()[-1].split() == ["imported"]
