"""Which channel a user means: by its name, or by its number from 0. One rule for every command.

A text that is the name of one channel and the number of another is refused, because either choice may be wrong.
``name:1`` and ``number:1`` say which of both is meant. An int, as Python code and records give it, is a number.
"""

import unicodedata
from collections.abc import Sequence

from segment_slide.pipeline.errors import InputError

_BY_NAME, _BY_NUMBER = "name:", "number:"


def choose_channels(
    wanted: Sequence[str | int], n_channels: int, names: Sequence[str], location: str
) -> tuple[int, ...]:
    """Positions of channels that are given by names or numbers, in the order asked for.

    Parameters
    ----------
    wanted : sequence of str or int
        Names, or numbers from 0.
    n_channels : int
        Channels of the image.
    names : sequence of str
        One name per channel. If there are more or fewer names than channels, they are not used.
    location : str
        The image, for messages.

    Raises
    ------
    InputError
        If there is no such channel, if a text may mean two channels, or if a channel is given twice.

    Examples
    --------
    >>> choose_channels(["GFP", "0"], 2, ["DAPI", "GFP"], "slide.zarr")
    (1, 0)
    """
    chosen: dict[int, str | int] = {}
    for given in wanted:
        position = find_channel(given, n_channels, names, location)
        if position in chosen:
            raise InputError(
                f"channel {given!r} of {location} is given twice: {chosen[position]!r} and {given!r} are both "
                f"{_describe(position, names, n_channels)}. Name each channel once."
            )
        chosen[position] = given
    return tuple(chosen)


def find_channel(given: str | int, n_channels: int, names: Sequence[str], location: str) -> int:
    """Position of one channel; see `choose_channels`.

    Raises
    ------
    InputError
        If there is no such channel, naming those that exist, or if it may mean several, naming all of them.
    """
    found = _positions(given, n_channels, names)
    if len(found) == 1:
        return found[0]
    if found:
        readings = " or ".join(_describe(position, names, n_channels) for position in found)
        ways = " or ".join(repr(_unmistakable(position, given, names)) for position in found)
        raise InputError(f"channel {given!r} of {location} may be {readings}. Write {ways} instead.")
    if names and len(names) != n_channels:
        raise InputError(
            f"channel {given!r} is not in {location}; expected a number, 0 to {n_channels - 1}. Its metadata name "
            f"{len(names)} channels ({list_names(names)}), but it has {n_channels}, so their names cannot be used."
        )
    known = list_names(say_channels(range(n_channels), n_channels, names)) if names else f"0 to {n_channels - 1}"
    raise InputError(f"channel {given!r} is not in {location}; expected one of: {known}.{_suggest(given, names)}")


def say_channels(positions: Sequence[int], n_channels: int, names: Sequence[str]) -> tuple[str, ...]:
    """How to write channels so that `choose_channels` finds them again: by name where that is possible.

    Examples
    --------
    >>> say_channels([0, 1], 2, ["DAPI", "GFP"]), say_channels([0, 1], 2, [])
    (('DAPI', 'GFP'), ('0', '1'))
    >>> say_channels([0, 1, 2], 3, ["1", "2", "3"])
    ('name:1', 'name:2', '3')
    """
    return tuple(_say(position, n_channels, names) for position in positions)


def list_names(names: Sequence[str]) -> str:
    """Names for a message; those that could be misread stand in quotes.

    >>> list_names(["DAPI", "Alexa, 488", ""])
    "DAPI, 'Alexa, 488', ''"
    """
    plain = (name.isprintable() and name == name.strip() != "" and "," not in name for name in names)
    return ", ".join(name if is_plain else repr(name) for name, is_plain in zip(names, plain, strict=True))


def _positions(given: str | int, n_channels: int, names: Sequence[str]) -> list[int]:
    """All channels that may be meant; in a text, blanks around a name do not count."""
    if isinstance(given, int):
        return [given] if 0 <= given < n_channels else []
    text, known = given.strip(), (names if len(names) == n_channels else ())
    if text.startswith(_BY_NUMBER) and (found := _numbered(text.removeprefix(_BY_NUMBER).strip(), n_channels)):
        return sorted(found)  # whatever the names are: so every channel can be chosen
    found = _named(text, known) | _numbered(text, n_channels)
    if text.startswith(_BY_NAME):
        found |= _named(text.removeprefix(_BY_NAME).strip(), known)
    return sorted(found)


def _named(text: str, names: Sequence[str]) -> set[int]:
    return {position for position, name in enumerate(names) if text and _composed(name) == _composed(text)}


def _composed(name: str) -> str:
    """A name in one form: an accent may be stored apart from its letter, which looks the same."""
    return unicodedata.normalize("NFC", name.strip())


def _numbered(text: str, n_channels: int) -> set[int]:
    """Only plain decimal numbers: "01" and "²" are none."""
    is_number = text.isascii() and text.isdecimal() and str(int(text)) == text
    return {int(text)} if is_number and int(text) < n_channels else set()


def _describe(position: int, names: Sequence[str], n_channels: int) -> str:
    has_name = len(names) == n_channels and bool(names[position].strip())
    return f"number {position}" + (f" (named {names[position]!r})" if has_name else "")


def _unmistakable(position: int, given: str | int, names: Sequence[str]) -> str:
    name = names[position].strip() if position < len(names) else ""
    is_only = sum(other.strip() == name for other in names) == 1
    return f"{_BY_NAME}{name}" if name and name == str(given).strip() and is_only else f"{_BY_NUMBER}{position}"


def _say(position: int, n_channels: int, names: Sequence[str]) -> str:
    name = names[position].strip() if len(names) == n_channels else ""
    usable = [name, f"{_BY_NAME}{name}"] if name.isprintable() and "`" not in name else []
    for text in (*usable, str(position)):
        if _positions(text, n_channels, names) == [position]:
            return text
    return f"{_BY_NUMBER}{position}"


def _suggest(given: str | int, names: Sequence[str]) -> str:
    """Name a channel that differs in case only."""
    alike = [name for name in names if name.strip().casefold() == str(given).strip().casefold() != ""]
    return f" Did you mean {alike[0]!r}? Upper and lower case count." if alike else ""
