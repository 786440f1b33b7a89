"""Who may import whom, and the other rules of the tree, read from the source.

::

    flows/ ──► cluster/
       └─────► pipeline/ ──► unet/

A folder inside these is a room. A room's own table below says which others it may import; what is in no table may not.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "segment_slide"
PARTS = {
    "unet": {"unet"},
    "cluster": {"cluster"},
    "pipeline": {"pipeline", "unet"},
    "flows": {"flows", "pipeline", "cluster", "unet"},
}
# Rooms that each room may import, beside itself and the parts below. "" is the folder of the part itself.
ROOMS = {
    "unet": {
        "": {"engines"},  # a file's opener, by its suffix
        "locality": {""},
        "engines": {"", "locality"},
        "importing": {"", "locality", "engines"},
    },
    "pipeline": {
        "": set(),  # the errors
        "metadata": {""},
        "documents": {""},  # pages and tables that other programs open
        "blocks": {""},
        "limits": {"", "metadata"},
        "reads": {"", "metadata", "limits"},  # below storage, whose arrays are noted as they are read
        "zarr_stores": {"", "metadata", "limits"},
        "storage": {"", "metadata", "blocks", "reads", "limits", "zarr_stores"},
        "inputs": {"", "reads", "storage", "zarr_stores"},  # compared at start and end of every command that computes
        "manifest": {"", "metadata", "blocks", "zarr_stores", "storage"},
        "recorded": {"", "storage"},  # what records name is opened by one rule
        "statistics": {"", "blocks", "storage"},
        "readers": {"", "metadata", "blocks", "storage"},
        "ingest": {"", "metadata", "blocks", "limits", "zarr_stores", "storage", "readers", "manifest"},
        "segmentation": {
            *("", "metadata", "blocks", "storage", "statistics", "manifest", "reads"),
            *("inputs", "zarr_stores"),
        },
        "objects": {"", "metadata", "blocks", "storage", "statistics", "manifest", "inputs"},
        "measurement": {
            *("", "metadata", "blocks", "storage", "statistics", "zarr_stores", "manifest"),
            *("inputs", "documents", "recorded"),
        },
        "synthetic": {"", "blocks", "storage"},
        "training": {
            "",
            "metadata",
            "blocks",
            "storage",
            "statistics",
            "readers",
            "ingest",
            "manifest",
            "inputs",
            "documents",
            "recorded",
        },
        "scoring": {"", "metadata", "blocks", "storage", "readers", "ingest", "inputs"},
        "nights": {"", "metadata", "storage", "ingest", "measurement", "zarr_stores", "manifest", "inputs"},
        "completeness": {"", "blocks", "storage", "measurement", "nights", "training", "zarr_stores"},
        "pictures": {"", "metadata", "blocks", "storage", "measurement", "recorded"},
        "report": {
            *("", "metadata", "blocks", "zarr_stores", "storage", "statistics", "measurement", "nights", "pictures"),
            *("documents", "recorded"),
        },
        # what every stage stored, read again
        "integrity": {
            *("", "metadata", "blocks", "storage", "statistics", "ingest", "measurement", "training", "nights"),
            *("manifest", "zarr_stores", "limits", "recorded"),
        },
        "served_files": {"", "storage", "zarr_stores", "metadata", "limits"},
        "viewer": {
            "",
            "metadata",
            "blocks",
            "storage",
            "measurement",
            "pictures",
            "served_files",
            "zarr_stores",
            "documents",
            "recorded",
        },
    },
    "cluster": {
        "": set(),  # its table loads a kind by name
        "kinds": {""},
    },
    "flows": {
        "": set(),  # the stages
        "show": {"", "nights", "integrity"},
        "nights": {""},
        "demo": {"", "show"},
        "integrity": {""},
        "deployed": {"", "nights", "show"},
        "commands": {"", "show", "nights", "demo", "integrity"},
    },
}
MAX_LINES, MAX_FILES = 300, 20
SOURCES = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
FOLDERS = sorted({path.parent for path in SOURCES})


def module_of(path: Path) -> str:
    """Dotted name of a source file; of an ``__init__.py`` that of its folder."""
    return ".".join((NAME, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def room_of(module: str) -> tuple[str, str]:
    """Part and room of a module's dotted name: ("pipeline", "storage"); the room of a part's own files is ""."""
    _, part, *rest = module.split(".")
    is_room = rest and rest[0] in ROOMS.get(part, {})
    return part, rest[0] if is_room else ""


def named_modules(source: str, package: str) -> Iterator[str]:
    """Whole dotted names of all that a module imports anywhere.

    Inside functions too, for type checkers, by relative names, and by name. Of ``from a import b`` it is ``a.b``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and is_import_by_name(node.func):
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))


