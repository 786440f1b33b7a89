"""Take a run's files out of the manifest while it works, check what an earlier run left, and list all at the end.

::

    begin   files of an earlier run are read: known ones must have their sha256, unknown ones must decode;
            damaged shards are deleted, so that the run makes them again; then the notes begin
    work    each process notes what it writes (`pipeline.zarr_stores.written`)
    end     files that nobody noted are read; the manifest is written last; the notes are deleted

Object stores keep no notes and no damaged bytes of their own: at the beginning only sizes are compared, at the end each
new file is read once.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segment_slide.pipeline.blocks.progress import Advance, Stages, ignore
from segment_slide.pipeline.blocks.tasks import keeping_what_is_done
from segment_slide.pipeline.errors import IncompleteError, OutputError
from segment_slide.pipeline.manifest.compare import read_files
from segment_slide.pipeline.manifest.content import hash_file, is_data, say_damaged, split_shard
from segment_slide.pipeline.manifest.homes import Made, find_homes, inside, inside_all
from segment_slide.pipeline.manifest.listing import has_files, list_files
from segment_slide.pipeline.manifest.manifest import (
    FOLDER,
    Digest,
    Manifest,
    read_manifest,
    write_manifest,
)
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import delete
from segment_slide.pipeline.storage.record import has_mark
from segment_slide.pipeline.zarr_stores import written

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

_SHOWN = 10


@contextlib.contextmanager
def sealing(made: Made, client: "Client | None", progress: Stages) -> Iterator[None]:
    """Do a stage's work inside; what it made is sealed at the end. The caller must hold the output.

    If the work fails, nothing is sealed: the notes stay for the next run, which goes on from them.

    Raises
    ------
    IncompleteError
        If a file is not as it was written a moment ago. The same command makes it again.
    """
    kept = begin_sealing(made, client, progress)
    try:
        yield
    except BaseException:
        if not store.is_remote(made.location) and not has_files(made.location, made.folders):
            _end_notes(made)  # refused before anything was made
        raise
    with keeping_what_is_done():
        seal(made, client, progress, kept)


def begin_sealing(made: Made, client: "Client | None", progress: Stages) -> dict[str, Digest]:
    """The beginning alone. Returns the digests of files whose content was checked, to be given to `seal`."""
    location, is_remote = made.location, store.is_remote(made.location)
    homes = find_homes(made)
    manifests = {home: _read(store.join(location, home)) for home in homes}
    known = {
        store.join(home, key): digest
        for home, manifest in manifests.items()
        for key, digest in manifest.files.items()
        if made.has(store.join(home, key))
    }
    noted = {} if is_remote else _noted(location)
    known |= {key: digest for key, digest in noted.items() if made.has(key)}
    there = list_files(location, made.folders, made.files)
    verified, damaged = (
        _compare_sizes(location, there, known) if is_remote else _check(location, there, known, client, progress)
    )
    _refuse_what_stays(made, damaged)
    # then the manifest stays, so that a finished output is not touched; the notes say that it is being worked on
    is_intact = not is_remote and not damaged and known.keys() == there.keys()
    for home, part in homes.items():
        if not is_remote:
            store.remove_leftovers(store.join(location, home), FOLDER)
        remaining = manifests[home].without(inside_all(home, part.folders), inside_all(home, part.files))
        if remaining != manifests[home] and not is_intact:
            write_manifest(store.join(location, home), remaining)
    _delete_damaged(location, damaged)
    if not is_remote:
        others = {key: digest for key, digest in noted.items() if not made.has(key)}
        written.end_notes(Path(location))
        kept = {key: (digest.size, digest.sha256) for key, digest in {**others, **verified}.items()}
        try:
            written.begin_notes(Path(location), kept, made.folders)
        except OSError as error:
            written.end_notes(Path(location))
            raise OutputError(f"output={location} cannot be written: {error}") from error
    return verified


def seal(made: Made, client: "Client | None", progress: Stages, kept: Mapping[str, Digest]) -> None:
    """The end alone: list all files that a stage made, and write the manifest.

    Raises
    ------
    IncompleteError
        If a file is not as it was written, or cannot be decoded.
    """
    location = made.location
    there = list_files(location, made.folders, made.files)
    noted = dict(kept) if store.is_remote(location) else _noted(location)
    cut = [key for key in there if key in noted and noted[key].size != there[key] and is_data(key)]
    if cut:
        raise IncompleteError(
            f"{store.join(location, cut[0])} is not as it was written ({there[cut[0]]:,} bytes instead of "
            f"{noted[cut[0]].size:,}): another program has changed it, or the disk is damaged. Run the same command "
            f"again: it makes the file anew."
        )
    found = {key: noted[key] for key in there if key in noted and noted[key].size == there[key]}
    pending = [key for key in there if key not in found]
    with _stage(progress, "seal", pending) as advance:
        for key, read in read_files(location, pending, client, decode=not store.is_remote(location)):
            if read.digest is None:
                raise IncompleteError(f"{read.damage}. Run the same command again: it makes this file anew.")
            found[key] = read.digest
            advance(0)
    for home, part in find_homes(made).items():
        sealed = Manifest(
            {inside(home, key): digest for key, digest in found.items() if part.has(key)},
            [inside(home, folder) for folder in part.folders],
        )
        place = store.join(location, home)
        before = _read(place)
        after = before.without(sealed.folders, inside_all(home, part.files)).joined(sealed)
        if after != before:
            write_manifest(place, after)
    if not store.is_remote(location):
        _end_notes(made)


def seal_file(location: str, key: str) -> None:
    """Put a single file into the manifest of an output of ours."""
    if not has_mark(location):  # nobody's output, or that of another tool
        return
    digest = hash_file(location, key)
    write_manifest(location, _read(location).without((), [key]).joined(Manifest({key: digest})))


def unseal_file(location: str, key: str) -> bool:
    """Take a file out of the manifest of an output, before it is changed or deleted; False if it is not in it."""
    manifest = _read(location)
    if key in manifest.files:
        write_manifest(location, manifest.without((), [key]))
    return key in manifest.files


# -- what is there -------------------------------------------------------------------------------------------------


def _read(home: str) -> Manifest:
    """The manifest of a folder; empty if there is none, or if it is damaged: then all files are read."""
    try:
        return read_manifest(home) or Manifest()
    except OutputError as error:
        log.warning("%s", error)
        return Manifest()


def _noted(location: str) -> dict[str, Digest]:
    """What was noted of data. Metadata are written several times in a run, and read in no time."""
    return {key: Digest(*digest) for key, digest in written.read_notes(Path(location)).items() if is_data(key)}


def _end_notes(made: Made) -> None:
    """Delete the notes, but for those of other stages that are not finished."""
    others = {key: (d.size, d.sha256) for key, d in _noted(made.location).items() if not made.has(key)}
    written.end_notes(Path(made.location))
    if others:
        with contextlib.suppress(OSError):  # without them, the other stage reads its files again
            written.begin_notes(Path(made.location), others)


def _compare_sizes(
    location: str, there: Mapping[str, int], known: Mapping[str, Digest]
) -> tuple[dict[str, Digest], dict[str, str]]:
    """Files of an object store whose size is the known one, and those whose size is another one."""
    data = {key: size for key, size in there.items() if key in known and is_data(key)}
    damaged = {
        key: say_damaged(location, key, f"{size:,} bytes instead of {known[key].size:,}")
        for key, size in data.items()
        if size != known[key].size
    }
    return {key: known[key] for key in data if key not in damaged}, damaged


def _check(
    location: str, there: Mapping[str, int], known: Mapping[str, Digest], client: "Client | None", progress: Stages
) -> tuple[dict[str, Digest], dict[str, str]]:
    """Digests of files that are sound, and for each damaged one why."""
    verified: dict[str, Digest] = {}
    damaged: dict[str, str] = {}
    listed = [key for key in there if key in known]
    unlisted = [key for key in there if key not in known]
    with _stage(progress, "check", list(there)) as advance:
        for key, read in read_files(location, listed, client):
            if read.digest == known[key]:
                verified[key] = known[key]
            else:
                damaged[key] = say_damaged(location, key, "its bytes are not those that were written")
            advance(0)
        for key, read in read_files(location, unlisted, client, decode=True):
            if read.digest is None:
                damaged[key] = read.damage
            else:
                verified[key] = read.digest
            advance(0)
    return {key: digest for key, digest in verified.items() if is_data(key)}, damaged


def _refuse_what_stays(made: Made, damaged: Mapping[str, str]) -> None:
    """Refuse to go on from data that no run makes again."""
    for key, why in damaged.items():
        shard = split_shard(key)
        if shard is not None and shard[0].rpartition("/")[2] in made.once:
            raise OutputError(
                f"{why}. It cannot be made again alone: delete {made.location}, and run the same command again."
            )


def _delete_damaged(location: str, damaged: Mapping[str, str]) -> None:
    """Delete damaged data, which the run makes again; of changed metadata there is only a warning."""
    data = {key: why for key, why in damaged.items() if is_data(key)}
    for number, (key, why) in enumerate(data.items()):
        if number < _SHOWN:
            log.warning("%s; it is made again.", why)
        delete(store.join(location, key))
    if len(data) > _SHOWN:
        log.warning("%s more files are damaged; they are made again.", len(data) - _SHOWN)
    for key in damaged.keys() - data.keys():
        log.warning("%s was changed after it was written; it stays as it is.", store.join(location, key))


@contextlib.contextmanager
def _stage(progress: Stages, name: str, keys: list[str]) -> Iterator[Advance]:
    """A stage of the progress, if there are data to read: metadata take no time."""
    total = len(keys)
    shown = any(map(is_data, keys))
    with progress.stage(name, total=total, unit="files") if shown else contextlib.nullcontext(ignore) as advance:
        yield advance
