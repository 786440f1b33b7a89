"""Commands killed at the first, a middle and the last of the files that they write shard by shard: nothing is lost.

A hook in this process ends a command at the rename that completes a shard: with half of its bytes written aside, just
before the rename, or just after it. The same command must then go on to the bytes of an undisturbed run, and leave
nothing over. Where the quick cases sample, `make test-exhaustive` takes every shard and every moment.
"""

import contextlib
import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from segment_slide.pipeline.storage.lock import LOCK_NAME, hold
from tests.flows.support import (
    Outcome,
    noise,
    run_here,
    tree,
    write_array,
    write_model,
    write_ome,
    write_segmentation,
)
from tests.tiers import exhaustive

TORN, BEFORE, AFTER = "torn", "before", "after"  # where in the writing of a shard the kill comes
MOMENTS = (TORN, BEFORE, AFTER)
SHARD, PART = r"/c/\d", r"/tables/.*(\.parquet$|\.work/)"  # parts of tables, and what a table is made of


# -- commands ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command that writes shards below OUT, which is put for {out}; {in} is the folder of the inputs.

    Parameters
    ----------
    words : str
        The command.
    n_shards : int
        That it writes; the last ones are of the pyramid.
    copied : str
        Input that is there as OUT before, because the command writes into it.
    shard : str
        Pattern of their paths.
    """

    words: str
    n_shards: int
    copied: str = ""
    shard: str = SHARD

    def run(self, inputs: Path, out: Path) -> Outcome:
        """The whole command, in this process; OUT is made ready if it is not there."""
        if self.copied and not out.exists():
            shutil.copytree(inputs / self.copied, out)
        return run_here(*(word.format(**{"in": inputs, "out": out}) for word in self.words.split()))


SEGMENT = "-m {in}/cells.safetensors --precision float32 --block 64"
MASKS = "--labels {in}/masks --kind binary --sigma 2"
COMMANDS = {
    "ingest": Command("ingest {in}/stack.tif {out} --axes zyx", 6),
    "segment": Command(f"segment {{in}}/wide.zarr -o {{out}} {SEGMENT} --axes yx --probabilities uint8", 30),
    "segment --in-place": Command(f"segment {{out}} --in-place {SEGMENT}", 15, "wide.ome.zarr"),
    "instances": Command("instances {out} --block 64 --fill-holes 20", 25, "classes.ome.zarr"),
    "instances --output": Command("instances {in}/classes.ome.zarr -o {out} --block 64 --split 2 --regrow", 25),
    "measure": Command("measure {out} --no-image", 11, "numbered.ome.zarr", PART),
    "weight-maps": Command(f"weight-maps {{in}}/images {MASKS} -o {{out}} --block 32", 45),
    "training-data": Command("training-data {in}/set -o {out} --n 40 --tile 16 --depth 1", 16),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _without_workers(monkeypatch):
    for flow in ("instances", "measure", "segment", "training_data", "weight_maps"):
        monkeypatch.setattr(f"segment_slide.flows.{flow}.open_cluster", lambda *_, **__: contextlib.nullcontext())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """What the commands start from; nothing changes it."""
    folder = tmp_path_factory.mktemp("inputs")
    tifffile.imwrite(folder / "stack.tif", noise(3, 600, 40), photometric="minisblack")
    write_array(folder / "wide.zarr", noise(40, 600))
    write_ome(folder / "wide.ome.zarr", noise(40, 600), "yx")
    write_model(folder / "cells.safetensors")
    blobs = (ndimage.gaussian_filter(noise(40, 600).astype(float), 2) > 127).astype(np.uint8)
    for name in ("classes", "numbered"):
        write_segmentation(folder / f"{name}.ome.zarr", blobs, scale=(1.0, 1.0))
    for name, pixels in (("images", noise(3, 64, 64)), ("masks", blobs[:36, :192].reshape(36, 3, 64).swapaxes(0, 1))):
        (folder / name).mkdir()
        for number, plane in enumerate(pixels[:, :36]):
            tifffile.imwrite(folder / name / f"t{number}.tif", plane)
    with pytest.MonkeyPatch.context() as patch:
        for flow in ("instances", "weight_maps"):
            patch.setattr(f"segment_slide.flows.{flow}.open_cluster", lambda *_, **__: contextlib.nullcontext())
        for words in (
            ("instances", folder / "numbered.ome.zarr", "--block", 64),
            ("weight-maps", folder / "images", "--labels", folder / "masks", "--kind", "binary", "-o", folder / "set"),
        ):
            assert run_here(*words).exit_code == 0
    return folder


# -- the hook ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing after it changes the disk."""


