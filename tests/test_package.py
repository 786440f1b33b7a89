"""The one name that is installed, `segment_slide`: what its wheel holds, what stands beside it, and what it gives."""

import collections
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import mypy.main
import pytest

import segment_slide

ROOT = Path(__file__).parents[1]
PARTS = ("unet", "pipeline", "cluster", "flows")
ROOTS_OF_ERRORS = {"UnetError", "PipelineError", "ClusterError"}
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


def files_of_the_tree(root: Path) -> set[str]:
    """All files of the four folders, whatever their kind, but for what Python and numba cache; relative to the root."""
    files = (path for part in PARTS for path in (root / part).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix() for path in files if "__pycache__" not in path.parts}


def errors_of_ours() -> set[str]:
    """Names of all classes, wherever they are defined, that derive from the error at the root of a part."""
    sources = [path.read_text() for part in PARTS for path in (ROOT / part).rglob("*.py")]
    classes = re.findall(r"^class (\w+)\((.*)\):", "\n".join(sources), re.MULTILINE)
    found = set(ROOTS_OF_ERRORS)
    while more := {name for name, bases in classes if set(bases.split(", ")) & found} - found:
        found |= more
    return found


# -- the wheel ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree: building leaves files behind."""
    copy = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "segment_slide", copy / "segment_slide", symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".")
    subprocess.run(build, cwd=copy, check=True)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_each_file_of_the_four_folders_under_one_name(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    version = segment_slide.__version__
    assert {name.partition("/")[0] for name in names} == {"segment_slide", f"segment_slide-{version}.dist-info"}
    held = {name.removeprefix("segment_slide/") for name in names if name.startswith("segment_slide/")}
    assert held == files_of_the_tree(ROOT) | {"__init__.py", "py.typed"}
    assert "pipeline/viewer/view.js" in held
    assert len(held) > 200


BESIDE_A_NOTEBOOK = """
import json, sys
import segment_slide
from segment_slide.flows.commands.main import app
try:
    raise segment_slide.PlanError("too large")
except ValueError:
    loaded = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("segment_slide")}
early = [name for name in ("unet", "pipeline", "cluster", "flows") if name in sys.modules]
import unet, pipeline, cluster, flows
mine = [unet.OWNER, pipeline.OWNER, cluster.OWNER, flows.OWNER]
print(json.dumps({"loaded": loaded, "early": early, "mine": mine, "version": segment_slide.__version__}))
"""


@pytest.mark.slow
def test_the_installed_package_and_a_users_own_modules_of_the_old_names_do_not_meet(
    wheel: Path, tmp_path: Path
) -> None:
    """A working directory comes first on Python's path in a notebook, with `python -c` and with `python -m`."""
    target, notebooks = tmp_path / "target", tmp_path / "notebooks"
    install = (*PIP, "install", "--no-deps", "--no-index", "--no-compile", "--target", target, wheel)
    subprocess.run(install, check=True)
    assert {path.name for path in target.iterdir() if not path.name.endswith(".dist-info")} == {"bin", "segment_slide"}
    notebooks.mkdir()
    for part in PARTS:
        (notebooks / f"{part}.py").write_text("OWNER = 'the user'\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (notebooks, target)))}
    told = json.loads(subprocess.check_output([sys.executable, "-c", BESIDE_A_NOTEBOOK], cwd=notebooks, env=env))
    assert told["early"] == []
    assert told["mine"] == ["the user"] * len(PARTS)
    assert told["version"] == segment_slide.__version__
    assert len(told["loaded"]) > 20
    assert all(Path(file).is_relative_to(target) for file in told["loaded"].values())
    said = subprocess.check_output([target / "bin/segment-slide", "--version"], cwd=notebooks, env=env, text=True)
    assert segment_slide.__version__ in said


# -- what tools that read the tree see ------------------------------------------------------------------------------


def modules_for_mypy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What mypy would check in a folder, by its own reading of pyproject.toml."""
    monkeypatch.chdir(folder)
    sources, _ = mypy.main.process_options([], stdout=io.StringIO(), stderr=io.StringIO())
    return [source.module for source in sources]


def test_mypy_checks_each_file_of_the_tree_once_under_its_installed_name(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name for name in files_of_the_tree(ROOT) if name.endswith(".py")}
    names = {f"segment_slide/{name}".removesuffix(".py").removesuffix("/__init__") for name in modules}
    found = modules_for_mypy(ROOT, monkeypatch)
    assert sorted(found) == sorted({name.replace("/", ".") for name in names} | {"segment_slide"})


def test_without_the_links_mypy_would_check_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "segment_slide").mkdir()
    shutil.copy(ROOT / "segment_slide/__init__.py", tmp_path / "segment_slide")
    assert modules_for_mypy(tmp_path, monkeypatch) == ["segment_slide"]


LOADED_TWICE = """
import collections, json, os, sys

def pytest_collection_finish(session):
    names = collections.defaultdict(list)
    for name, module in sys.modules.copy().items():
        if file := getattr(module, "__file__", None):
            names[os.path.relpath(os.path.realpath(file))].append(name)
    with open(os.environ["LOADED"], "w") as file:
        json.dump({path: names[path] for path in names if path.startswith("unet/")}, file)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("collected", "names"),
    [
        ("segment_slide/unet/geometry.py", ["segment_slide.unet.geometry"]),
        ("unet/geometry.py", ["segment_slide.unet.geometry", "unet.geometry"]),  # what the links are there against
    ],
)
def test_a_doctest_and_a_test_load_one_module_only_where_doctests_are_found_through_the_links(
    collected: str, names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "loaded_twice.py").write_text(LOADED_TWICE)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "LOADED": str(tmp_path / "loaded.json")}
    collect = (sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "loaded_twice", "-p", "no:cacheprovider")
    subprocess.run([*collect, collected, "tests/unet/test_geometry.py"], cwd=ROOT, env=env, check=True)
    loaded = json.loads((tmp_path / "loaded.json").read_text())
    assert sorted(loaded["unet/geometry.py"]) == names


