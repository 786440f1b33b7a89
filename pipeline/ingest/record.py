"""The record of an image that was converted: from which files, with which choices, by which code."""

from dataclasses import dataclass, field

from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.record import read_own
from segment_slide.pipeline.storage.sections import NOT_COMPARED, OPTIONAL, UNKNOWN, Section, read_section


@dataclass(frozen=True)
class IngestedFrom(Section):
    """The files: the name of the first or of their folder, how many, their size, a fingerprint of their contents."""

    name: str = field(default="", metadata=UNKNOWN)
    n_files: int = field(default=0, metadata=UNKNOWN)
    size_bytes: int = field(default=0, metadata=UNKNOWN)
    fingerprint: str = field(default="", metadata=UNKNOWN)


@dataclass(frozen=True)
class IngestParameters(Section):
    """The user's choices and facts of the files that decide the bytes; see `pipeline.ingest.options.IngestOptions`."""

    series: int | None = None
    name: str | None = None
    axes: str = field(default="", metadata=UNKNOWN)
    shape: tuple[int, ...] = field(default=(), metadata=UNKNOWN)
    dtype: str = field(default="", metadata=UNKNOWN)
    pixel_size: tuple[float | None, ...] = field(default=(), metadata=UNKNOWN)
    chunk: int = field(default=0, metadata=UNKNOWN)
    shard: int = field(default=0, metadata=UNKNOWN)
    decoding: str = ""


@dataclass(frozen=True)
class IngestRecord(Section):
    """What made an image.

    Attributes
    ----------
    ingested_from, parameters
        Which files, and how.
    code_version : str
        Of this package, for information.
    results : int
        The stage's number in `pipeline.storage.record.Results`.
    notes : tuple of str
        What the user was told of the files, for information: choices made, and what was not used.
    """

    ingested_from: IngestedFrom
    parameters: IngestParameters = IngestParameters()
    code_version: str = field(default="", metadata=NOT_COMPARED)
    results: int = 1
    notes: tuple[str, ...] = field(default=(), metadata=OPTIONAL | NOT_COMPARED)


def read_ingest_record(location: str) -> IngestRecord | None:
    """The record of a converted image; None if it was not made by ingest, or is not there.

    Raises
    ------
    OutputError
        If it is damaged, naming file and key.
    """
    content = read_own(location)
    if "ingested_from" not in content:
        return None
    return read_section(IngestRecord, content, store.join(location, "zarr.json"))
