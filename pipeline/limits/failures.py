"""Errors of zarr, file systems and object stores as errors in words."""

import contextlib
from collections.abc import Iterator

from zarr.errors import ArrayNotFoundError, ContainsArrayError, GroupNotFoundError, NodeTypeValidationError

from segment_slide.pipeline.errors import InputError, OutputError, PipelineError

NOT_FOUND = (FileNotFoundError, ArrayNotFoundError, GroupNotFoundError, NodeTypeValidationError, ContainsArrayError)
# what zarr raises on metadata that are not its own, or cut off
DAMAGED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, AssertionError)
_LETTERS = 300  # of the error of a library in one of ours: it may hold the whole file


@contextlib.contextmanager
def failing_as(what: str, *, remote: bool, kind: type[OutputError] = OutputError) -> Iterator[None]:
    """Raise an `OutputError` for what a file system raises, or an object store's back end with its own classes."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        if remote or isinstance(error, OSError):
            raise kind(f"{what}: {error}") from error
        raise


@contextlib.contextmanager
def reading_metadata(where: str) -> Iterator[None]:
    """Raise an `InputError` for what zarr raises on damaged metadata."""
    try:
        yield
    except (PipelineError, *NOT_FOUND):
        raise
    except DAMAGED as error:
        raise InputError(f"{where}: its Zarr metadata cannot be read: {in_short(error)}.") from error


def in_short(error: BaseException) -> str:
    """What an error of a library says.

    >>> in_short(KeyError("shape")), in_short(ValueError("no such codec"))
    ("KeyError: 'shape'", 'no such codec')
    """
    text = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return text[:_LETTERS]
