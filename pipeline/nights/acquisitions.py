"""What lies in a watched folder: acquisitions, whether they are complete, and how a changed one is recognised.

A folder is read as a flat list of files, on disk or in an object store. One function groups this list into
acquisitions. Image files are not opened, except for the OME-XML of TIFF files on disk: several may be one image.
`flows.nights.plan` decides what to do with acquisitions.
"""

import fnmatch
import functools
import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from segment_slide.pipeline.errors import InputError, PipelineError
from segment_slide.pipeline.ingest.formats import readable_suffixes
from segment_slide.pipeline.ingest.ome_sets import SUFFIXES, find_sets
from segment_slide.pipeline.ingest.plan import fingerprint_files
from segment_slide.pipeline.metadata.junk import is_hidden, is_junk
from segment_slide.pipeline.nights.watched_files import FoundFile, list_files, local_file
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.complete import judge_image
from segment_slide.pipeline.storage.files import exists
from segment_slide.pipeline.storage.fingerprint import TAGS, fingerprint_folder, is_by_times
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.storage.record import read_mark


@dataclass(frozen=True)
class Acquisition:
    """One image as it came from a microscope.

    Attributes
    ----------
    path : str
        Absolute path or URL.
    name : str
        Relative to the watched folder, with "/".
    n_files, size_bytes : int
        Number of its files and their size together.
    changed_s : float
        Newest time at which one of its files was changed in any way (s since the epoch). For local files it is the file
        system's own time (ctime), which no program can set; inf if an object store gives no time.
    times : str
        sha256 over the names, sizes and modification times (or tags) of its files: no change leaves it as it is.
    is_zarr : bool
        Whether it is a folder that is read as Zarr; otherwise it is a file that is converted first.
    files : tuple of str
        Absolute paths of the files that are converted together, sorted; empty for Zarr.
    earlier_fingerprint : str
        What version 0.1.0 recorded as the fingerprint: it counted junk too (`metadata.junk`), and of an OME-TIFF of
        several files only the one that was opened.
    """

    path: str
    name: str
    n_files: int
    size_bytes: int
    changed_s: float
    times: str
    is_zarr: bool
    files: tuple[str, ...] = ()
    earlier_fingerprint: str = field(default="", compare=False)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the content: names and sizes of all files, parts of some; of an object store, its tags.

        It is read when it is first asked for, and kept. If a file cannot be read, times have to do.
        """
        if store.is_remote(self.path):
            return f"{TAGS}:{self.times}"
        try:
            if not self.is_zarr:
                return fingerprint_files(self.files or (self.path,))
            return fingerprint_folder(self.path, {file.name: file.size_bytes for file in _files_of_zarr(self.path)})
        except (OSError, InputError):  # its own turn says why
            return self.times

    def is_still(self, before: "Acquisition") -> bool:
        """Whether nothing has changed since; content is only compared if it was read before."""
        is_known = "fingerprint" in before.__dict__  # it is read once; before that, it would be that of now
        return self.times == before.times or (is_known and self.fingerprint == before.fingerprint)

    def is_as(self, fingerprint: str | None, times: str = "") -> bool:
        """Whether this is still the content that a note speaks of; notes of earlier versions know times alone.

        The content is only read if times have changed, which a copy or a touch does too.
        """
        if fingerprint in (self.times, self.earlier_fingerprint) or (times and times == self.times):
            return True
        return bool(fingerprint) and not is_by_times(fingerprint or "") and fingerprint == self.fingerprint


def find_acquisitions(watch: str, patterns: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Acquisition]:
    """Find all acquisitions below a folder, sorted by name.

    An acquisition is a folder with Zarr metadata or called ``*.zarr``, or a file with a suffix that `ingest` reads. The
    files of one OME-TIFF image are one acquisition, which has the name of the first of them.
    Hidden files, junk, lock files, unfinished files and segmentations that this package made are left out. If several
    symbolic links lead to a folder, it is read once, under its own name if that lies below `watch`.

    Parameters
    ----------
    watch : str
        Folder or URL.
    patterns : sequence of str
        If not empty, only names that match one of them, such as ``*.svs``; ``*`` also matches "/". If an
        acquisition has several files, one name is enough.
    skip : sequence of str
        Folders to leave out.

    Raises
    ------
    InputError
        If the folder does not exist, cannot be listed, or is an image itself.
    """
    watch = store.resolve_location(watch)
    skip = [store.resolve_location(location) for location in skip]
    found = sorted(_group(watch, list_files(watch, skip)), key=lambda acquisition: acquisition.name)
    chosen = [a for a in found if not patterns or _matches(a, watch, patterns)]
    return [a for a in chosen if not (a.is_zarr and _is_made_by_us(a.path))]


def _matches(acquisition: Acquisition, watch: str, patterns: Sequence[str]) -> bool:
    others = (os.path.relpath(path, watch) for path in acquisition.files if path != acquisition.path)
    return any(fnmatch.fnmatchcase(name, pattern) for name in (acquisition.name, *others) for pattern in patterns)


def read_again(acquisition: Acquisition) -> Acquisition | None:
    """Return the same acquisition as it is now; None if it is gone."""
    path = acquisition.path
    if acquisition.is_zarr:
        try:
            files = _without_unfinished(list_files(path, [], in_store=True))
        except InputError:
            return None
        is_there = not all(is_junk(file.name) for file in files)
        return _make(path, acquisition.name, files, is_zarr=True) if is_there else None
    return _make_of_files(path, acquisition.name, acquisition.files)


def why_incomplete(acquisition: Acquisition, now_s: float, stable_minutes: float, marker: str | None = None) -> str:
    """Say why an acquisition should not be segmented yet; "" if it is complete.

    Parameters
    ----------
    acquisition : Acquisition
        The acquisition as it was found.
    now_s : float
        Present time (s since the epoch).
    stable_minutes : float
        Minimum time since its last change; ignored if there is a marker.
    marker : str, optional
        Name of the file that says that the acquisition is complete: see `marker_path`.
    """
    if marker is not None:
        path = marker_path(acquisition, marker)
        return "" if exists(path) else f"{path} is not there yet"
    if math.isinf(acquisition.changed_s):
        return "its store does not say when it was changed: use a marker"
    quiet = (now_s - acquisition.changed_s) / 60
    if quiet < 0:
        return f"changed {-quiet:.1f} min in the future: its server's clock is ahead; set it right, or use a marker"
    if quiet >= stable_minutes:
        return _why_unfinished(acquisition)
    return f"changed {quiet:.1f} min ago, expected {stable_minutes:g} or more"


def _why_unfinished(acquisition: Acquisition) -> str:
    """Say that a conversion of ours was interrupted; damaged and unknown images say so on their own turn."""
    try:
        found = judge_image(describe_image(acquisition.path)) if acquisition.is_zarr else None
    except PipelineError:
        return ""
    return "" if found is None or found.is_complete else f"it is not complete ({found.text}): {found.remedy}"


def marker_path(acquisition: Acquisition, marker: str) -> str:
    """Path of the file that says that an acquisition is complete.

    If the marker contains "{name}" (``slide.svs``) or "{stem}" (``slide``), the file lies beside the acquisition.
    Otherwise it lies inside the folder: in the Zarr itself, or in the folder that holds the file.

    >>> slide = Acquisition("/scans/a/slide.svs", "a/slide.svs", 1, 9, 0.0, "", is_zarr=False)
    >>> marker_path(slide, "{stem}.done"), marker_path(slide, "COMPLETE")
    ('/scans/a/slide.done', '/scans/a/COMPLETE')

    Raises
    ------
    InputError
        If the marker is not a file name, or names another field.
    """
    folder, _, name = acquisition.path.rpartition("/")
    try:
        file = marker.format(name=name, stem=name.rpartition(".")[0].removesuffix(".ome") or name)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"marker={marker!r}: expected {{name}} or {{stem}} in it, or a plain file name.") from error
    if not file or "/" in file:
        raise InputError(f"marker={marker!r}: expected the name of a file, without '/'.")
    is_inside = file == marker and acquisition.is_zarr
    return store.join(acquisition.path if is_inside else folder, file)


# -- cutting a list of files into acquisitions -------------------------------------------------------------------


def _group(watch: str, files: Iterable[FoundFile]) -> Iterator[Acquisition]:
    """Yield acquisitions; the files of one Zarr (maybe millions) are held at a time."""
    suffixes, loose = readable_suffixes(), dict[str, FoundFile]()
    for root, members in groupby(files, lambda file: file.store):
        if root == "":
            raise InputError(f"watch={watch} is an image itself, expected a folder of images.")
        if root is None:
            for file in members:
                if file.name.lower().endswith(suffixes) and not is_hidden(file.name):
                    loose[store.join(watch, file.name)] = file
        elif not is_hidden(root):
            parts = _without_unfinished(members)
            below = [replace(file, name=file.name.removeprefix(f"{root}/")) for file in parts]
            if not all(is_junk(file.name) for file in below):
                yield _make(store.join(watch, root), root, below, is_zarr=True)
    yield from _group_loose(loose, is_remote=store.is_remote(watch))


def _group_loose(files: Mapping[str, FoundFile], *, is_remote: bool) -> Iterator[Acquisition]:
    """Yield acquisitions of files outside any Zarr, which are given by their paths."""
    tiffs = [] if is_remote else [path for path in files if path.lower().endswith(SUFFIXES)]
    members = {found.first: found.files for found in find_sets(tiffs)}
    for path in [*(files.keys() - set(tiffs)), *members]:
        name, paths = files[path].name, members.get(path, (path,))
        if len(paths) == 1:
            yield _make(path, name, [files[path]], is_zarr=False, paths=paths)
        else:
            yield from filter(None, [_make_of_files(path, name, paths)])


def _make_of_files(path: str, name: str, paths: Sequence[str]) -> Acquisition | None:
    """An acquisition of local files, of which `path` is opened; None if that is gone."""
    found = {one: local_file(one, os.path.basename(one)) for one in paths}
    alone = found.get(path)
    if alone is None:
        return None
    there = [file for file in found.values() if file is not None]
    made = _make(path, name, there, is_zarr=False, paths=tuple(paths))
    return replace(made, earlier_fingerprint=_fingerprint([alone]))


def _files_of_zarr(path: str) -> list[FoundFile]:
    return [file for file in _without_unfinished(list_files(path, [], in_store=True)) if not is_junk(file.name)]


def _without_unfinished(files: Iterable[FoundFile]) -> list[FoundFile]:
    return [file for file in files if not file.name.endswith((".partial", LOCK_NAME))]


def _make(
    path: str, name: str, files: Sequence[FoundFile], *, is_zarr: bool, paths: tuple[str, ...] = ()
) -> Acquisition:
    """Make an acquisition of its files; at least one of them is no junk."""
    named = files if is_zarr else [replace(file, name=os.path.basename(file.name)) for file in files]
    kept = [file for file in named if not (is_zarr and is_junk(file.name))]
    size, changed = sum(file.size_bytes for file in kept), max(file.changed_s for file in kept)
    return Acquisition(path, name, len(kept), size, changed, _fingerprint(kept), is_zarr, paths, _fingerprint(named))


def _fingerprint(files: Sequence[FoundFile]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        digest.update(f"{file.name}\0{file.size_bytes}\0{file.mark}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _is_made_by_us(location: str) -> bool:
    """Whether a Zarr is a segmentation or training data of ours; an image that `ingest` converted is not."""
    try:
        mark = read_mark(location)
    except PipelineError:  # damaged metadata: its own turn says so
        return False
    return bool(mark.shows or mark.kind)
