"""Whose fault an error is that ends the turn of an acquisition: its own, nobody's, or that of what all of them need.

::

    cancelled                   somebody ended the run                                   the night ends
    concerns all                workers, the model, a disk that takes no more            the night ends
    nobody's fault              another run writes there; the time given was used up     another night goes on
    all others                  of this acquisition                                      tried again, then set aside
"""

import errno
import os
from collections.abc import Iterator

from segment_slide.cluster.errors import ClusterError
from segment_slide.pipeline.errors import IncompleteError, OutputError, OutputMismatchError, PipelineError
from segment_slide.unet.errors import UnetError


def explain(error: BaseException) -> str:
    """The sentence of an error of ours; of others, their class too."""
    is_ours = isinstance(error, PipelineError | ClusterError | UnetError)
    return str(error) if is_ours else f"{type(error).__name__}: {error}".removesuffix(": ")


def explain_failure(error: Exception, output: str, image: str) -> str:
    """As `explain`; of an output that was begun otherwise, what to delete too.

    Parameters
    ----------
    error : Exception
        What ended a turn.
    output, image : str
        Where the acquisition's result and, if it is converted, its conversion lie.
    """
    if not isinstance(error, OutputMismatchError):
        return explain(error)
    place = image if image and f"output={image} " in str(error) else output
    return f"{error} To begin it anew, delete {place}"


def concerns_all(error: Exception) -> bool:
    """Whether an error would meet every acquisition: workers that do not come, the model, a disk that takes no more.

    Blocks tell the reason of a failed write as text, so that is where the disk's state is read.
    """
    disk = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))
    return isinstance(error, ClusterError | UnetError) or any(text in str(error) for text in disk)


def is_nobodys_fault(error: Exception) -> bool:
    """Whether an acquisition only has to wait: another run holds its output, or a stage used up the time it was given.

    Both leave what is done, and the next night goes on from there.
    """
    if isinstance(error, OutputError):
        return isinstance(error.__cause__, BlockingIOError)
    return isinstance(error, IncompleteError) and any(isinstance(cause, TimeoutError) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
