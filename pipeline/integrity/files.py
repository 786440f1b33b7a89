"""Every file of an output: against the manifest where there is one, else decoded."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from segment_slide.pipeline.errors import OutputError, UnreachableError
from segment_slide.pipeline.integrity.contents import Contents, Kind
from segment_slide.pipeline.integrity.finding import Fault, Finding, Made, Note, Stage
from segment_slide.pipeline.manifest.content import check_file, hash_file
from segment_slide.pipeline.manifest.listing import list_files
from segment_slide.pipeline.manifest.manifest import FILE, GROUP_FILE, Digest, Manifest, is_below, read_manifest
from segment_slide.pipeline.measurement.record import TABLES
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import exists
from segment_slide.pipeline.storage.names import instance_group, label_group, probability_group
from segment_slide.pipeline.storage.store import join

Step = Callable[[], list[Finding | Note]]
_WHOLE = {
    Kind.TRAINING_SET: Stage.WEIGHT_MAPS,
    Kind.SAMPLES: Stage.TRAINING_DATA,
    Kind.MODEL: Stage.TRAIN,
    Kind.STATE: Stage.TRAIN,
    Kind.TRAINING: Stage.TRAIN,
    Kind.NOTE: Stage.NIGHT,
}


@dataclass(frozen=True)
class FileSteps:
    """What listings show of an output's files, and the files that are still to be read.

    Attributes
    ----------
    found : list of Finding or Note
        What the listings show.
    hashed, decoded : list of Step
        Reads of files with a known checksum, and of files without one.
    n_bytes : int
        Of all these files.
    """

    found: list[Finding | Note]
    hashed: list[Step]
    decoded: list[Step]
    n_bytes: int


def maker_of(contents: Contents, key: str) -> Made:
    """What made a file of an output, told by its folder."""
    location = contents.location
    if contents.kind in _WHOLE:
        return Made(_WHOLE[contents.kind], location)
    for name in contents.instances:
        if is_below(key, instance_group(name)):
            return Made(Stage.INSTANCES, location, name)
    for name in contents.segmentations:
        if is_below(key, label_group(name)) or is_below(key, probability_group(name)):
            return Made(Stage.SEGMENT, location, name)
    for name in contents.tables:
        if key.startswith(f"{TABLES}/{name}."):
            return Made(Stage.MEASURE, location, name)
    if contents.tables and is_below(key, TABLES):
        return Made(Stage.MEASURE, location, contents.tables[0])
    if contents.is_image and not is_below(key, "labels"):
        return Made(Stage.INGEST, location)
    first = (*contents.segmentations, *contents.instances)
    stage = Stage.SEGMENT if contents.segmentations else Stage.INSTANCES
    return Made(stage, location, first[0]) if first else Made(Stage.NONE, location)


def our_groups(contents: Contents) -> list[str]:
    """Folders of ours in a store, with all that is in them; "" is all of it."""
    if contents.kind is not Kind.SLIDE:
        return [""]
    names = store.list_names(contents.location) if contents.is_image else ()
    levels = sorted(name for name in names if name.isdecimal())
    numbered = [instance_group(name) for name in contents.instances]
    classes = [label_group(name) for name in contents.segmentations]
    scores = [
        group
        for name in contents.segmentations
        if exists(join(contents.location, group := probability_group(name), "zarr.json"))
    ]
    tables = [f"{TABLES}/{name}.parquet" for name in contents.tables]
    return [*levels, *classes, *scores, *numbered, *tables]


def plan_files(contents: Contents) -> FileSteps:
    """List the files of a store, and plan how each is read.

    Raises
    ------
    UnreachableError
        If the store cannot be reached.
    """
    location = contents.location
    steps = FileSteps([], [], [], 0)
    known: set[str] = set()
    sealed: list[str] = []
    n_bytes = 0
    for home in find_homes(location):
        n_bytes += _plan_sealed(contents, home, steps, known, sealed)
    unsealed = [
        group
        for group in our_groups(contents)
        if not any(group == folder or is_below(group, folder) for folder in sealed)
    ]
    there = {key: size for key, size in list_files(location, unsealed).items() if key not in known}
    for key, size in there.items():
        steps.decoded.append(functools.partial(_decode, contents, key))
        n_bytes += size
    if there:
        of_groups = "" if unsealed == [""] else f" of {', '.join(unsealed)}"
        sentence = (
            f"No checksums of the files{of_groups} are known: the version that made them wrote none, or the run is not "
            f"finished. Each file is decoded instead, which does not find all changes."
        )
        steps.found.append(Note(location, sentence))
    return FileSteps(steps.found, steps.hashed, steps.decoded, n_bytes)


def find_homes(location: str) -> list[str]:
    """Folders that have a manifest of their own: the whole output, or folders of ours in the store of another tool."""
    below = [
        f"{folder}/{name}"
        for folder in ("labels", "probability", TABLES)
        for name in sorted(store.list_names(join(location, folder)))
    ]
    return [home for home in ("", *below) if any(exists(join(location, home, file)) for file in (FILE, GROUP_FILE))]


def _plan_sealed(contents: Contents, home: str, steps: FileSteps, known: set[str], sealed: list[str]) -> int:
    """Compare the listing with one manifest, and plan to read its files; returns their bytes."""
    place = join(contents.location, home)
    try:
        manifest = read_manifest(place)
    except UnreachableError:
        raise
    except OutputError:
        steps.found.append(_finding(contents, join(home, FILE), Fault.CHANGED, "is damaged"))
        return 0
    if manifest is None:
        if exists(join(place, GROUP_FILE)):
            steps.found.append(_finding(contents, join(home, FILE), Fault.MISSING, "is missing"))
        return 0
    sealed += [join(home, folder) for folder in manifest.folders]
    there = list_files(place, manifest.folders, manifest.files)
    known |= {join(home, key) for key in manifest.files}
    steps.found.extend(_compare_listing(contents, home, manifest, there))
    for key, digest in manifest.files.items():
        if there.get(key) == digest.size:
            steps.hashed.append(functools.partial(_compare, contents, join(home, key), digest))
    return sum(there.values())


def _compare_listing(contents: Contents, home: str, manifest: Manifest, there: dict[str, int]) -> Iterator[Finding]:
    for key, digest in manifest.files.items():
        if key not in there:
            yield _finding(contents, join(home, key), Fault.MISSING, "is missing")
        elif there[key] != digest.size:
            problem = f"has {there[key]:,} bytes, but {digest.size:,} were written"
            yield _finding(contents, join(home, key), Fault.CHANGED, problem)
    for key in there:
        if key not in manifest.files:
            yield _finding(contents, join(home, key), Fault.SURPLUS, "is not in the manifest")


def _finding(contents: Contents, key: str, fault: Fault, problem: str) -> Finding:
    return Finding(fault, contents.location, key, problem, maker_of(contents, key))


def _compare(contents: Contents, key: str, digest: Digest) -> list[Finding | Note]:
    """Compare the checksum of one file."""
    try:
        found = hash_file(contents.location, key)
    except Exception as error:  # noqa: BLE001 - fsspec back ends raise classes of their own
        return [_finding(contents, key, Fault.UNREADABLE, f"cannot be read: {error}")]
    if found == digest:
        return []
    return [_finding(contents, key, Fault.CHANGED, "holds other bytes than were written")]


def _decode(contents: Contents, key: str) -> list[Finding | Note]:
    """Decode one file of which no checksum is known."""
    try:
        check_file(contents.location, key)
    except Exception as error:  # noqa: BLE001 - codecs raise whatever they like on damaged bytes
        why = error.__cause__ or error
        return [_finding(contents, key, Fault.UNREADABLE, f"is damaged ({type(why).__name__}: {why})")]
    return []
