"""Records from JSON and back: nothing is lost, nothing is added, and what does not fit is named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from segment_slide.pipeline.errors import OutputError, OutputMismatchError
from segment_slide.pipeline.storage.record import Code, compare_records
from segment_slide.pipeline.storage.sections import (
    NOT_COMPARED,
    NOT_STORED,
    OPTIONAL,
    UNKNOWN,
    Section,
    list_differences,
    read_section,
    write_section,
)


@dataclass(frozen=True)
class Inner(Section):
    size: int = 0
    ends: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plain:
    kind: str = "a"

    def __post_init__(self) -> None:
        if self.kind not in ("a", "b"):
            raise ValueError(f"kind={self.kind!r}")


@dataclass(frozen=True)
class Outer(Section):
    place: str = field(metadata=NOT_STORED)
    name: str
    code: Code = Code()
    inner: Inner = Inner()
    plain: Plain = Plain()
    scale: float | None = None
    names: tuple[str, ...] = ()
    count: int | None = field(default=None, metadata=OPTIONAL)


WHOLE = {
    "name": "cells",
    "code": {"version": "0.1.0", "results": 1},
    "inner": {"size": 3, "ends": {"z": [0, 5]}},
    "plain": {"kind": "b"},
    "scale": 2,
    "names": ["a", "b"],
}


def read(content):
    return read_section(Outer, content, "here/zarr.json", place="here")


def test_what_is_made_here_is_written_with_all_but_optional_fields():
    made = Outer("here", "cells", Code(version="1"))
    assert json.dumps(write_section(made)) == json.dumps(
        {"name": "cells", "code": {"version": "1", "results": 1}, "inner": {"size": 0, "ends": {}},
         "plain": {"kind": "a"}, "scale": None, "names": []}
    )  # fmt: skip
    assert write_section(replace(made, count=0))["count"] == 0
    assert read(write_section(made)) == made


@pytest.mark.parametrize(
    "content",
    [
        WHOLE,
        {"name": "cells"},
        {"names": [], "count": 7, "name": "cells"},
        {"name": "cells", "scale": None, "inner": {}, "count": None},
        {**WHOLE, "later": [1, {"a": None}], "inner": {"later": True, "size": 1}},
    ],
    ids=["whole", "keys are absent", "another order", "null", "keys of a later version"],
)
def test_what_is_read_is_written_as_it_was(content):
    assert json.dumps(write_section(read(content))) == json.dumps(content)


def test_a_change_changes_one_key_and_an_optional_one_can_be_taken_away():
    found = read({"later": 1, **WHOLE})
    changed = replace(found, count=5, inner=replace(found.inner, size=4))
    assert write_section(changed) == {"later": 1, **WHOLE, "inner": {**WHOLE["inner"], "size": 4}, "count": 5}
    assert write_section(replace(changed, count=None)) == {"later": 1, **WHOLE, "inner": {**WHOLE["inner"], "size": 4}}
    assert list(write_section(changed))[:2] == ["later", "name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 5}, "name is 5, expected a text"),
        ({"scale": "wide"}, "scale is 'wide', expected a number"),
        ({"scale": True}, "scale is True, expected a number"),
        ({"count": 1.5}, "count is 1.5, expected a whole number"),
        ({"count": 1 << 70}, "count is 11805.*, expected a whole number"),
        ({"names": "ab"}, "names is 'ab', expected a list"),
        ({"names": ["a", 1]}, r"names\[1\] is 1, expected a text"),
        ({"inner": 5}, "inner is 5, expected a JSON object"),
        ({"inner": {"size": "x"}}, "inner.size is 'x', expected a whole number"),
        ({"inner": {"ends": {"z": [1]}}}, r"inner.ends.z is \[1\], expected a list of 2"),
        ({"inner": {"ends": []}}, r"inner.ends is \[\], expected a JSON object"),
        ({"plain": {"kind": "c"}}, r"plain is .*, expected what fits together \(kind='c'\)"),
        ({"plain": {"later": 1}}, "plain.later is 1, expected no such key"),
    ],
)
def test_a_damaged_record_is_refused_with_file_version_and_key(change, message):
    with pytest.raises(OutputError, match=rf"here/zarr.json: .*\(segment-slide 0.1.0 wrote it\): {message}"):
        read({**WHOLE, **change})


def test_a_record_without_what_it_must_have_or_that_is_none_is_refused():
    with pytest.raises(OutputError, match="name is None, expected it to be there"):
        read({})
    with pytest.raises(OutputError, match="the whole is 5, expected a JSON object"):
        read(5)


# -- comparing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices(Section):
    tta: str = "none"
    split: float | None = None
    block: int = field(default=0, metadata=UNKNOWN)
    location: str = field(default="", metadata=NOT_COMPARED)
    plain: Plain = Plain("a")


@dataclass(frozen=True)
class Run(Section):
    code: Code | None = field(default=None, metadata=OPTIONAL)
    choices: Choices = Choices()
    inputs: Mapping[str, str] = field(default_factory=dict)
    result: int | None = field(default=None, metadata=OPTIONAL | NOT_COMPARED)


def differences(begun: dict[str, Any], now: Run) -> list[str]:
    found = list_differences(read_section(Run, begun, "zarr.json"), now)
    return [f"{'.'.join(one.names)}: {one.before!r}, {one.now!r}" for one in found]


@pytest.mark.parametrize("begun", [{}, {"choices": {}}, {"choices": None}, {"choices": {"tta": None}}, {"more": 1}])
def test_a_key_that_an_old_record_lacks_stands_for_its_default(begun):
    assert differences(begun, Run(choices=Choices(block=64))) == []
    now = Run(choices=Choices(tta="flips", split=0.5, block=64, location="/a", plain=Plain("b")))
    assert differences(begun, now) == [
        "choices.tta: 'none', 'flips'",
        "choices.split: None, 0.5",
        "choices.plain.kind: 'a', 'b'",
    ]


def test_values_that_are_recorded_are_compared_even_if_the_default_is_asked_for_now():
    begun = {
        "choices": {"tta": "flips", "split": 0.5, "block": 32, "location": "/b"},
        "inputs": {"a": "1"},
        "result": 3,
    }
    assert differences(begun, Run(choices=Choices(block=64), inputs={"a": "2", "b": "3"})) == [
        "choices.tta: 'flips', 'none'",
        "choices.split: 0.5, None",
        "choices.block: 32, 64",
        "inputs.a: '1', '2'",
        "inputs.b: None, '3'",
    ]


def test_a_run_without_a_record_is_refused():
    with pytest.raises(OutputMismatchError, match="out was begun by a run whose record is missing"):
        compare_records(None, Run(), "out")


def test_versions_and_places_are_not_compared_and_a_record_without_results_counts_as_the_first():
    begun = {"code": {"version": "0.1.0"}, "choices": {"location": "/a"}}
    assert differences(begun, Run(Code(version="0.2.0", results=1), Choices(location="/b"))) == []
    assert differences({}, Run(Code(version="0.2.0", torch="9", results=1))) == []
    assert differences({"code": {"torch": "8"}}, Run(Code(torch="9"))) == ["code.torch: '8', '9'"]


@pytest.mark.parametrize(("theirs", "ours"), [(None, 2), (1, 2), (3, 2), (2, 1)])
def test_other_results_are_refused_with_both_versions(theirs, ours):
    begun = {"code": {"version": "0.1.0"} | ({} if theirs is None else {"results": theirs})}
    numbers = rf"code.results: begun with {theirs or 1} \(segment-slide 0.1.0\), now {ours} \(segment-slide 0.2.0\)"
    with pytest.raises(OutputMismatchError, match=rf"{numbers}.* go on with the version that began the output"):
        compare_records(read_section(Run, begun, ""), Run(Code(version="0.2.0", results=ours)), "out")
