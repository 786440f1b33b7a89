"""The files of a Zarr in a zip archive for a browser; see `pipeline.zarr_stores.archive`."""

import errno
from collections.abc import Iterator

from segment_slide.pipeline.served_files.files import ListedFile, MemoryFile, digest, split_key, split_path
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.zarr_stores.archive import Version, list_entries, open_archive, read_entry, split_archive


class ArchiveFiles:
    """The files below a location in an archive. All of them were changed when the archive was."""

    can_list = True

    def __init__(self, location: str) -> None:
        self._location = location

    def open(self, key: str) -> MemoryFile:
        """See `Files`."""
        path = join(self._location, *split_key(key))
        try:
            content = read_entry(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such file", key) from error
        except Exception as error:  # zipfile and zlib raise what they like on damaged bytes
            raise OSError(errno.EIO, f"{path} cannot be read: {error}") from error
        return MemoryFile(content, digest(f"{self._version()} {key} {len(content)}".encode()))

    def walk(self, path: str) -> Iterator[ListedFile]:
        """See `Files`."""
        wanted, modified_ns = "/".join(split_path(path)), self._version().mtime_ns
        for name, entry in sorted(list_entries(self._location).items()):
            if not wanted or name == wanted or name.startswith(f"{wanted}/"):
                yield ListedFile(name, entry.file_size, modified_ns)

    def _version(self) -> Version:
        file, _ = split_archive(self._location) or ("", "")
        return open_archive(file).version
