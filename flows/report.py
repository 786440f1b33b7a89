"""The page about a segmentation that has just been made: one that fails costs nothing but itself."""

import logging
from collections.abc import Mapping

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.report.run import write_report
from segment_slide.pipeline.report.target import discard, report_path

log = logging.getLogger(__name__)


def try_report(location: str, name: str, seconds: Mapping[str, float]) -> str:
    """Write the report of an output that has just been made, beside it.

    Parameters
    ----------
    location, name : str
        Store and label image.
    seconds : mapping
        Wall time per stage.

    Returns
    -------
    str
        The file; "" if it could not be written: a page is lost then, not the hours of work that it tells of. One of an
        earlier state of the output is deleted, which would pass for the report of this one.

    Raises
    ------
    Exception
        What says that somebody ended the run.
    """
    try:
        return write_report(location, name, seconds=seconds).path
    except Exception as error:
        if is_cancellation(error):
            raise
        log.warning("the report of %s could not be written: %s", location, error, exc_info=error)
    try:
        discard(report_path(location, name))
    except OutputError as error:
        log.warning("the report of an earlier state of %s stays: %s", location, error)
    return ""


def is_cancellation(error: Exception) -> bool:
    """Whether somebody ended the run: whatever runs the stages has an exception of its own for that."""
    return any("Cancel" in kind.__name__ for kind in type(error).__mro__)
