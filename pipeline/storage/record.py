"""The record of what made an output: written when it is begun, compared when a run is resumed.

The record is the only thing that decides whether an output may be continued, so it holds all that determines
the bytes and nothing that does not (no times, no worker counts).
"""

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segment_slide.pipeline.errors import OutputError, OutputMismatchError
from segment_slide.pipeline.metadata.json_text import describe
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import is_by_times
from segment_slide.pipeline.storage.sections import (
    NOT_COMPARED,
    OPTIONAL,
    UNKNOWN,
    Difference,
    Section,
    list_differences,
    read_section,
)

ATTRIBUTE = "segment_slide"
PACKAGE = "segment-slide"


class Results:
    """A number per stage that stands for the bytes that the stage makes of the same input and parameters.

    Raise a stage's number when, and only when, a change of the code changes the bytes that it stores. A run that was
    begun with another number is not resumed. The package's version is recorded beside it, but not compared.

    What a run measures first and records, like an image's statistics, needs no other number: a begun run goes on with
    the recorded values.
    """

    SEGMENT = 1
    INSTANCES = 1
    MEASURE = 1
    INGEST = 1
    WEIGHT_MAPS = 1
    TRAINING_DATA = 1
    TRAIN = 1
    SYNTHETIC = 1


_RESULTS = "results"  # the field of a section that holds a number of `Results`
_VERSIONS = ("version", "code_version")  # the fields that hold the package's version beside it
_FIRST_RESULTS = 1  # of a record that has no number: the version 0.1.0 wrote none

_RESULTS_HINT = " A different number of results means different bytes: go on with the version that began the output."
_PROCESSOR_HINT = (
    " If nothing but the processor or torch differs, add `accept_processor`: what is done stays, the last bits of "
    "scores may differ from there on, and the record lists what came from which processor."
)
_PROCESSOR = {("parameters", "device"), ("parameters", "processor"), ("code", "torch")}
_REPAIR_HINT = " If only damaged chunks of the input were replaced, add `input_repaired`: what touched them is redone."


def code_version() -> str:
    """Version of this package, as installed."""
    return importlib.metadata.version(PACKAGE)


def read_own(location: str, path: str = "") -> dict[str, Any]:
    """What this package says in the attributes of a group; empty if it says nothing there.

    Raises
    ------
    OutputError
        If it is no JSON object: the file was edited.
    """
    return _read_object(location, path, ATTRIBUTE)


def read_ome(location: str, path: str = "") -> dict[str, Any]:
    """The same for what OME-Zarr 0.5 says there."""
    return _read_object(location, path, "ome")


def _read_object(location: str, path: str, key: str) -> dict[str, Any]:
    content = (store.read_attributes(location, path) or {}).get(key)
    if content is not None and not isinstance(content, dict):
        raise OutputError(
            f"{store.join(location, path, 'zarr.json')}: {key} is {describe(content)}, expected a JSON object. It is "
            f"damaged, or was edited; restore the file."
        )
    return content or {}


def has_mark(location: str, path: str = "") -> bool:
    """Whether this package made a group, or began to: it marks each group before it writes anything else into it."""
    return ATTRIBUTE in (store.read_attributes(location, path) or {})


@dataclass(frozen=True)
class RootMark(Section):
    """What the root of a store of ours says about itself.

    Attributes
    ----------
    shows : str
        Path of the label image that the root shows as its image; "" if it is not the output of a segmentation.
    kind : str
        Kind of training data; "" for everything else.
    """

    shows: str = field(default="", metadata=OPTIONAL)
    kind: str = field(default="", metadata=OPTIONAL)


def read_mark(location: str) -> RootMark:
    """The mark of a store; empty if it has none.

    Raises
    ------
    OutputError
        If it is damaged, naming file and key.
    """
    return read_section(RootMark, read_own(location), store.join(location, "zarr.json"))


