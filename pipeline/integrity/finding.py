"""What a check found: the fault, the file or group, and the stage that makes it again."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ParamSpec

from segment_slide.pipeline.errors import UnreachableError

Arguments = ParamSpec("Arguments")


class Fault(StrEnum):
    """What is wrong with a file, or with what a group says."""

    CHANGED = "changed"  # other bytes than were written
    UNREADABLE = "unreadable"  # cannot be decoded
    MISSING = "missing"
    SURPLUS = "surplus"  # nothing of ours has this name
    CONTRADICTION = "contradiction"  # two files that must agree do not
    INPUT = "input"  # the input is not the one that the output was made from


class Stage(StrEnum):
    """The stage that makes a file; its value is the name of the command."""

    INGEST = "ingest"
    SEGMENT = "segment"
    INSTANCES = "instances"
    MEASURE = "measure"
    WEIGHT_MAPS = "weight-maps"
    TRAINING_DATA = "training-data"
    TRAIN = "train"
    NIGHT = "segment-new"
    NONE = ""


@dataclass(frozen=True)
class Made:
    """What made a part of an output.

    Attributes
    ----------
    stage : Stage
        The stage.
    location : str
        The store.
    name : str
        Name of the label image or of the table in it.
    """

    stage: Stage
    location: str
    name: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    fault : Fault
        What is wrong.
    store, key : str
        The store, and the file or group in it; `store` is the file itself if it lies in none.
    problem : str
        A sentence for people.
    made : Made
        What made it.
    """

    fault: Fault
    store: str
    key: str
    problem: str
    made: Made

    @property
    def path(self) -> str:
        """Path or address of the file or group."""
        return f"{self.store}/{self.key}" if self.key else self.store


@dataclass(frozen=True)
class Note:
    """A sentence about what could not be checked, and where.

    Attributes
    ----------
    where : str
        Store, group or file.
    sentence : str
        What is not known, and why.
    is_given_up : bool
        Whether a check met with what it did not expect. If nothing else is found there, that is a finding.
    """

    where: str
    sentence: str
    is_given_up: bool = False


Found = Iterator[Finding | Note]


def alone(check: Callable[Arguments, Found]) -> Callable[Arguments, Found]:
    """Let a check end with what it found when a file that it needs is damaged.

    The check of the files names that file, and one broken file hides nothing that other checks find. If no check names
    anything, the output counts as unsound all the same (`pipeline.integrity.run`).

    Raises
    ------
    UnreachableError
        If a store does not answer: that tells nothing of what is in it.
    """

    @functools.wraps(check)
    def run(*arguments: Arguments.args, **named: Arguments.kwargs) -> Found:
        try:
            yield from check(*arguments, **named)
        except UnreachableError:
            raise
        except Exception as error:  # noqa: BLE001 - on damaged bytes, codecs and parsers raise whatever they like
            yield Note(_place(arguments), f"{_title(check)}: {type(error).__name__}: {error}", is_given_up=True)

    return run


def _place(arguments: tuple[object, ...]) -> str:
    """The store that a check was about: its first argument, or that one's location."""
    first = arguments[0] if arguments else ""
    return first if isinstance(first, str) else str(getattr(first, "location", ""))


def _title(check: Callable[..., object]) -> str:
    return getattr(check, "__name__", "check").replace("_", " ").strip()