def test_no_file_is_loaded_under_two_names() -> None:
    """Of this session, which has collected all tests and doctests if it was asked for all."""
    names = collections.defaultdict(list)
    for name, module in sys.modules.copy().items():
        path = Path(getattr(module, "__file__", None) or "/").resolve()
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in (*PARTS, "segment_slide"):
            names[path].append(name)
    assert names
    assert not {path: loaded for path, loaded in names.items() if len(loaded) > 1}


# -- what the package gives -----------------------------------------------------------------------------------------


def test_each_error_that_derives_from_ours_can_be_caught_by_the_packages_name() -> None:
    names = errors_of_ours()
    assert names == set(segment_slide.__all__) - {"__version__"}
    for name in names:
        error = getattr(segment_slide, name)
        assert issubclass(error, Exception)
        assert (error.__module__, error.__name__) in {(f"segment_slide.{part}.errors", name) for part in PARTS}


def test_dir_lists_the_errors_and_the_version_before_they_are_loaded() -> None:
    assert set(segment_slide.__all__) <= set(dir(segment_slide))
    assert sorted(segment_slide.__all__) == list(segment_slide.__all__)


def test_the_version_is_that_of_pyproject_toml() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert segment_slide.__version__ == described["project"]["version"]


@pytest.mark.parametrize("name", ["PlanErr", "segment", "WrongValueError", "__wrapped__"])
def test_a_name_that_the_package_does_not_give_is_no_attribute(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'segment_slide' has no attribute '{name}'"):
        getattr(segment_slide, name)


# -- what pages say of it -------------------------------------------------------------------------------------------

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def wrong_imports(text: str) -> list[str]:
    """Imports of ours in a text that name what is not there, or one of the four folders without ours before it."""
    wrong = [f"from {name}" for name in re.findall(rf"from ((?:{'|'.join(PARTS)})\b[.\w]*) import", text)]
    for module, names in re.findall(r"from (segment_slide[.\w]*) import (\w+(?:, \w+)*)", text):
        wrong += [f"from {module} import {name}" for name in names.split(", ") if not is_there(module, name)]
    return wrong


def is_there(module: str, name: str) -> bool:
    """Whether a module defines a function or class, or holds a module. Nothing is loaded: Prefect is slow."""
    path = ROOT.joinpath(*module.split("."))
    if path.with_suffix(".py").is_file():
        return re.search(rf"^(class|def) {name}\b", path.with_suffix(".py").read_text(), re.MULTILINE) is not None
    return (path / f"{name}.py").is_file() or (module == "segment_slide" and name in segment_slide.__all__)


def test_what_pages_import_from_the_package_is_there() -> None:
    texts = {page: re.sub(r"^  \| `from .*? \|", "", page.read_text(), flags=re.MULTILINE) for page in PAGES}
    assert not {page: wrong for page, text in texts.items() if (wrong := wrong_imports(text))}
    assert sum(text.count("from segment_slide") for text in texts.values()) > 10


def test_the_check_of_imports_on_pages_sees_what_is_not_there() -> None:
    assert wrong_imports("from flows.segment import segment_image") == ["from flows.segment"]
    assert wrong_imports("`from segment_slide.unet.geometry import Geometry, Geometries`") == [
        "from segment_slide.unet.geometry import Geometries"
    ]
    assert wrong_imports("from segment_slide.pipeline.options import SegmentOptions") == [
        "from segment_slide.pipeline.options import SegmentOptions"
    ]
    assert not wrong_imports("from segment_slide import PlanError; from segment_slide.pipeline.storage import store")
