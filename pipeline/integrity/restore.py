"""Make damaged files again that need neither input nor model: metadata, manifests, coarser levels.

Nothing here is believed: a file is written only if its bytes have the sha256 that the manifest says, and a manifest
only if its bytes have the sha256 that it says itself.
"""

import functools
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from segment_slide.pipeline.blocks.attempts import try_in_threads
from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.integrity.images import StoredPyramid, halved_axes, open_levels
from segment_slide.pipeline.manifest.content import hash_file
from segment_slide.pipeline.manifest.listing import list_files
from segment_slide.pipeline.manifest.manifest import FILE, Digest, Manifest, read_manifest
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import delete, read_file, write_file
from segment_slide.pipeline.storage.pyramid import build_pyramid
from segment_slide.pipeline.storage.store import join

_LINE = re.compile(r'("(?:[^"\\]|\\.)+"): \[(\d+), "([0-9a-f]{64})"\]')
_MOST_DOUBTFUL = 64
_FEW = 4  # damaged characters of a line
_LARGEST_BYTES = 1 << 16  # a file is searched for one flipped bit: 8 times its size in checksums of its size


def restore_manifest(home: str) -> bool:
    """Write a damaged manifest again, if it can be told from itself and the files; return whether it is sound.

    Each line is as it is, or as the file that it is about has it now, or left out; the first line may have one other
    bit. It is the right list if its sha256 is the one that the damaged list says, or if all is the same but the line
    with the sha256.
    """
    try:
        return read_manifest(home) is not None
    except OutputError:
        pass
    damaged = read_file(join(home, FILE))
    folders, claimed = _find_folders(damaged), _find_claims(damaged)
    there = _hash_all(home, list_files(home, folders, claimed))
    for found in _variants(claimed, there):
        head, rest = Manifest(found, folders).to_bytes().split(b"\n", 1)
        heads = [head] if found != {**there, **claimed} else itertools.chain([head], _flipped(damaged.split(b"\n")[0]))
        for candidate in heads:
            text = (candidate + b"\n" + rest).rsplit(b"\n", 2)[0] + b"\n"
            own = hashlib.sha256(text).hexdigest().encode()
            if own in damaged or (damaged.startswith(text) and _differs_little(damaged[len(text) :], own)):
                write_file(join(home, FILE), text + b' "sha256": "' + own + b'"}\n')
                return True
    return False


def _hash_all(home: str, keys: Iterable[str]) -> dict[str, Digest]:
    """Checksums of files as they are; those that cannot be read are left out."""
    attempts = try_in_threads(functools.partial(hash_file, home), keys, len(os.sched_getaffinity(0)))
    return {key: digest for key, digest, _ in attempts if digest is not None}


def _variants(claimed: Mapping[str, Digest], there: Mapping[str, Digest]) -> Iterator[dict[str, Digest]]:
    """Lists that may have been the one that is damaged: as it is, and with one line in doubt changed."""
    whole = {**there, **claimed}
    yield whole
    doubtful = [key for key in claimed if there.get(key) != claimed[key]]
    for key in doubtful[:_MOST_DOUBTFUL]:
        without = {other: digest for other, digest in whole.items() if other != key}
        yield {**without, key: there[key]} if key in there else without
    yield dict(claimed)


def _find_folders(damaged: bytes) -> list[str]:
    """Folders that the list is of, as far as it can be read."""
    head = damaged.partition(b"\n")[0].decode(errors="replace")
    _, mark, said = head.partition('"folders": ')
    try:
        found = json.loads(said.rstrip(", ")) if mark else [""]
    except ValueError:
        return [""]
    return [folder for folder in found if isinstance(folder, str) and _is_inside(folder)]


def _find_claims(damaged: bytes) -> dict[str, Digest]:
    """Files and checksums that the list names, as far as it can be read."""
    claims = {}
    for text, size, sha256 in _LINE.findall(damaged.decode(errors="replace")):
        try:
            key = str(json.loads(text))
        except ValueError:
            continue
        if key and _is_inside(key):
            claims[key] = Digest(int(size), sha256)
    return claims


