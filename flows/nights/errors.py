"""What an error means for the night: whether it belongs to one acquisition, to nobody, or to all acquisitions.

::

    cancelled                   somebody ended the run                              the night ends
    concerns all                workers, the model, a disk that is full or gone     the night ends
    nobody's fault              another run writes there; the time limit passed     the next night goes on
    all others                  belong to this acquisition                          tried again, then set aside
"""

import errno
import os
from collections.abc import Iterator

from segment_slide.cluster.errors import ClusterError
from segment_slide.pipeline.errors import IncompleteError, OutputError, OutputMismatchError, PipelineError
from segment_slide.unet.errors import UnetError


def explain(error: BaseException) -> str:
    """Message of an error; errors that are not ours get the name of their class too."""
    is_ours = isinstance(error, PipelineError | ClusterError | UnetError)
    return str(error) if is_ours else f"{type(error).__name__}: {error}".removesuffix(": ")


def explain_failure(error: Exception, output: str, image: str) -> str:
    """As `explain`; for an output that was begun with other settings, also say what to delete.

    Parameters
    ----------
    error : Exception
        The error that ended the try.
    output, image : str
        Paths of the acquisition's output and, if it is converted, of its conversion.
    """
    if not isinstance(error, OutputMismatchError):
        return explain(error)
    place = image if image and f"output={image} " in str(error) else output
    return f"{error} To begin it anew, delete {place}"


def concerns_all(error: Exception) -> bool:
    """Whether an error would meet every acquisition: missing workers, the model, a disk that is full or gone.

    Errors of blocks hold the reason of a failed write as text only, so that text is searched for the disk's state.
    """
    disk = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS))
    return isinstance(error, ClusterError | UnetError) or any(text in str(error) for text in disk)


def is_nobodys_fault(error: Exception) -> bool:
    """Whether an acquisition only has to wait: another run holds its output, or a stage reached its time limit.

    In both cases finished parts stay, and the next night continues from there.
    """
    if isinstance(error, OutputError):
        return isinstance(error.__cause__, BlockingIOError)
    return isinstance(error, IncompleteError) and any(isinstance(cause, TimeoutError) for cause in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the error that caused it, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__
