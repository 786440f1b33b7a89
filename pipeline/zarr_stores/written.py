"""A Zarr store for writing that notes the checksum of each file as its bytes go out.

::

    OUT/.segment-slide.written/<host>-<uuid>-<process>.tsv      key <tab> bytes <tab> sha256, one line a file
                               open.txt                         folders that the run works on

A run makes the folder before it writes and deletes it when the manifest has what was noted
(`pipeline.manifest.sealing`). Without the folder nothing is noted. Each process appends to a file of its own, so
workers on any machine that see the output can note. A note that is lost, cut off, or contradicts another one only
costs that the file is read once more at the end.
"""

import asyncio
import hashlib
import itertools
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

NOTES_NAME = ".segment-slide.written"
_DEEPEST = 8  # folders between a file of ours and its output, at most
_UNNOTED = ("\n", "\t", "\r")
_OPEN = "open.txt"
_WORK, _WORK_SUFFIX = "work", ".work"

Digest = tuple[int, str]

_names: dict[int, str] = {}


class NotingStore(LocalStore):
    """A folder for writing; it notes what is stored if the folder of notes is there."""

    async def set(self, key: str, value: Buffer) -> None:
        """See `zarr.abc.store.Store.set`."""
        await super().set(key, value)
        # zarr has one event loop for all threads of a process: hashing there would let them wait for each other
        await asyncio.to_thread(note, self.root, key, value.as_buffer_like())

    def set_sync(self, key: str, value: Buffer) -> None:
        """See `zarr.abc.store.SupportsSetSync`."""
        super().set_sync(key, value)
        note(self.root, key, value.as_buffer_like())


def digest_of(content: bytes | bytearray | memoryview) -> Digest:
    """Number of bytes, and their sha256.

    >>> digest_of(b"")[1][:8]
    'e3b0c442'
    """
    view = memoryview(content).cast("B")
    return view.nbytes, hashlib.sha256(view).hexdigest()


def is_scratch(key: str) -> bool:
    """Whether a file of an output is only there while a run lasts, told by the folders above it.

    >>> [is_scratch(key) for key in ("labels/a-instances/work/rows/0", "tables/a.work/ids/0", "labels/work/0/c/0")]
    [True, True, False]
    """
    *folders, _ = key.split("/")
    of_instances = any(name == _WORK and above.endswith("-instances") for above, name in itertools.pairwise(folders))
    return of_instances or NOTES_NAME in folders or any(name.endswith(_WORK_SUFFIX) for name in folders)


def note(root: Path, key: str, content: bytes | bytearray | memoryview) -> None:
    """Note a file that was just written, if the output has a folder of notes.

    A note that cannot be written is left out: the file itself is there.
    """
    folder = root / NOTES_NAME
    if is_scratch(key) or any(sign in key for sign in _UNNOTED) or not folder.is_dir():
        return
    size, sha256 = digest_of(content)
    _append(folder, f"\n{key}\t{size}\t{sha256}\n")


def note_file(path: Path, content: bytes) -> None:
    """The same for a file whose output is not known: the nearest folder above it that has notes."""
    for root in path.parents[:_DEEPEST]:
        if (root / NOTES_NAME).is_dir():
            note(root, path.relative_to(root).as_posix(), content)
            return


def _append(folder: Path, line: str) -> None:
    """One write to the file of this process: threads and other processes never mix their lines."""
    process = os.getpid()
    name = _names.setdefault(process, f"{socket.gethostname()}-{uuid.uuid4().hex}-{process}.tsv")
    try:
        # not created with the folder: another process may just have deleted it, at the end of the run
        file = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError:
        return
    try:
        os.write(file, line.encode(errors="surrogateescape"))
    except OSError:
        pass
    finally:
        os.close(file)


def begin_notes(root: Path, known: dict[str, Digest], open_folders: Sequence[str] = ()) -> None:
    """Begin to note what is written below a folder.

    Parameters
    ----------
    root : Path
        The output.
    known : dict
        Digests that are known already, by path relative to the output.
    open_folders : sequence of str
        Folders that the run works on.
    """
    folder = root / NOTES_NAME
    folder.mkdir(parents=True, exist_ok=True)
    if open_folders:
        (folder / _OPEN).write_text("\n".join(open_folders))
    if known:
        _append(folder, "".join(f"\n{key}\t{size}\t{sha256}\n" for key, (size, sha256) in known.items()))


def read_notes(root: Path) -> dict[str, Digest]:
    """What was noted of each file, without files that two notes contradict each other about."""
    found: dict[str, Digest] = {}
    contradicted: set[str] = set()
    for key, digest in _read_lines(root / NOTES_NAME):
        if found.setdefault(key, digest) != digest:
            contradicted.add(key)
    return {key: digest for key, digest in found.items() if key not in contradicted}


def read_open_folders(root: Path) -> list[str]:
    """Folders that a run works on now, or worked on when it was interrupted."""
    try:
        return (root / NOTES_NAME / _OPEN).read_text().split("\n")
    except OSError:
        return []


def _read_lines(folder: Path) -> Iterator[tuple[str, Digest]]:
    for file in sorted(folder.glob("*.tsv")):
        try:
            text = file.read_bytes().decode(errors="surrogateescape")
        except OSError:
            continue
        for line in text.split("\n"):
            parts = line.split("\t")
            if len(parts) == 3 and parts[1].isdecimal() and len(parts[2]) == 64:
                yield parts[0], (int(parts[1]), parts[2])


def end_notes(root: Path) -> None:
    """Delete the notes."""
    shutil.rmtree(root / NOTES_NAME, ignore_errors=True)
