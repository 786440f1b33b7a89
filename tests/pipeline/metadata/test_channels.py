"""Channels by name or number, against a table of what a user means."""

import itertools
from typing import Any

import pytest

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.metadata.channels import choose_channels, find_channel, list_names, say_channels
from segment_slide.unet.options import read_words, write_words

COUNTED = ("1", "2", "3")


@pytest.mark.parametrize(
    ("given", "names", "position"),
    [
        ("GFP", ("DAPI", "GFP"), 1),
        ("1", ("DAPI", "GFP"), 1),
        (1, COUNTED, 1),  # Python code and records count from 0
        ("0", COUNTED, 0),
        ("3", COUNTED, 2),
        ("name:1", COUNTED, 0),
        ("number:1", COUNTED, 1),
        ("0", ("0", "1"), 0),  # name and number are the same channel
        (" Alexa 488 ", ("DAPI", "Alexa 488"), 1),
        ("DAPI", (" DAPI", "GFP"), 0),
        ("Alexa, 488", ("DAPI", "Alexa, 488"), 1),
        ("dapi", ("DAPI", "dapi"), 1),
        ("A\u0308", ("GFP", "\u00c4"), 1),  # an accent apart from its letter, and in one with it
        ("-1", ("0", "-1"), 1),
        ("01", ("01", "GFP"), 0),
        ("name:x", ("name:x", "GFP"), 0),
        ("name:", ("", "name:"), 1),
        ("1", (), 1),
        ("1", ("only one",), 1),
    ],
)
def test_a_channel_is_found_by_name_or_number(given: Any, names: tuple[str, ...], position: int) -> None:
    assert find_channel(given, max(len(names), 2), names, "slide") == position


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        ("1", COUNTED, "number 0 (named '1') or number 1 (named '2'). Write 'name:1' or 'number:1' instead"),
        ("2", COUNTED, "number 1 (named '2') or number 2 (named '3')"),
        ("0", ("DAPI", "0"), "number 0 (named 'DAPI') or number 1 (named '0')"),
        ("DAPI", ("DAPI", "DAPI"), "Write 'number:0' or 'number:1' instead"),
        ("name:DAPI", ("DAPI", "DAPI"), "Write 'number:0' or 'number:1' instead"),
        ("name:x", ("name:x", "x"), "may be number 0 (named 'name:x') or number 1 (named 'x')"),
        ("dapi", ("DAPI", "GFP"), "expected one of: DAPI, GFP. Did you mean 'DAPI'? Upper and lower case count."),
        ("-1", ("DAPI", "GFP"), "is not in slide"),
        (-1, ("DAPI", "GFP"), "is not in slide"),
        ("01", ("DAPI", "GFP"), "is not in slide"),
        ("", ("", "GFP"), "expected one of: 0, GFP"),
        ("name:", ("", "GFP"), "expected one of: 0, GFP"),
        ("number:2", ("DAPI", "GFP"), "is not in slide"),
        ("4", COUNTED, "expected one of: name:1, name:2, 3"),
        ("only one", ("only one",), "name 1 channels (only one), but it has 2, so their names cannot be used"),
        ("2", (), "expected one of: 0 to 1"),
    ],
)
def test_what_is_no_channel_or_may_be_two_is_refused(given: Any, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        find_channel(given, max(len(names), 2), names, "slide")
    assert message in str(caught.value)


@pytest.mark.parametrize("given", [("0", "0"), ("DAPI", "DAPI"), ("0", "DAPI"), ("DAPI", 0)])
def test_a_channel_that_is_given_twice_is_refused(given: tuple[str | int, ...]) -> None:
    with pytest.raises(InputError, match=r"twice: .* are both number 0 \(named 'DAPI'\)"):
        choose_channels(given, 2, ("DAPI", "GFP"), "slide")


def test_what_messages_advise_finds_the_same_channels_for_any_names() -> None:
    words = ("", "0", "1", "2", "DAPI", "dapi", "a,b", 'say "so"', "name:1", "number:0", "two\nlines", "`x`", " b ")
    for names in itertools.product(words, repeat=3):
        said = say_channels((2, 0, 1), 3, names)
        assert choose_channels(read_words(write_words(said)), 3, names, "slide") == (2, 0, 1), names


def test_names_that_could_be_misread_stand_in_quotes() -> None:
    assert list_names(["DAPI", "a, b", " c", "\x1b[31m"]) == "DAPI, 'a, b', ' c', '\\x1b[31m'"
