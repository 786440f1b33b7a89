"""Who may import whom, and the other rules of the tree, read from the source.

::

    flows/ ──► cluster/
       └─────► pipeline/ ──► unet/
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "unet": {"unet"},
    "cluster": {"cluster"},
    "pipeline": {"pipeline", "unet"},
    "flows": {"flows", "pipeline", "cluster", "unet"},
}
MAX_LINES = 300
SOURCES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]

every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


def imported_packages(source, package):
    """Top-level packages that a module imports anywhere: inside functions, for type checkers, by relative names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(package if node.level else node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and is_import_by_name(node.func):
            found |= {str(arg.value).partition(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return found


def is_import_by_name(function):
    """Whether a called expression is ``__import__`` or ends in ``import_module``."""
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("__import__", "import_module")


def forbidden_imports(source, package):
    """Packages of ours that a module of `package` imports and may not."""
    return (imported_packages(source, package) & MAY_IMPORT.keys()) - MAY_IMPORT[package]


def printing_lines(source):
    """Lines that call ``print``."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]


def package_of(path):
    return path.relative_to(ROOT).parts[0]


@every_source
def test_a_package_imports_only_what_lies_below_it(path):
    assert not forbidden_imports(path.read_text(), package_of(path))


@every_source
def test_only_the_command_line_prints(path):
    assert package_of(path) == "flows" or not printing_lines(path.read_text())


@every_source
def test_a_file_has_at_most_300_lines(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_the_init_file_of_a_package_exists_and_imports_nothing(package):
    source = (ROOT / package / "__init__.py").read_text()
    assert not imported_packages(source, package)
    assert ast.get_docstring(ast.parse(source))


def test_subpackages_have_init_files_that_import_nothing_heavy():
    for path in SOURCES:
        init = path.parent / "__init__.py"
        assert imported_packages(init.read_text(), package_of(path)) <= sys.stdlib_module_names, init


@pytest.mark.parametrize(
    ("package", "source", "expected"),
    [
        ("unet", "import pipeline", {"pipeline"}),
        ("unet", "import numpy, cluster.spec as spec", {"cluster"}),
        ("cluster", "def connect():\n    from unet.geometry import Geometry", {"unet"}),
        ("pipeline", "if TYPE_CHECKING:\n    from flows.commands.main import main", {"flows"}),
        ("pipeline", "import importlib\nimportlib.import_module('cluster.kinds.local')", {"cluster"}),
        ("pipeline", "__import__('flows')", {"flows"}),
        ("pipeline", "from unet import geometry\nfrom pipeline import grid\nfrom . import plan", set()),
        ("unet", "# import pipeline\ntext = 'import pipeline'\nimport pipelines", set()),
        ("flows", "import cluster, pipeline, unet, flows.commands.main", set()),
    ],
)
def test_the_check_of_imports_sees_every_form_of_import_and_nothing_else(package, source, expected):
    assert forbidden_imports(source, package) == expected


def test_the_check_of_prints_sees_calls_and_nothing_else():
    assert printing_lines("x = 1\nprint(x)\nif x:\n    print('y')") == [2, 4]
    assert not printing_lines("'''>>> print(1)'''\npprint(1)\nself.print(2)\nlog(print)")


def test_all_packages_are_read():
    assert {package_of(path) for path in SOURCES} == set(MAY_IMPORT)
