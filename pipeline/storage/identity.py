"""What identifies the record of a step, for the step that follows."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.record import ATTRIBUTE

IDENTITY = "identity"  # section of a record: what identifies the record of the step before


def identify_record(record: Mapping[str, Any]) -> str:
    """What identifies what a record made: the same in every copy, another for everything that decides the bytes.

    Left out is where things lie. Of an input that was repaired the fingerprint is the one that it was begun with: what
    had been made until then stayed.
    """
    kept = {key: dict(part) if isinstance(part, Mapping) else part for key, part in record.items()}
    for section, place in (("input", "location"), ("model", "path")):
        if isinstance(kept.get(section), dict):
            kept[section].pop(place, None)
    made_of = kept.get("input")
    if isinstance(made_of, dict) and (earlier := made_of.pop("repaired_from", None)):
        made_of["fingerprint"] = earlier[0]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def identify_group(location: str, group: str = "") -> str | None:
    """The same of the record of a label image; None if it has none: another tool made it."""
    record = (store.read_attributes(location, group) or {}).get(ATTRIBUTE)
    return identify_record(record) if record else None
