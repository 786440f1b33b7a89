"""Whether the input of a run is the same at its end as at its start.

Times, sizes and inodes of files see every change within a run, but a file that is only touched has not changed. So
they say what to look at, and the list of what was read (`pipeline.reads`) says whether that is still there.

::

    start   status of all files                                     a listing
    run     part, checksum and status of what is read, in a list    while it is read
    end     status of all files; of those that differ: content      a listing, and what differs
"""

import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from segment_slide.pipeline.errors import IncompleteError, InputError
from segment_slide.pipeline.inputs.pieces import find_differing
from segment_slide.pipeline.reads.noted import Piece, read_list
from segment_slide.pipeline.storage import files
from segment_slide.pipeline.storage.fingerprint import fingerprint, list_array_files
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.zarr_stores.checked import has_listing

READ = "read"  # folder of the lists in a work folder
_WHOLE = "from-the-start"  # in it: the list says of all blocks what they read
_SHOWN = 5

Status = tuple[int, str, tuple[int, ...]]


@dataclass(frozen=True)
class InputWatch:
    """The files of a run's input as they were at its start.

    Attributes
    ----------
    images : mapping of str to StoredImage
        What is read, by a name for the list of each; with the folder of its list.
    folder : str
        Folder of the lists; "" if there are none.
    status : mapping of str to mapping
        Status of the files of each image, by their name; none if its place lists no files.
    fingerprints : mapping of str to str
        Of each image, at the start or as recorded; an image without one is compared by what was read alone.
    """

    images: Mapping[str, StoredImage]
    folder: str
    status: Mapping[str, Mapping[str, Status]]
    fingerprints: Mapping[str, str]

    def find_changed(self) -> tuple[str, ...]:
        """Paths of the files that differ in content from what was read of them; empty if nothing has changed."""
        found: list[str] = []
        for key, image in self.images.items():
            before, now = self.status[key], status_of(image)
            suspects = {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}
            if suspects:
                found += [join(image.location, image.array_path, name) for name in self._differing(key, suspects)]
        return tuple(found)

    def _differing(self, key: str, suspects: set[str]) -> list[str]:
        """Of files whose status has changed, those whose content has; all of them if only the whole image tells."""
        image, noted = self.images[key], self.list_of(key)
        differing = find_differing(image, {name: noted[name] for name in suspects if name in noted})
        if differing:
            return sorted(differing)
        recorded = self.fingerprints.get(key, "")
        is_other = bool(recorded) and fingerprint(image, recorded) != recorded
        return sorted(suspects - noted.keys() or suspects) if is_other else []

    def list_of(self, key: str) -> dict[str, list[Piece]]:
        """What was read of an image, by file."""
        return read_list(self.list_folder(key)) if self.folder else {}

    def list_folder(self, key: str) -> str:
        """Folder of the list of an image."""
        return join(self.folder, key)

    def check(self, remedy: str) -> None:
        """Refuse to call a result complete whose input changed while it was made.

        Parameters
        ----------
        remedy : str
            What has become of the result, and what to do.

        Raises
        ------
        IncompleteError
            Naming the files.
        """
        if changed := self.find_changed():
            raise IncompleteError(explain_changed(changed, remedy))


def explain_changed(changed: Iterable[str], remedy: str) -> str:
    """The sentence that names files that changed during a run."""
    names = list(changed)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"the input changed while it was read: {', '.join(names[:_SHOWN])}{more}. {remedy}"


def watch(
    images: Mapping[str, StoredImage | None], folder: str = "", fingerprints: Mapping[str, str] | None = None
) -> InputWatch:
    """Take down the status of all files of a run's input, at its start.

    Parameters
    ----------
    images : mapping of str to StoredImage or None
        What will be read; None is left out.
    folder : str
        Folder in the output's work folder for lists of what is read; "" for no lists. Nothing is written yet.
    fingerprints : mapping, optional
        Of each image; by default those of now. One that is missing here has to be known at the end.
    """
    run = uuid.uuid4().hex
    there = {key: image for key, image in images.items() if image is not None}
    listed = {
        key: replace(image, notes=join(folder, key, run) if folder and has_listing(image.location) else "")
        for key, image in there.items()
    }
    known = {key: fingerprint(image) for key, image in there.items()} if fingerprints is None else fingerprints
    return InputWatch(listed, folder, {key: status_of(image) for key, image in there.items()}, known)


def status_of(image: StoredImage) -> dict[str, Status]:
    """Size, tag or checksum, and times of each file of an image; none if its place lists no files."""
    return {file.name: (file.size, file.mark, file.times) for file in list_array_files(image)}


def begin_list(folder: str, *, is_whole: bool) -> None:
    """Say, before the first line of the lists in a folder, whether they will speak of all blocks of the output."""
    if is_whole and not files.exists(join(folder, _WHOLE)):
        files.write_file(join(folder, _WHOLE), b"")


def is_whole(folder: str) -> bool:
    """Whether the lists in a folder speak of all blocks: an older version wrote none."""
    return files.exists(join(folder, _WHOLE))


def refuse_changed(image: StoredImage, folder: str, remedy: str) -> None:
    """Refuse to go on with what was made of an input that has changed since it was read.

    Raises
    ------
    InputError
        Naming the files.
    """
    if changed := find_differing(image, read_list(folder)):
        base = join(image.location, image.array_path)
        raise InputError(explain_changed((os.path.join(base, name) for name in sorted(changed)), remedy))
