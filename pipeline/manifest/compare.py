"""Compare the files of an output with its manifest: which are missing, surplus, or other than they were written."""

import functools
import os
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from segment_slide.pipeline.blocks.attempts import choose_batch, try_in_threads
from segment_slide.pipeline.blocks.tasks import run_all
from segment_slide.pipeline.errors import BlockError, TasksFailedError, UnreadableChunkError
from segment_slide.pipeline.manifest.content import check_file, hash_file, is_data
from segment_slide.pipeline.manifest.listing import list_files
from segment_slide.pipeline.manifest.manifest import FILE, Digest, Manifest, is_below, read_manifest
from segment_slide.pipeline.storage import store

if TYPE_CHECKING:
    from distributed import Client

Kind = Literal["missing", "surplus", "changed", "unreadable"]
_GUESTS = ("labels", "probability", "tables")  # where folders of ours lie in a store of another tool


@dataclass(frozen=True)
class Difference:
    """A file that is not as the manifest says.

    Attributes
    ----------
    key : str
        Path relative to the folder that the manifest is of.
    kind : str
        "missing", "surplus", "changed" (other bytes than were written) or "unreadable" (by the system).
    reason : str
        More about it, in words.
    """

    key: str
    kind: Kind
    reason: str


def find_manifests(location: str) -> dict[str, Manifest]:
    """The manifests of an output, by the path of the folder that each is of, relative to the location.

    An output of ours has one, at "". In the store of another tool, each folder of ours has its own.

    Raises
    ------
    OutputError
        If one is damaged.
    """
    places = [""]
    for folder in _GUESTS:
        places += [store.join(folder, name) for name in sorted(store.list_names(store.join(location, folder)))]
    found = {place: read_manifest(store.join(location, place)) for place in places}
    return {place: manifest for place, manifest in found.items() if manifest is not None}


def compare_files(
    home: str,
    manifest: Manifest,
    client: "Client | None" = None,
    on_file: Callable[[int], None] | None = None,
) -> list[Difference]:
    """Read every file of an output and compare it with the manifest.

    Parameters
    ----------
    home : str
        Folder or URL that the manifest is of.
    manifest : Manifest
        Its manifest.
    client : Client, optional
        Where to read; None reads in threads of this process.
    on_file : callable, optional
        Called after each file that was read, with its size in bytes.

    Raises
    ------
    UnreachableError
        If the store cannot be reached.
    """
    there = list_files(home, manifest.folders, manifest.files)
    differences = [
        Difference(key, "missing", f"it is missing; {digest.size:,} bytes were written")
        for key, digest in manifest.files.items()
        if key not in there
    ]
    differences += [
        Difference(key, "surplus", "it is not in the manifest") for key in there if key not in manifest.files
    ]
    pending = []
    for key, digest in manifest.files.items():
        if key in there and there[key] != digest.size:
            differences.append(Difference(key, "changed", f"{there[key]:,} bytes instead of {digest.size:,}"))
        elif key in there:
            pending.append(key)
    try:
        for key, found in read_files(home, pending, client):
            if found.digest != manifest.files[key]:
                differences.append(Difference(key, "changed", "its sha256 is not that of what was written"))
            if on_file is not None:
                on_file(there[key])
    except TasksFailedError as failed:
        differences += [Difference(failure.item, "unreadable", f"{failure.error}") for failure in failed.failures]
    return sorted(differences, key=lambda difference: difference.key)


@dataclass(frozen=True)
class ReadFile:
    """A file that was read: its digest, or what is wrong with its content."""

    digest: Digest | None
    damage: str = ""


def read_files(
    location: str, keys: Collection[str], client: "Client | None", *, decode: bool = False
) -> Generator[tuple[str, ReadFile]]:
    """Read files and yield their digests in order of completion; `decode` looks at what is in them, too.

    Raises
    ------
    TasksFailedError
        At the end, naming files that the system could not read twice.
    IncompleteError
        If the workers are gone.
    """
    read = functools.partial(read_one, location, decode)
    if client is None or not any(map(is_data, keys)):  # sha256, zstd and the disk all work without Python's lock
        threads = try_in_threads(read, keys, len(os.sched_getaffinity(0)))
        yield from run_all(None, read, (), _name, first_tries=threads)
    else:
        yield from run_all(client, read, keys, _name, batch=choose_batch(client, len(keys)))


def read_one(location: str, decode: bool, key: str) -> ReadFile:
    """Read one file.

    Raises
    ------
    BlockError
        If the system cannot read it; it may the next time.
    """
    try:
        return ReadFile(check_file(location, key) if decode else hash_file(location, key))
    except UnreadableChunkError as error:
        return ReadFile(None, f"{error}")
    except OSError as error:
        raise BlockError(f"it cannot be read: {error}") from error


def _name(key: str) -> str:
    return f"file {key}"


def is_intact(location: str, folders: Collection[str], files: Collection[str] = ()) -> bool:
    """Whether folders and files of an output are sealed, and each byte of them is as it was written.

    Nothing is written. In an object store, which keeps no damaged bytes, only names and sizes are compared.

    Raises
    ------
    OutputError
        If the manifest is damaged.
    """
    manifest = read_manifest(location)
    if manifest is None or not all(map(manifest.is_sealed, folders)) or not all(key in manifest.files for key in files):
        return False
    wanted: Mapping[str, Digest] = {
        key: digest
        for key, digest in manifest.files.items()
        if key in files or any(is_below(key, folder) for folder in folders)
    }
    if store.is_remote(location):
        return list_files(location, folders, files) == {key: digest.size for key, digest in wanted.items()}
    return not compare_files(location, Manifest(wanted, folders))


__all__ = ["FILE", "Difference", "compare_files", "find_manifests", "is_intact", "read_files"]
