"""Commands that are killed between any two operations on files, in this process: nothing after that touches the disk.

Python tells of each operation before it is done (an audit hook), so none is left out, whoever makes it: our code, zarr,
`shutil`, `pathlib`. What libraries of C write is written into memory first and stored by Python.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.rename": 1, "os.link": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.symlink": 1}
_FOLDERS = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2}  # which argument is the folder that a name is relative to
_NAMING = ("os.rename", "os.link", "open")
_SHARD = re.compile(r"/c/\d+(/\d+)*$")
_LOCK = "segment-slide.lock"


class Killed(BaseException):
    """Ends a run as SIGKILL does: no handler of Exception sees it."""


@dataclass
class Watch:
    """The operations on files below a folder, and after how many of them the process is killed."""

    folder: str
    kill_at: int
    done: list[str] = field(default_factory=list)
    is_dead: bool = False

    def see(self, event: str, name: str) -> None:
        """Count an operation, or refuse it and all after it.

        What is written aside has no effect until it is renamed, so that only its renaming counts.
        """
        if not name.startswith(self.folder) or name.endswith(_LOCK):
            return
        is_aside = event == "open" and name.endswith(".partial")
        changes = not is_aside and not (event == "os.mkdir" and os.path.isdir(name))
        if self.is_dead or (changes and len(self.done) >= self.kill_at):
            self.is_dead = True
            raise Killed
        if changes:
            self.done.append(f"{event} {name.removeprefix(self.folder)}")


_watches: list[Watch] = []
_is_hooked: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watches:
        return
    if event in _CHANGES:
        name = os.fsdecode(arguments[_CHANGES[event]])
        within = arguments[_FOLDERS[event]] if event in _FOLDERS else -1
        if not name.startswith("/") and within >= 0:  # `shutil.rmtree` goes down by open folders
            name = f"{os.readlink(f'/proc/self/fd/{within}')}/{name}"
        _watches[-1].see(event, name)
    elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike) and (arguments[2] or 0) & _WRITING:
        _watches[-1].see(event, os.fsdecode(arguments[0]))


@contextmanager
def killed_at(folder: Path, number: int) -> Iterator[list[str]]:
    """Let so many operations on files below a folder happen, and then none; yields what they were."""
    if not _is_hooked:  # a hook stays for the life of the process
        sys.addaudithook(_hook)
        _is_hooked.append(True)
    watch = Watch(f"{folder}/", number)
    _watches.append(watch)
    try:
        yield watch.done
    finally:
        _watches.remove(watch)


def list_points(done: list[str], *, is_all: bool) -> list[int]:
    """Which operations of a command to be killed at: all but those on pixels, and three of these.

    Parameters
    ----------
    done : list of str
        The operations of an undisturbed run, in their order.
    is_all : bool
        Whether to be killed before making and deleting folders and deleting files too, not only before files get their
        names.
    """
    pixels = [number for number, what in enumerate(done) if _SHARD.search(what)]
    some = {pixels[position] for position in (0, len(pixels) // 2, -1)} if pixels else set()
    points = set(range(len(done) + 1)) if is_all else {n for n, what in enumerate(done) if what.startswith(_NAMING)}
    return sorted(points - set(pixels) | some)
