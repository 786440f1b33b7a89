"""What `pipeline` and `unet` say names parameters of Python; options are the command line's, which shows its own."""

import ast
import re
from pathlib import Path

import pytest
import typer

from segment_slide.flows.commands.main import app
from segment_slide.flows.show.wording import find_options, in_options, list_options
from tests.flows.support import noise, run_here, write_array

ROOT = Path(__file__).parents[1]
PARAMETER = re.compile(r"`([a-z_]+)(?:=[^`]*)?`")
OPTION = re.compile(r"(?<!var\()--[a-z]")
# what these hold is no message: command lines that a report shows, and a style sheet
SHOWS_OPTIONS = {"pipeline/report/commands.py", "pipeline/report/style.py"}
SOURCES = [path for package in ("pipeline", "unet") for path in sorted((ROOT / package).rglob("*.py"))]


def texts_of(source):
    """All strings of a module but docstrings and the names of options; what a formatted one is filled with is an x."""
    tree = ast.parse(source)
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    flags = (node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "flags")
    left_out |= {id(part) for value in flags for part in ast.walk(value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in node.values}
            yield "".join(part.value if isinstance(part, ast.Constant) else "x" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.value


def options_in(source):
    return [text for text in texts_of(source) if OPTION.search(text)]


def test_no_message_names_an_option_of_the_command_line():
    found = {str(path.relative_to(ROOT)): options_in(path.read_text()) for path in SOURCES}
    assert len(found) > 100
    assert {path for path, texts in found.items() if texts} == SHOWS_OPTIONS


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("raise ValueError('add --axes')", True),
        ("f'--{axis} was given'", True),
        ("x = f'a {b} --workers'", True),
        ("def f():\n    '''See --axes.'''", False),
        ("style = f'fill: var(--paper)'", False),
        ("x = a --b", False),
        ("Option('Which.', flags=('--class-name',))", False),
    ],
)
def test_the_check_sees_strings_and_nothing_else(source, is_found):
    assert bool(options_in(source)) == is_found


def parameters_of(command):
    """Names of all parameters of a command and those below it."""
    below = [parameters_of(part) for part in getattr(command, "commands", {}).values()]
    return {parameter.name for parameter in command.params}.union(*below)


def test_what_messages_name_is_an_option_of_some_command():
    texts = (text for path in SOURCES for text in texts_of(path.read_text()))
    named = {name for text in texts for name in PARAMETER.findall(text)} - {"x"}  # x is filled in: an axis
    assert {"axes", "workers", "no_image"} <= named
    assert named <= parameters_of(typer.main.get_command(app))


def test_a_command_shows_its_own_option_and_one_without_it_the_parameter(tmp_path):
    bare = write_array(tmp_path / "bare.zarr", noise(4, 4))
    told = run_here("instances", bare, "-o", tmp_path / "out.ome.zarr")
    assert "say them with --axes, one letter" in told.err
    told = run_here("cluster", "check", "local", "--input", bare)
    assert "say them with --axes, one letter" in told.err
    token = find_options.set(lambda: list_options(typer.main.get_command(app), ["measure", "out.ome.zarr"]))
    try:
        assert in_options("say them with `axes`, and `workers`") == "say them with `axes`, and --workers"
    finally:
        find_options.reset(token)
