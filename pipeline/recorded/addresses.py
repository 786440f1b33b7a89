"""Which addresses that a record names are opened. Whoever wrote a record could name any, so it is not trusted.

An address (a URL) is opened only if the user named it, or if it has the origin of a place that the user named. Opening
one tells its owner who looks at what, sends what this user may read elsewhere (credentials of object stores), and may
reach servers that only this machine reaches. This file imports nothing heavy, because each command does.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

from segment_slide.pipeline.errors import NotNamedError

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\\@:\s]+(?::[0-9]+)?)(?:[/?#][^\s\\]*)?", re.IGNORECASE)
_FILE = re.compile(r"^file://", re.IGNORECASE)
_NAMED: ContextVar[tuple[str, ...]] = ContextVar("named", default=())


@contextlib.contextmanager
def naming(*locations: object) -> Iterator[None]:
    """While the body runs, these are places that the user named: a request's fields. What is empty is left out."""
    token = _NAMED.set((*_NAMED.get(), *(str(location) for location in locations if location)))
    try:
        yield
    finally:
        _NAMED.reset(token)


def in_words(words: Iterable[str]) -> list[str]:
    """The addresses among the words of a command line.

    >>> in_words(["view", "s3://a/b", "--image=https://host/c", "--name=x"])
    ['s3://a/b', 'https://host/c']
    """
    values = (word.partition("=")[2] if word.startswith("-") and "=" in word else word for word in words)
    return [value for value in values if "://" in value]


def origin(location: str) -> str | None:
    """Scheme and host (or bucket) of an address; None for a path, and for an address of an unusual form.

    >>> origin("https://Host:8080/a.zarr"), origin("s3://bucket/a"), origin("/data/a"), origin("https://host@evil/a")
    ('https://host:8080', 's3://bucket', None, None)
    >>> origin("simplecache::https://host/a") is None, origin("https://host/a::https://evil/b") is None
    (True, True)
    """
    found = _ORIGIN.fullmatch(location)
    return None if found is None or "::" in location else f"{found[1]}://{found[2]}".lower()


def may_open(recorded: str, *given: str) -> bool:
    """Whether a place that a record names may be opened: a local path always, an address as this file says.

    Parameters
    ----------
    recorded : str
        The place.
    given : str
        Places that the user named; those of `naming` count too.
    """
    place = _FILE.sub("", recorded).rstrip("/")
    if "://" not in place and "::" not in place:
        return True
    named = [location.rstrip("/") for location in (*given, *_NAMED.get())]
    return place in named or (origin(place) is not None and origin(place) in map(origin, named))


def check_address(recorded: str, *given: str, remedy: str) -> None:
    """Refuse an address that a record names and the user does not; see `may_open`.

    Parameters
    ----------
    recorded, given
        See `may_open`.
    remedy : str
        What to do, as "name it with `image`".

    Raises
    ------
    NotNamedError
        The message has the address and the remedy.
    """
    if not may_open(recorded, *given):
        raise NotNamedError(
            f"{recorded} was not opened: {os.path.basename(given[0].rstrip('/')) if given else 'a record'} names this "
            f"address, and you did not. If it is the right one, {remedy}."
        )
