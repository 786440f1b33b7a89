"""The page about a segmentation: on demand, and after each slide of a night."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.files import read_file
from pipeline.report import write_report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadePage:
    """A report that was written: where, and how large it is."""

    path: str
    n_bytes: int


def make_page(location: str, name: str | None = None, path: str | None = None) -> MadePage:
    """Write the report of an output; see `pipeline.report.write_report`."""
    written = write_report(location, name, path)
    return MadePage(written, len(read_file(written)))


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
        The file; "" if it could not be written: a page is lost then, not the hours of work that it tells of.
    """
    try:
        return write_report(location, name, seconds=seconds)
    except Exception as error:
        log.warning("the report of %s could not be written: %s", location, error, exc_info=error)
        return ""