def is_import_by_name(function: ast.expr) -> bool:
    """Whether a called expression is ``__import__`` or ends in ``import_module``."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("__import__", "import_module")


def forbidden_imports(source: str, module: str) -> set[str]:
    """What a module of ours imports and may not: parts above its own, rooms that are not in its room's table.

    The old names of the four folders, without ours before them, are forbidden to all.
    """
    part, room = room_of(module)
    package = module if MODULES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for name in named_modules(source, package):
        first, _, rest = name.partition(".")
        if first in PARTS:
            found.add(name)
        if first != NAME or rest.partition(".")[0] not in PARTS:
            continue
        other, other_room = room_of(name)
        may_import_part = other in PARTS[part]
        may_import_room = other != part or other_room == room or other_room in ROOMS.get(part, {}).get(room, set())
        if not (may_import_part and may_import_room):
            found.add(name)
    return found


def imported_modules(path: Path) -> set[str]:
    """Modules of ours that a file imports."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    names = set(named_modules(path.read_text(), package))
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} & MODULES.keys()


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty if there is none."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return way[way.index(module) :]
        if module in done:
            return []
        for other in sorted(graph.get(module, set())):
            if circle := visit(other, [*way, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := visit(module, []))), [])


def printing_lines(source: str) -> list[int]:
    """Lines that call ``print``."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]


def test_a_room_imports_only_what_its_table_allows() -> None:
    forbidden = {module: forbidden_imports(path.read_text(), module) for module, path in MODULES.items()}
    assert not {module: names for module, names in forbidden.items() if names}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not find_circle({module: imported_modules(path) - {module} for module, path in MODULES.items()})


def test_every_folder_is_a_room_in_the_table() -> None:
    rooms = {(part, room) for part, table in ROOMS.items() for room in table}
    assert {room_of(f"{module_of(folder / '__init__.py')}.x") for folder in FOLDERS} == rooms
    assert all(len(folder.relative_to(ROOT).parts) <= 2 for folder in FOLDERS)


def test_only_the_command_line_prints() -> None:
    printing = {module: printing_lines(path.read_text()) for module, path in MODULES.items()}
    assert not {module for module, lines in printing.items() if lines and room_of(module)[0] != "flows"}


def test_a_file_has_at_most_300_lines() -> None:
    assert not {module for module, path in MODULES.items() if len(path.read_text().splitlines()) > MAX_LINES}


def test_a_folder_has_at_most_20_files() -> None:
    """But `unet` itself: one file for each step of the paper."""
    counts = {folder: sum(path.is_file() for path in folder.iterdir()) for folder in FOLDERS}
    assert not {folder: n for folder, n in counts.items() if n > MAX_FILES and folder != ROOT / "unet"}


def test_init_files_say_what_is_in_their_folder_and_import_nothing_heavy() -> None:
    for folder in FOLDERS:
        source = (folder / "__init__.py").read_text()
        assert ast.get_docstring(ast.parse(source)), folder
        assert all(map(is_light, named_modules(source, ""))), folder


def is_light(name: str) -> bool:
    """Whether a module is Python's own, or one of ours that imports only such."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return True
    path = MODULES.get(name) or MODULES.get(name.rpartition(".")[0])
    return path is not None and all(
        other.partition(".")[0] in sys.stdlib_module_names for other in named_modules(path.read_text(), "")
    )


