"""Files that file managers, file servers and editors leave beside data. One rule: they are never part of anything."""

import re

_NAMES = {
    ".ds_store", ".localized", ".appledouble", ".temporaryitems", ".trashes", ".fseventsd", ".spotlight-v100",
    ".apdisk", "__macosx", "icon\r",  # macOS
    "thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin",
    "system volume information",  # Windows
    ".directory", "lost+found",  # Linux desktops and file systems
    "@eadir", "#recycle", "#snapshot", ".@__thumb", "@recycle", ".snapshot", ".zfs", ".snapshots", "~snapshot",
    ".stfolder", ".stversions", ".dropbox", ".dropbox.cache", ".dropbox.attr",  # file servers, synchronisation
    ".git", ".svn", ".ipynb_checkpoints",
}  # fmt: skip
_PREFIXES = ("._", ".nfs", ".fuse_hidden", ".smbdelete", ".cifs", ".goutputstream-", ".trash-", ".~", "~$", ".#")
_SUFFIXES = ("~", ".swp", ".swo", ".swx", ".~tmp", ".crdownload", ".filepart")
_RSYNC = re.compile(r"\..+\.[A-Za-z0-9]{6}$")  # how rsync calls a file that it has not copied completely
_CHUNK = re.compile(r"(c/)?\d+([./]\d+)*|c(\.\d+)*")
_ARRAY_METADATA = ("zarr.json", ".zarray", ".zattrs")


def is_junk(path: str) -> bool:
    """Whether a file was not put there by who made the data: because of its name, or the name of a folder above it.

    Parameters
    ----------
    path : str
        Name, or path relative to the folder that is looked at, with "/".

    Examples
    --------
    >>> [name for name in ("a/.DS_Store", "@eaDir/a.tif", "._a.tif", ".zattrs~", "a.tif", ".zattrs") if is_junk(name)]
    ['a/.DS_Store', '@eaDir/a.tif', '._a.tif', '.zattrs~']
    """
    return any(map(_is_junk, path.split("/")))


def _is_junk(name: str) -> bool:
    lower = name.lower()
    return (
        lower in _NAMES
        or lower.startswith(_PREFIXES)
        or lower.endswith(_SUFFIXES)
        or _RSYNC.fullmatch(name) is not None
    )


def is_hidden(path: str) -> bool:
    """Whether a file of a folder of images is left out: hidden files, and junk.

    >>> is_hidden("a/.b/c.tif"), is_hidden("~$a.tif"), is_hidden("a.tif")
    (True, True, False)
    """
    return is_junk(path) or any(part.startswith(".") for part in path.split("/"))


def is_array_file(path: str) -> bool:
    """Whether Zarr reads a file of an array: its metadata, or a chunk. Nothing else in its folder counts.

    Parameters
    ----------
    path : str
        Relative to the array, with "/".

    Examples
    --------
    >>> list(map(is_array_file, ("zarr.json", ".zattrs", "c/0/1", "0.1", "0/1")))
    [True, True, True, True, True]
    >>> list(map(is_array_file, (".zattrs~", "c/0/1 copy", "c/0/.DS_Store", "notes.txt")))
    [False, False, False, False]
    """
    return path in _ARRAY_METADATA or (path.isascii() and _CHUNK.fullmatch(path) is not None)
