"""Files that commands read, damaged in every way: a sentence and exit code 2, or 3 in the middle of a run.

Or the command does without what is damaged. Never a traceback, nor a message of a million letters.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segment_slide.pipeline.errors import InputError
from tests.security.mutations import CHANGES, WHOLE, change, places, put
from tests.security.world import Fault, World, damage_header, header, run

LONGEST = 5_000  # letters of a message
IN_SMALL = ("info", "plan", "instances")  # the commands that take less than a second


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> World:
    return kept(World(tmp_path_factory.mktemp("small") / "world").build_small())


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> World:
    return kept(World(tmp_path_factory.mktemp("whole") / "world").build())


def kept(world: World) -> World:
    """A copy is kept beside it; records name paths, so the world itself is changed and put back."""
    shutil.copytree(world.folder, world.folder.with_name("kept"))
    return world


def put_back(world: World) -> None:
    shutil.rmtree(world.folder)
    shutil.copytree(world.folder.with_name("kept"), world.folder)


def content_of(path: Path) -> object:
    if path.suffix == ".safetensors":
        return json.loads(header(path))
    return yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else json.loads(path.read_bytes())


def damage(path: Path, data: st.DataObject) -> str:
    """Change a file in a way that the data choose; return which."""
    if path.suffix == ".json" and data.draw(st.integers(0, 7)) == 0:
        name = data.draw(st.sampled_from(sorted(WHOLE)))
        path.write_bytes(WHOLE[name](path.read_bytes()))
        return name
    content = content_of(path)
    place = data.draw(st.sampled_from(sorted(places(content), key=str)))
    name = data.draw(st.sampled_from(CHANGES))
    text = change(name, content, place)
    if path.suffix == ".safetensors":
        damage_header(path, lambda _: text)
    else:
        path.write_text(text)
    return f"{name} at {place}"


def check(world: World, data: st.DataObject, only: tuple[str, ...] = ()) -> None:
    files = {name: [c for c in commands if not only or c[0] in only] for name, commands in world.files().items()}
    name = data.draw(st.sampled_from(sorted(name for name, commands in files.items() if commands)))
    words = data.draw(st.sampled_from(files[name]))
    try:
        what = f"{words[0]}, {name}: {damage(world.folder / name, data)}"
        outcome = run(*words)
    finally:
        put_back(world)
    assert not isinstance(outcome, Fault), f"{what}: {outcome.place}"
    assert outcome.exit_code in (0, 2, 3), (what, outcome)
    assert len(outcome.err) + len(outcome.out) < LONGEST * 4, (what, outcome.err[:LONGEST])
    assert not set("\x1b\x9b\x07\u202e") & set(outcome.err + outcome.out), (what, outcome)
    if outcome.exit_code == 2:
        assert outcome.err.startswith(("Error: ", "WARNING: ", "Usage")), (what, outcome)


@settings(max_examples=15)
@given(st.data())
def test_damaged_metadata_end_in_a_sentence(small, data):
    check(small, data, IN_SMALL)


@pytest.mark.exhaustive
@settings(max_examples=2_000)
@given(st.data())
def test_every_command_ends_in_a_sentence_whatever_is_damaged(whole, data):
    check(whole, data)


def test_a_traceback_would_be_noticed(small, monkeypatch):
    """The control: an error that is not one of ours comes back as a fault, one of ours does not."""
    words = ("info", small.folder / "slide.ome.zarr")
    for error, is_fault in ((ZeroDivisionError("x"), True), (InputError("x"), False)):

        def fail(*_: object, error: Exception = error, **__: object) -> Iterator[None]:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("segment_slide.pipeline.storage.image._stored_image", fail)
            assert isinstance(run(*words), Fault) == is_fault


@pytest.mark.parametrize(
    ("file", "place", "value", "says"),
    [
        ("slide.ome.zarr/0/zarr.json", ("shape",), [1, -40, 50], ("shape is [1, -40, 50]", "whole numbers from 0")),
        ("slide.ome.zarr/0/zarr.json", ("chunk_grid", "configuration", "chunk_shape"), [1, 0, 5], ("chunk_shape",)),
        ("slide.ome.zarr/0/zarr.json", ("codecs",), "zstd", ("codecs is 'zstd'", "expected a list")),
        ("slide.ome.zarr/zarr.json", ("attributes",), [], ("attributes is []", "expected a JSON object")),
        (
            "out.ome.zarr/labels/segmentation/zarr.json",
            ("attributes", "segment_slide", "parameters"),
            {"block": -5},
            ("parameters.block is -5", "a whole number from 0"),
        ),
        ("cells.safetensors", ("classes",), 7, ("classes=7", "expected a list")),
        (
            "cells.safetensors",
            ("architecture", "dropout"),
            "x",
            ("dropout='x'", "expected a finite number"),
        ),
    ],
)
def test_the_sentence_names_file_key_value_and_what_was_expected(small, file, place, value, says):
    path = small.folder / file
    text = json.dumps(put(content_of(path), place, value))
    try:
        if path.suffix == ".safetensors":
            damage_header(path, lambda _: text)
        else:
            path.write_text(text)
        root = small.folder / file.split("/")[0]
        outcome = run("info", root)
    finally:
        put_back(small)
    assert not isinstance(outcome, Fault), outcome.place
    said = " ".join((outcome.err + outcome.out).split())
    assert all(part in said for part in (*says, path.name)), said