@dataclass(frozen=True)
class Code(Section):
    """Which code made something.

    Attributes
    ----------
    name : str
        Of the package; not always recorded.
    version : str
        Of the package, for information.
    torch : str
        Version of torch, where it decides the last bits.
    results : int
        The stage's number in `Results`.
    """

    name: str = field(default="", metadata=OPTIONAL)
    version: str = field(default="", metadata=NOT_COMPARED)
    torch: str = field(default="", metadata=OPTIONAL | UNKNOWN)
    results: int = _FIRST_RESULTS


def this_code(results: int, *, torch: str = "") -> Code:
    """The code that runs now."""
    return Code(PACKAGE, code_version(), torch, results)


def compare_records(
    recorded: Section | None,
    wanted: Section,
    location: str,
    *,
    what: str = "a run",
    can_repair: bool = False,
    remedy: str = "Run it as it was begun, choose another output, or delete it.",
) -> None:
    """Refuse to go on with an output that another run began.

    Parameters
    ----------
    recorded, wanted : Section
        Records of the same kind. A key that `recorded` does not have stands for its default: see `list_differences`.
    location : str
        The output, for the message.
    what : str
        What began it, for the message.
    can_repair : bool
        Whether the command can go on after damaged chunks of its input were replaced.
    remedy : str
        What to do.

    Raises
    ------
    OutputMismatchError
        Naming each field that differs, with both values.
    """
    if recorded is None:
        raise OutputMismatchError(f"output={location} was begun by {what} whose record is missing. {remedy}")
    differences = list_differences(recorded, wanted)
    if differences:
        named = {difference.names for difference in differences}
        repair = _REPAIR_HINT if can_repair and ("input", "fingerprint") in named else ""
        processor = _PROCESSOR_HINT if named <= _PROCESSOR else ""
        results = _RESULTS_HINT if any(names[-1] == _RESULTS for names in named) else ""
        explained = "; ".join(map(_explain, differences))
        raise OutputMismatchError(
            f"output={location} was begun by {what} that differs: {explained}. {remedy}{repair}{processor}{results}"
        )


def _explain(difference: Difference) -> str:
    """Text of one difference; for numbers of results with the versions that wrote them."""
    before, now = repr(difference.before), repr(difference.now)
    if difference.names[-1] == _RESULTS:
        before, now = (
            f"{number} ({PACKAGE} {_version_of(section)})"
            for number, section in ((before, difference.begun), (now, difference.wanted))
        )
    return f"{'.'.join(difference.names)}: begun with {before}, now {now}"


def _version_of(section: object) -> str:
    return next((version for name in _VERSIONS if (version := getattr(section, name, ""))), "unknown")


def identify_record(record: Mapping[str, Any]) -> str:
    """Identity of what a record made: the same in every copy, another if anything that decides the bytes differs.

    It leaves out where things lie. It takes the fingerprint that the run was begun with: what had been made before a
    repair stayed, and one of an older version may have been replaced by one of the same content.
    """
    kept = {key: dict(part) if isinstance(part, Mapping) else part for key, part in record.items()}
    for section, place in (("input", "location"), ("model", "path")):
        if isinstance(kept.get(section), dict):
            kept[section].pop(place, None)
    made_of = kept.get("input")
    if isinstance(made_of, dict):
        made_of.pop("changed", None)
        repaired, earlier = made_of.pop("repaired_from", None), made_of.pop("earlier_fingerprint", None)
        if repaired or earlier:
            # a repair that an older version saw came before its fingerprint was replaced
            is_first = repaired and (not earlier or is_by_times(repaired[0]))
            made_of["fingerprint"] = repaired[0] if is_first else earlier
        if mask := made_of.pop("earlier_mask_fingerprint", None):
            made_of["mask_fingerprint"] = mask
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def identify_group(location: str, group: str = "") -> str | None:
    """The same for the record of a label image; None if it has no record, because another tool made it."""
    record = read_own(location, group)
    return identify_record(record) if record else None