class Death:
    """Counts renames that complete a shard; with one of them, every change of the disk ends.

    Whatever else a run would do (delete its lock, clean up, write by another thread) no longer happens, as if the
    process was gone.
    """

    def __init__(self, pattern: str, position: int, moment: str) -> None:
        self.pattern, self.position, self.moment = re.compile(pattern), position, moment
        self.completed: list[str] = []
        self.has_come = False

    def die(self) -> NoReturn:
        self.has_come = True
        raise Killed

    def rename(self, original: Callable[..., None], source: Any, target: Any, **more: Any) -> None:
        if self.has_come:
            raise Killed
        is_shard = self.pattern.search(os.fspath(target))
        is_its_turn = is_shard and len(self.completed) == self.position
        if is_its_turn and self.moment == TORN:
            os.truncate(source, os.path.getsize(source) // 2)
        if is_its_turn and self.moment != AFTER:
            self.die()
        original(source, target, **more)
        if is_shard:
            self.completed.append(os.fspath(target))
        if is_its_turn:
            self.die()

    def remove(self, original: Callable[..., None], *arguments: Any, **more: Any) -> None:
        if self.has_come:
            raise Killed
        original(*arguments, **more)


@contextlib.contextmanager
def killed_at(pattern: str, position: int, moment: str) -> Iterator[list[str]]:
    """Kill a run at one of the shards whose paths match; yields the paths of those that were completed."""
    death = Death(pattern, position, moment)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename"):
            patch.setattr(os, name, functools.partial(death.rename, getattr(os, name)))
        for name in ("unlink", "remove", "rmdir"):
            patch.setattr(os, name, functools.partial(death.remove, getattr(os, name)))
        yield death.completed


# -- tests -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """A command, its inputs, and a place where it runs again and again: outputs hold their own path."""

    command: Command
    inputs: Path
    out: Path

    def clear(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)

    def whole(self) -> tuple[dict[str, str], list[str]]:
        """Tree of an undisturbed run, and the shards that it wrote."""
        with killed_at(self.command.shard, -1, BEFORE) as completed:
            outcome = self.command.run(self.inputs, self.out)
        assert outcome.exit_code == 0, outcome
        return kept(self.out), completed

    def judge(self, position: int, moment: str, whole: dict[str, str]) -> str:
        """What is wrong after a kill and another run; empty if nothing is."""
        self.clear()
        with killed_at(self.command.shard, position, moment) as completed, pytest.raises(Killed):
            self.command.run(self.inputs, self.out)
        assert len(completed) == position + (moment == AFTER)
        assert kept(self.out) != whole, "nothing was disturbed"
        again = self.command.run(self.inputs, self.out)
        if again.exit_code:
            return again.err
        differing = sorted({name for name, _ in kept(self.out).items() ^ whole.items()})
        return f"differ, are missing or left over: {differing}" if differing else ""


def kept(folder: Path) -> dict[str, str]:
    """Every file but pages, which hold times."""
    return {name: digest for name, digest in tree(folder).items() if not name.endswith(".html")}


@pytest.fixture
def bench(name, inputs, tmp_path) -> Bench:
    return Bench(COMMANDS[name], inputs, tmp_path / "out.ome.zarr")


def places(n_shards: int) -> dict[str, int]:
    return {"first": 0, "middle": n_shards // 2, "last": n_shards - 1}


SAMPLE = [  # each command once, each place and each moment at least twice
    ("ingest", "last", AFTER),
    ("segment", "first", BEFORE),
    ("segment --in-place", "middle", TORN),
    ("instances", "first", TORN),
    ("instances --output", "last", BEFORE),
    ("measure", "last", TORN),
    ("weight-maps", "first", AFTER),
    ("training-data", "middle", AFTER),
]
THOROUGH = [(name, place, moment) for name in COMMANDS for place in ("first", "middle", "last") for moment in MOMENTS]


@pytest.mark.parametrize(
    ("name", "place", "moment"), [*SAMPLE, *(exhaustive(*case) for case in THOROUGH if case not in SAMPLE)]
)
def test_a_kill_at_a_shard_loses_nothing(bench, place, moment):
    whole, shards = bench.whole()
    assert len(shards) == bench.command.n_shards, shards
    assert not bench.judge(places(len(shards))[place], moment, whole)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", COMMANDS)
def test_a_kill_at_any_shard_loses_nothing(bench):
    whole, shards = bench.whole()
    bad = {
        f"{moment} shard {position}, {shards[position]}": wrong
        for position in range(len(shards))
        for moment in MOMENTS
        if (wrong := bench.judge(position, moment, whole))
    }
    assert not bad, "\n".join(f"killed {where}: {what}" for where, what in bad.items())


@pytest.mark.parametrize("name", ["segment"])
def test_a_shard_that_is_lost_after_the_kill_would_be_noticed(bench):
    """The control of the comparison: a run that goes on is not the only way to a tree that looks whole."""
    whole, shards = bench.whole()
    Path(shards[len(shards) // 2]).unlink()
    assert kept(bench.out) != whole


@pytest.mark.parametrize("name", ["ingest"])
def test_the_lock_of_a_run_that_lives_stays(bench):
    bench.whole()
    lock = bench.out / LOCK_NAME
    with hold(str(bench.out), lambda: None):
        assert bench.command.run(bench.inputs, bench.out).exit_code == 0
        assert lock.exists()
    assert not lock.exists()
