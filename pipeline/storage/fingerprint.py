"""Whether an input is the one it was: a fingerprint of its content, which copies share. No time of a file is in it.

A fingerprint is the name of its method and a sha256::

    sampled-chunks-sha256   metadata, names and sizes of all files, parts of some of them
    all-chunks-sha256       metadata, names and sizes of all files, all their bytes
    etags-sha256            metadata, names, sizes and tags of all files: an object store knows their content
    crcs-sha256             metadata, names, sizes and checksums of all files: a zip archive lists them
    metadata-sha256         metadata: a web server lists no files
    (no name)               metadata, names, sizes and times of all files: what versions before this one recorded

One that was recorded is compared by its own method, so records of all versions can be gone on with.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from segment_slide.pipeline.metadata.junk import is_array_file
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.store import is_remote, join
from segment_slide.pipeline.zarr_stores.archive import list_entries, read_entry, split_archive
from segment_slide.pipeline.zarr_stores.checked import has_listing

SAMPLED, ALL, TAGS, CHECKSUMS, METADATA = (
    f"{what}-sha256" for what in ("sampled-chunks", "all-chunks", "etags", "crcs", "metadata")
)
_N_SAMPLES, _SAMPLE_BYTES = 64, 1 << 14  # files of which parts are read: their start, middle and end
_THREADS = 8
_PIECE_BYTES = 1 << 20
_METADATA_FILES = ("zarr.json", ".zarray", ".zattrs")


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """A file in the folder of an array.

    Attributes
    ----------
    name : str
        Relative to the array, with "/".
    size : int
        Size in bytes.
    mark : str
        The checksum or the tag that lists name; "" on a disk.
    times : tuple of int
        On a disk: when its content and its status were changed (ns), and its inode. They see any change within one run.
    earlier : str
        The line that versions before this one took for the file.
    """

    name: str
    size: int
    mark: str
    times: tuple[int, ...]
    earlier: str


def is_by_times(fingerprint: str) -> bool:
    """Whether a fingerprint is of a version that took times of files for content.

    >>> is_by_times("0123abcd"), is_by_times("all-chunks-sha256:0123abcd"), is_by_times("")
    (True, False, False)
    """
    return bool(fingerprint) and ":" not in fingerprint


def is_sampled(fingerprint: str) -> bool:
    """Whether a change of content may leave a fingerprint as it was: parts of it are not read."""
    return fingerprint.partition(":")[0] in (SAMPLED, METADATA)


def is_same(image: StoredImage, recorded: str) -> bool | None:
    """Whether an image is the one whose fingerprint was recorded; None if this place cannot tell, as a web server."""
    found = fingerprint(image, recorded)
    if found == recorded:
        return True
    return None if not recorded or found.startswith(f"{METADATA}:") else False


def fingerprint(image: StoredImage, begun_with: str = "", *, full: bool = False) -> str:
    """The fingerprint of a level: metadata (calibration included) and the files that Zarr reads.

    Sampling is the default, because to read every byte twice would double the input's traffic. Its limit: in files
    that are not sampled, a change is not seen if each file keeps its size. Compressed chunks seldom do.

    Parameters
    ----------
    image : StoredImage
        The level.
    begun_with : str
        A fingerprint to compare with; its method is taken, if it can be. One of a version that took times of files is
        returned if it is what that version would say of the input as it is now.
    full : bool
        Read all bytes. Tags and checksums of a store, and a method that a record has, come first.
    """
    base = join(image.location, image.array_path)
    level = image.multiscale.levels[image.level]
    about = [image.array_path, image.shape, image.dtype, image.axes, image.multiscale.units]
    metadata = json.dumps([*about, level.scale, level.translation])
    found = sorted(list_array_files(image), key=lambda file: file.earlier)
    files = sorted((file for file in found if is_array_file(file.name)), key=lambda file: file.name)
    if is_by_times(begun_with):
        counted = [file for file in found if is_array_file(file.name)]  # 0.1.0 counted all
        if begun_with in (_digest(metadata, (file.earlier for file in some)) for some in (counted, found)):
            return begun_with
    method = _choose_method(base, files, begun_with.partition(":")[0], full=full)
    marked = method in (TAGS, CHECKSUMS)
    names = (f"{file.name} {file.size} {file.mark if marked else ''}\n" for file in files if method != METADATA)
    contents = () if marked or method == METADATA else _contents(base, files, is_all=method == ALL)
    return f"{method}:{_digest(metadata, names, contents)}"


def fingerprint_folder(folder: str, sizes: Mapping[str, int]) -> str:
    """The fingerprint of the files of a folder on a disk, of which parts are read.

    Parameters
    ----------
    folder : str
        Absolute path.
    sizes : mapping of str to int
        Size of each file that counts, by its name relative to the folder.
    """
    files = [ArrayFile(name, size, "", (), "") for name, size in sorted(sizes.items())]
    lines = (f"{file.name} {file.size}\n" for file in files)
    return f"{SAMPLED}:{_digest('', lines, _contents(folder, files, is_all=False))}"


def list_array_files(image: StoredImage) -> list[ArrayFile]:
    """All files in the folder of a level, junk included; none if they cannot be listed."""
    base = join(image.location, image.array_path)
    if split_archive(base):
        return [
            ArrayFile(name, entry.file_size, str(entry.CRC), (), f"{name} {entry.file_size} {entry.CRC}\n")
            for name, entry in list_entries(base).items()
        ]
    return list(_remote_files(base) if is_remote(base) else _local_files(base))


def _local_files(base: str) -> Iterator[ArrayFile]:
    for folder, _, names in os.walk(base):
        inner = os.path.relpath(folder, base)
        for name in names:
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except FileNotFoundError:  # a link that leads nowhere
                status = os.lstat(path)
            relative = name if inner == "." else f"{inner}/{name}"
            times = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            earlier = f"{relative} {status.st_size} {status.st_mtime_ns}\n"
            yield ArrayFile(relative, status.st_size, "", times, earlier)


def _remote_files(base: str) -> Iterator[ArrayFile]:
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(base)
    try:
        filesystem.invalidate_cache()
        files = filesystem.find(path, detail=True) if has_listing(base) else {}
    except NotImplementedError:
        return
    for name, info in files.items():
        tag = info.get("ETag") or info.get("etag") or ""
        mark = info.get("ETag") or info.get("mtime") or info.get("LastModified") or info.get("created")
        earlier = f"{name.removeprefix(path)} {info.get('size')} {mark}\n"
        relative = name.removeprefix(path).lstrip("/")
        yield ArrayFile(relative, int(info.get("size") or 0), str(tag), (), earlier)


def _choose_method(base: str, files: Sequence[ArrayFile], begun_with: str, *, full: bool) -> str:
    """The recorded method, if this place allows it; else the cheapest that covers all bytes, or samples."""
    if not files:
        return METADATA
    is_marked = all(file.mark for file in files)
    marks = CHECKSUMS if split_archive(base) else TAGS
    possible = {SAMPLED, ALL, *([marks] if is_marked else [])}
    if begun_with in possible:
        return begun_with
    return marks if is_marked else ALL if full else SAMPLED


def _contents(base: str, files: Sequence[ArrayFile], *, is_all: bool) -> Iterator[bytes]:
    """Of each file that counts, its content as a checksum, in the order of the files."""
    chunks = [file for file in files if file.name not in _METADATA_FILES]
    n_taken = len(chunks) if is_all else min(len(chunks), _N_SAMPLES)
    taken = [chunks[number * (len(chunks) - 1) // max(n_taken - 1, 1)] for number in range(n_taken)]
    whole = [file for file in files if file.name in _METADATA_FILES]
    open_file = open_pieces(base)

    def read(file: ArrayFile) -> bytes:
        digest, is_whole = hashlib.sha256(), is_all or file in whole or file.size <= 3 * _SAMPLE_BYTES
        middle = file.size // 2
        starts = [0] if is_whole else [0, middle, file.size - _SAMPLE_BYTES]
        try:
            for start in starts:
                stop = file.size if is_whole else start + _SAMPLE_BYTES
                for piece in open_file(file.name, start, stop):
                    digest.update(piece)
        except OSError:  # gone, or not readable: whoever needs it says so, and only what is made of it fails
            return b"none"
        return digest.digest()

    with ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(read, [*whole, *taken])


Read = Callable[[str, int, int | None], Iterator[bytes]]


def open_pieces(base: str) -> Read:
    """A function that reads the bytes of a file of an array from a start to a stop, as `piece[start:stop]` would."""
    if split_archive(base):
        return lambda name, start, stop: iter([read_entry(join(base, name))[start:stop]])
    if not is_remote(base):
        return lambda name, start, stop: _read_local(os.path.join(base, name), start, stop)
    import fsspec

    filesystem: Any
    filesystem, path = fsspec.core.url_to_fs(base)
    return lambda name, start, stop: iter([filesystem.cat_file(f"{path}/{name}", start=start, end=stop)])


def _read_local(path: str, start: int, stop: int | None) -> Iterator[bytes]:
    """Bytes of a local file, in pieces that need little memory."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        start, stop, _ = slice(start, stop).indices(size)
        file.seek(start)
        while start < stop and (piece := file.read(min(_PIECE_BYTES, stop - start))):
            start += len(piece)
            yield piece


def _digest(metadata: str, lines: Iterable[str], contents: Iterable[bytes] = ()) -> str:
    digest = hashlib.sha256(metadata.encode())
    for line in lines:
        digest.update(line.encode(errors="surrogateescape"))  # names of files may be in any encoding
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
