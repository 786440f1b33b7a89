"""Write the report of a new segmentation. If the report fails, the segmentation is kept and the run goes on."""

import logging
from collections.abc import Mapping

from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.report.run import write_report
from segment_slide.pipeline.report.target import discard, report_path

log = logging.getLogger(__name__)


def try_report(location: str, name: str, seconds: Mapping[str, float]) -> str:
    """Write the report of a new output beside the output.

    Parameters
    ----------
    location, name : str
        The output's store and label image.
    seconds : mapping
        Wall time per stage.

    Returns
    -------
    str
        The file, or "" if it could not be written: hours of work are not given up for a page. In that case a report of
        an earlier state of the output is deleted, because readers would take it for the report of this state.

    Raises
    ------
    Exception
        If the error says that somebody cancelled the run.
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
    """Whether the error says that somebody cancelled the run. Each orchestrator has its own exception for that."""
    return any("Cancel" in kind.__name__ for kind in type(error).__mro__)
