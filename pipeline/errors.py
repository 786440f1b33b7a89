"""Errors of the pipeline; each sentence says what is wrong, what was expected and what to change.

What to change is a parameter of a Python function or of an options dataclass. It stands in backquotes, alone or with a
value: "choose fewer `workers`", "for example `channels=(0, 1)`". The command line shows its own options instead.

::

    PipelineError
    ├── InputError (ValueError)         the input cannot be read as the image that the model needs
    │   └── UnknownAxesError                nothing says what its dimensions are
    ├── PlanError (ValueError)          sizes that do not fit the network, the image or the memory
    ├── OutputError (OSError)           the output cannot be created, or belongs to something else
    │   ├── OutputMismatchError         it was begun with other parameters, another model or another input
    │   └── UnreachableError (InputError)   a store does not answer: that tells nothing of what is in it
    ├── BlockError (RuntimeError)       one block could not be done; the others can
    │   ├── UnreadableChunkError            a chunk of the input is damaged
    │   │   └── ChunkAccessError                the system could not read it; it may later
    │   ├── NotFiniteError                  NaN or infinity in the input
    │   └── WorkerDiedError                 each worker that worked on it was ended
    └── IncompleteError (RuntimeError)  the run ended with blocks left to do; the same command goes on
        └── TasksFailedError            some tasks failed twice; all others are done
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segment_slide.pipeline.plain_text import neutralise


class PipelineError(Exception):
    """Base of all errors of this package. Names in a message cannot command a terminal: see `pipeline.plain_text`."""

    def __str__(self) -> str:
        return neutralise(super().__str__())


class InputError(PipelineError, ValueError):
    """The input is missing, not Zarr, or does not match the model."""


class UnknownAxesError(InputError):
    """Nothing says which axes an array has.

    Parameters
    ----------
    what : str
        What is there.
    remedy : str
        How to say its axes, where that is possible.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what

    def __str__(self) -> str:
        return neutralise("; ".join(map(str, self.args)))


class PlanError(PipelineError, ValueError):
    """Block, tile or memory sizes that cannot work; raised before a pixel is read."""


class OutputError(PipelineError, OSError):
    """The output cannot be written where it was asked for."""


class OutputMismatchError(OutputError):
    """The output exists and was begun by a run that differs from this one."""


class UnreachableError(InputError, OutputError):
    """A store by URL cannot be asked: no answer, or one that says neither that something is there nor that it is not.

    Whoever leaves out what is damaged or missing must not leave out this.
    """


class BlockError(PipelineError, RuntimeError):
    """One block failed for a reason of its own: an unreadable chunk, a value that is not finite."""


class UnreadableChunkError(BlockError):
    """A chunk of the input cannot be decoded."""


class ChunkAccessError(UnreadableChunkError):
    """The system could not read a chunk of the input: a disk that is gone, say. That tells nothing of what is in it."""


class NotFiniteError(BlockError):
    """A value of the input is NaN or infinite."""


class WorkerDiedError(BlockError):
    """The process that worked on it was ended, again and again: out of memory, killed, or crashed."""


class IncompleteError(PipelineError, RuntimeError):
    """A run ended before all blocks were done. What is done is kept; running it again goes on.

    Attributes
    ----------
    may_pass : bool
        Whether running it again may help as things are. If not, all that failed would fail again, until what is
        damaged is mended: only then do messages not advise it.
    """

    def __init__(self, *message: str, may_pass: bool = True) -> None:
        super().__init__(*message)
        self.may_pass = may_pass


def is_of_content(error: BaseException | None) -> bool:
    """Whether a task failed for what is stored, and so would fail again: a damaged chunk, a value that is no number."""
    is_content = isinstance(error, UnreadableChunkError | NotFiniteError | InputError)
    return is_content and not isinstance(error, ChunkAccessError | UnreachableError)


@dataclass(frozen=True)
class Failure:
    """A task that failed twice: its item, what it is called in messages, and its last error."""

    item: Any
    name: str
    error: Exception


class TasksFailedError(IncompleteError):
    """Some tasks failed twice; all others are done.

    Attributes
    ----------
    failures : tuple of Failure
        Which, and why.
    """

    def __init__(self, message: str, failures: Sequence[Failure] = ()) -> None:
        super().__init__(message, may_pass=not failures or not all(is_of_content(item.error) for item in failures))
        self.failures = tuple(failures)

    @property
    def fault_of_input(self) -> Failure | None:
        """The first one that fails for what is in the input, and so would fail again; None if there is none."""
        return next((failure for failure in self.failures if is_of_content(failure.error)), None)


class MissingError(InputError, FileNotFoundError):
    """An array is not there."""


class OtherImageError(InputError):
    """At the recorded place is an image now that is not the one that was recorded."""


class NotNamedError(InputError):
    """A record names an address that the user did not name, and so it was not opened."""