def _is_inside(key: str) -> bool:
    return not key.startswith("/") and ".." not in key.split("/")


def _flipped(content: bytes) -> Iterator[bytes]:
    """All contents that differ in one bit."""
    values = bytearray(content)
    for at, bit in itertools.product(range(len(values)), range(8)):
        values[at] ^= 1 << bit
        yield bytes(values)
        values[at] ^= 1 << bit


def _differs_little(end: bytes, own: bytes) -> bool:
    """Whether the last line is that of a checksum but for a few characters."""
    wanted = b' "sha256": "' + own + b'"}\n'
    return len(end) == len(wanted) and sum(a != b for a, b in zip(end, wanted, strict=True)) <= _FEW


def restore_file(location: str, key: str, digest: Digest, alike: Sequence[bytes] = ()) -> bool:
    """Write a small damaged file again, if its bytes can be found; return whether they were.

    Parameters
    ----------
    location, key : str
        The store, and the file in it.
    digest : Digest
        Of the bytes that were written.
    alike : sequence of bytes
        What the file may have been.
    """
    path = join(location, key)
    try:
        now = read_file(path)
    except OSError:
        now = b""
    for content in itertools.chain(alike, _unflipped(now, digest)):
        if Digest.of(content) == digest:
            write_file(path, content)
            return True
    return False


def _unflipped(content: bytes, digest: Digest) -> Iterator[bytes]:
    """The file with one bit flipped, if that gives the checksum."""
    if len(content) != digest.size or len(content) > _LARGEST_BYTES:
        return
    wanted, values = bytes.fromhex(digest.sha256), bytearray(content)
    for at in range(len(values)):
        before = hashlib.sha256(values[:at])  # the part before is hashed once for eight bits
        for bit in range(8):
            values[at] ^= 1 << bit
            rest = before.copy()
            rest.update(memoryview(values)[at:])
            if rest.digest() == wanted:
                yield bytes(values)
                return
            values[at] ^= 1 << bit


def array_metadata(pyramid: StoredPyramid, path: str) -> list[bytes]:
    """What the metadata of a level may have been, told by another level that is sound.

    The levels of an image differ in nothing but their shapes, and each is half of the one before.
    """
    shown = store.read_attributes(pyramid.location, pyramid.group) or {}
    datasets = shown["ome"]["multiscales"][0]["datasets"]
    levels = [str(dataset["path"]) for dataset in datasets]
    if path not in levels:
        return []
    found = []
    for other in levels:
        try:
            content = json.loads(text := read_file(join(pyramid.location, pyramid.group, other, "zarr.json")))
        except (OSError, ValueError):
            continue
        if other == path or not isinstance(content, dict):
            continue
        steps = levels.index(path) - levels.index(other)
        names = content["dimension_names"]
        for shape in _scaled(tuple(content["shape"]), names, steps):
            made = json.dumps({**content, "shape": list(shape)}, indent=2 if b"\n" in text else None)
            found.append(made.encode())
    return found


def _scaled(shape: tuple[int, ...], axes: Sequence[str], steps: int) -> Iterator[tuple[int, ...]]:
    """Shapes that a level may have so many steps above or below one of a shape."""
    for halved in ("yx", "zyx"):
        options = []
        for axis, size in zip(axes, shape, strict=True):
            if axis not in halved:
                options.append([size])
            elif steps >= 0:
                options.append([-(-size // (1 << steps))])
            else:
                options.append([(size << -steps) - less for less in range(1 << -steps)])
        yield from itertools.product(*options)


def rebuild_levels(pyramid: StoredPyramid, keys: Sequence[str]) -> None:
    """Delete damaged shards of coarser levels and make them again from the level before.

    Raises
    ------
    PipelineError
        If that fails.
    """
    levels = open_levels(pyramid)
    for key in keys:
        delete(join(pyramid.location, key))
    if len(levels) > 1:
        numbers = halved_axes(levels[0], levels[1])
        halved = "".join(levels[0].axes[number] for number in numbers)
        build_pyramid(pyramid.location, pyramid.group, levels, halved, pyramid.method)