def test_tests_mirror_the_rooms() -> None:
    """Tests of a room lie in the folder of its name."""
    tested = {path.parent.relative_to(ROOT / "tests").parts for path in (ROOT / "tests").rglob("test_*.py")}
    rooms = {(part, room) for part, table in ROOMS.items() for room in table if room} | {(part,) for part in PARTS}
    others = {("slurm",), ("sge",), ("docs",), ("benchmarks",), ("previous_version",)}
    others |= {("hostile_environment",), ("security",), ("integrity",)}
    assert tested - {(), *others} <= rooms


def test_the_package_is_linked_to_its_four_parts() -> None:
    links = {path.name: path.readlink() for path in (ROOT / NAME).iterdir() if path.is_symlink()}
    assert links == {part: Path("..", part) for part in PARTS}
    assert (ROOT / NAME / "py.typed").exists()


def test_importing_the_package_loads_none_of_its_parts() -> None:
    code = f"import sys, {NAME}; {NAME}.__version__; print([m for m in sys.modules if m.startswith('{NAME}.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_module_is_loaded_under_its_folder_s_old_name() -> None:
    """Doctests and importlib mode would load a file twice, under two names, without a word."""
    assert not PARTS.keys() & sys.modules.keys()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("unet.model", "import segment_slide.pipeline", {"segment_slide.pipeline"}),
        ("unet.model", "import numpy, segment_slide.cluster.spec as spec", {"segment_slide.cluster.spec"}),
        ("cluster.spec", "def f():\n    from segment_slide.unet.geometry import Geometry", {
            "segment_slide.unet.geometry.Geometry"}),
        ("pipeline.errors", "if TYPE_CHECKING:\n    from segment_slide.flows.segment import x", {
            "segment_slide.flows.segment.x"}),
        ("pipeline.blocks.grid", "import importlib\nimportlib.import_module('segment_slide.cluster.spec')", {
            "segment_slide.cluster.spec"}),
        ("pipeline.blocks.grid", "__import__('segment_slide.flows')", {"segment_slide.flows"}),
        ("pipeline.blocks.grid", "from segment_slide.pipeline import errors\nfrom . import sizes", set()),
        ("pipeline.blocks.grid", "from segment_slide.pipeline.storage import store", {
            "segment_slide.pipeline.storage.store"}),
        ("pipeline.blocks.grid", "from segment_slide.pipeline import storage", {"segment_slide.pipeline.storage"}),
        ("pipeline.blocks.grid", "from ..storage import store", {"segment_slide.pipeline.storage.store"}),
        ("pipeline.report.run", "from segment_slide.pipeline.viewer import page", {
            "segment_slide.pipeline.viewer.page"}),
        ("flows.show.info", "from segment_slide.flows.commands.main import app", {
            "segment_slide.flows.commands.main.app"}),
        ("flows.segment", "from segment_slide.flows.nights import run", {"segment_slide.flows.nights.run"}),
        ("unet.model", "import pipeline", {"pipeline"}),
        ("flows.segment", "from unet.geometry import Geometry", {"unet.geometry.Geometry"}),
        ("unet.model", "# import pipeline\ntext = 'import pipeline'\nimport pipelines", set()),
        ("flows.segment", "import segment_slide.cluster.spec, segment_slide.pipeline.storage.store", set()),
    ],
)  # fmt: skip
def test_the_check_of_imports_sees_every_form_of_import_and_nothing_else(
    module: str, source: str, expected: set[str]
) -> None:
    assert forbidden_imports(source, f"{NAME}.{module}") == expected


def test_the_check_of_circles_finds_them() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert not find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_the_check_of_prints_sees_calls_and_nothing_else() -> None:
    assert printing_lines("x = 1\nprint(x)\nif x:\n    print('y')") == [2, 4]
    assert not printing_lines("'''>>> print(1)'''\npprint(1)\nself.print(2)\nlog(print)")


def test_all_parts_are_read() -> None:
    assert {room_of(module)[0] for module in MODULES} == set(PARTS)
    assert len(MODULES) > 200
