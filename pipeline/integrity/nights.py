"""Notes of a night: each can be read, and the mark of a finished output agrees with the output."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.integrity.finding import Fault, Finding, Found, Made, Stage, alone
from segment_slide.pipeline.nights.notes import (
    BEGUN_SUFFIX,
    DONE_FILE,
    FAILED_SUFFIX,
    QUESTIONS_SUFFIX,
    Begun,
    Done,
    Failure,
)
from segment_slide.pipeline.storage.files import read_file
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.label_records import read_instances_record, read_record
from segment_slide.pipeline.storage.names import label_group
from segment_slide.pipeline.storage.place import read_label_names
from segment_slide.pipeline.storage.sections import Section, read_section
from segment_slide.pipeline.storage.store import join

CHECKSUM = "sha256"  # key of a note: of all its other keys
_DIGITS = re.compile(r"[0-9a-f]{64}")
_KINDS: dict[str, type[Section] | None] = {BEGUN_SUFFIX: Begun, FAILED_SUFFIX: Failure, QUESTIONS_SUFFIX: None}


def is_note(name: str) -> bool:
    """Whether a file beside outputs is called like a note of a night."""
    return name.endswith(tuple(_KINDS))


@alone
def check_note(path: str) -> Found:
    """Check that a note beside an output can be read."""
    kind = next(kind for suffix, kind in _KINDS.items() if path.endswith(suffix))
    yield from _check_json(os.path.dirname(path), os.path.basename(path), kind)


def _check_json(folder: str, key: str, kind: type[Section] | None) -> Iterator[Finding]:
    made = Made(Stage.NIGHT, folder)
    try:
        text = read_file(join(folder, key))
        content = json.loads(text)
        if kind is not None:
            read_section(kind, content, join(folder, key))
        elif not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
            raise ValueError("expected a JSON object of texts")
    except (ValueError, OutputError) as error:
        yield Finding(Fault.UNREADABLE, folder, key, f"is no note: {error}", made)
        return
    if not _is_as_written(text, content, kind):
        yield Finding(Fault.CHANGED, folder, key, "holds other text than was written", made)


def _is_as_written(text: bytes, content: dict[str, Any], kind: type[Section] | None) -> bool:
    """Whether a note has its own checksum, or is of a version that wrote none; then it must have nothing like one."""
    rest = {name: value for name, value in content.items() if name != CHECKSUM}
    if CHECKSUM in content:
        own = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        return text == (json.dumps({**rest, CHECKSUM: own}, indent=1) + "\n").encode()
    known = set() if kind is None else {field.name for field in fields(kind)}
    return not any(_DIGITS.fullmatch(str(value)) for name, value in rest.items() if name not in known)


@alone
def check_done(output: str) -> Found:
    """Compare the mark of a finished output with its class map and its objects."""
    made = Made(Stage.NIGHT, output)
    if wrong := list(_check_json(output, DONE_FILE, Done)):
        yield from wrong
        return
    done = read_section(Done, json.loads(read_file(join(output, DONE_FILE))), join(output, DONE_FILE))
    for name in read_label_names(output):
        record = read_record(output, name)
        if record is None or record.model is None or name.endswith("-instances"):
            continue
        n_pixels = math.prod(describe_image(join(output, label_group(name))).shape)
        objects = read_instances_record(output, name)
        stored = (record.model.sha256, n_pixels, None if objects is None else objects.n_objects)
        said = (done.model_sha256, done.n_pixels, done.n_objects)
        what = ("model", "number of pixels", "number of objects")
        for title, here, there in zip(what, said, stored, strict=True):
            if here != there:
                problem = f"says that the {title} is {here}, but the output's records say {there}"
                yield Finding(Fault.CONTRADICTION, output, DONE_FILE, problem, made)
        return
