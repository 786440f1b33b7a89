"""The list of an output's files with their sizes and checksums: its text, and where it lies.

::

    OUT.ome.zarr/_manifest/files.json       written last, whole or not at all
                           zarr.json        a Zarr group, so that Zarr tools do not complain of the folder

The name begins with "_" because readers of Parquet folders leave such files out. Equal outputs have equal manifests.
Nothing here knows how the files come about or how they are read.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import exists, read_file, write_file

FOLDER = "_manifest"
FILE = f"{FOLDER}/files.json"
GROUP_FILE = f"{FOLDER}/zarr.json"
_FORMAT, _VERSION = "segment-slide-manifest", 1
_GROUP = b'{"attributes":{},"zarr_format":3,"node_type":"group"}'


@dataclass(frozen=True)
class Digest:
    """Number of bytes of a file, and their sha256 in hexadecimal digits."""

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> "Digest":
        """Of some bytes.

        >>> Digest.of(b"abc").size
        3
        """
        return cls(len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Manifest:
    """The files of an output.

    Parameters
    ----------
    files : mapping of str to Digest
        By path relative to the folder that the manifest is of, with "/".
    folders : collection of str
        Folders that are complete: each file below them is in `files`, but for those of `listing.is_listed`. "" is the
        whole output.
    """

    files: Mapping[str, Digest] = field(default_factory=dict)
    folders: Collection[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "folders", tuple(sorted(set(self.folders))))

    def is_sealed(self, folder: str) -> bool:
        """Whether a folder was finished, with at least one file in it."""
        return folder in self.folders and any(is_below(key, folder) for key in self.files)

    def without(self, folders: Iterable[str], files: Iterable[str] = ()) -> "Manifest":
        """The manifest without some folders, with all files below them, and without some files."""
        left_out, folders = set(files), set(folders)
        kept = {
            key: digest
            for key, digest in self.files.items()
            if key not in left_out and not any(is_below(key, folder) for folder in folders)
        }
        return replace(self, files=kept, folders=set(self.folders) - folders)

    def joined(self, other: "Manifest") -> "Manifest":
        """Both; of a file that is in both, what `other` says."""
        return Manifest({**self.files, **other.files}, {*self.folders, *other.folders})

    def to_bytes(self) -> bytes:
        """The text: one line a file, in order, and last the sha256 of all that is before it.

        >>> Manifest.from_bytes(Manifest({"a": Digest.of(b"")}, [""]).to_bytes(), "x").is_sealed("")
        True
        """
        lines = [
            f"  {json.dumps(key)}: {json.dumps([digest.size, digest.sha256])}"
            for key, digest in sorted(self.files.items())
        ]
        head = json.dumps({"format": _FORMAT, "version": _VERSION, "folders": self.folders})[:-1]
        text = f'{head},\n "files": {{\n' + ",\n".join(lines) + "\n },\n"
        own = hashlib.sha256(text.encode()).hexdigest()
        return f'{text} "sha256": "{own}"}}\n'.encode()

    @classmethod
    def from_bytes(cls, content: bytes, file: str) -> "Manifest":
        """Inverse of `to_bytes`. `file` is its name, for the message.

        Raises
        ------
        OutputError
            If a single bit differs from what was written.
        """
        try:
            found = _read(json.loads(content))
            if found.to_bytes() != content:
                raise ValueError("its sha256 is another one")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise OutputError(
                f"{file} is damaged or not a manifest ({error!s:.100}). It is the list of the output's files and "
                f"their checksums. Delete it, and run the command that made the output again: it reads all files and "
                f"writes the list anew."
            ) from error
        return found


def _read(content: Any) -> Manifest:
    if content["format"] != _FORMAT or content["version"] != _VERSION:
        raise ValueError(f"format {content['format']!r}, version {content['version']!r}; expected {_FORMAT!r}, 1")
    files = {key: Digest(*map(_plain, entry, (int, str))) for key, entry in content["files"].items()}
    for key in files:
        check_key(key)
    return Manifest(files, [_plain(folder, str) for folder in content["folders"]])


def _plain(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


def check_key(key: str) -> None:
    """Refuse a path that leaves the output; the list may come from anybody.

    Raises
    ------
    ValueError
        Naming it.
    """
    if key.startswith("/") or "\\" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"{key!r:.60} is no path inside the output")


def is_below(key: str, folder: str) -> bool:
    """Whether a file lies below a folder; "" is the whole output.

    >>> is_below("a/b/c", "a/b"), is_below("a/bc", "a/b"), is_below("a", "")
    (True, False, True)
    """
    return not folder or key.startswith(f"{folder}/")


def read_manifest(home: str) -> Manifest | None:
    """The manifest of an output, or of a folder of ours in the store of another tool; None if there is none.

    Raises
    ------
    OutputError
        If it is damaged, or cannot be read.
    """
    path = store.join(home, FILE)
    try:
        content = read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"{path} cannot be read: {error}") from error
    return Manifest.from_bytes(content, path)


def write_manifest(home: str, manifest: Manifest) -> None:
    """Write the manifest of an output, completely or not at all; delete it if it has nothing to say.

    In a Zarr group, its folder becomes one too, and that is a file like all others.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if exists(store.join(home, "zarr.json")):
        if not exists(store.join(home, GROUP_FILE)):
            write_file(store.join(home, GROUP_FILE), _GROUP)
        manifest = manifest.joined(Manifest({GROUP_FILE: Digest.of(_GROUP)}))
    write_file(store.join(home, FILE), manifest.to_bytes())
