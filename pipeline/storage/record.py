"""What made an output: written when it is begun, compared when a run goes on.

The record is the only thing that decides whether an output may be continued, so it holds all that determines
the bytes and nothing that does not (no times, no worker counts).
"""

import importlib.metadata
from typing import Any

from segment_slide.pipeline.errors import OutputMismatchError
from segment_slide.pipeline.storage import store

ATTRIBUTE = "segment_slide"
# Where a file lies does not change what is in it; a fingerprint or sha256 stands beside each.
_LOCATIONS = {("input", "location"), ("model", "path")}


_REPAIR_HINT = " If only damaged chunks of the input were replaced, add `input_repaired`: blocks that are done stay."


def code_version() -> str:
    """Version of this package, as installed."""
    return importlib.metadata.version("segment-slide")


def read_record(location: str, name: str) -> dict[str, Any] | None:
    """The record of a begun output, or None if there is none (or its creation was interrupted)."""
    attributes = store.read_attributes(location, f"labels/{name}") or {}
    return attributes.get(ATTRIBUTE) or None


def compare_records(
    recorded: dict[str, Any],
    wanted: dict[str, Any],
    location: str,
    *,
    can_repair: bool = False,
    remedy: str = "Run it as it was begun, choose another output, or delete it.",
) -> None:
    """Refuse to go on with an output that another run began.

    Parameters
    ----------
    recorded, wanted : dict
        Fields by section; what is only recorded is not compared.
    location : str
        The output, for the message.
    can_repair : bool
        Whether the command can go on after damaged chunks of its input were replaced.
    remedy : str
        What to do.

    Raises
    ------
    OutputMismatchError
        Naming each field that differs, with both values.
    """
    differences = [
        f"{section}.{field}: begun with {recorded.get(section, {}).get(field)!r}, now {value!r}"
        for section, content in wanted.items()
        for field, value in content.items()
        if (section, field) not in _LOCATIONS and recorded.get(section, {}).get(field) != value
    ]
    if differences:
        raise OutputMismatchError(
            f"output={location} was begun by a run that differs: {'; '.join(differences)}. "
            f"{remedy}"
            f"{_REPAIR_HINT if can_repair and any(t.startswith('input.fingerprint') for t in differences) else ''}"
        )
