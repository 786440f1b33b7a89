"""A segmentation in one page: what was found, how it looks, how long it took, what made it, how to make it again.

One HTML file with everything in it: it opens from a disk, prints, and asks no other host for anything. Equal outputs
(with equal times of their files) give equal bytes.

::

    report_facts      what lies in the output, from metadata       report_views     which parts are shown
    report_table      the table of objects, part by part           report_pictures  how they are drawn
    report_estimate   classes on a coarse level, without a table   report_plots     histograms and the map of densities
    report_times      when files were written                      report_sections, report_origin  what is said
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from pipeline import store
from pipeline.errors import OutputError, PipelineError
from pipeline.files import exists, read_file, write_file
from pipeline.record import ATTRIBUTE, code_version
from pipeline.report_estimate import estimate_areas
from pipeline.report_facts import Facts, choose_name, gather
from pipeline.report_html import Markup, join, tag, trusted
from pipeline.report_origin import again, missing, opening, origin, times, todo
from pipeline.report_sections import Content, density, lead, numbers, pictures, tiles
from pipeline.report_style import STYLE
from pipeline.report_table import describe_table
from pipeline.report_times import file_spans, show_date, stage_seconds
from pipeline.report_views import DETAIL_PX, draw_all, look

R = TypeVar("R")

log = logging.getLogger(__name__)

_GENERATOR = "segment-slide report"
_MARK = f'<meta name="generator" content="{_GENERATOR}">'
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # a browser refuses what is not in the page


def write_report(
    location: str, name: str | None = None, path: str | None = None, *, seconds: Mapping[str, float] | None = None
) -> str:
    """Write the report of an output.

    Parameters
    ----------
    location : str
        OME-Zarr output of a segmentation; path or URL. It is only read.
    name : str, optional
        Its label image; by default the one that it shows.
    path : str, optional
        File to write, or its URL; by default beside the output (`report_path`).
    seconds : mapping, optional
        Wall time per stage, where a run has just measured it.

    Returns
    -------
    str
        The file.

    Raises
    ------
    InputError
        If there is no segmentation.
    OutputError
        If the file cannot be written, or is somebody else's.
    """
    name = choose_name(location, name)
    location = store.resolve_location(location)
    target = report_path(location, name) if path is None else store.resolve_location(path)
    check_target(target)
    write_file(target, make_report(location, name, seconds=seconds).encode())
    return target


def report_path(location: str, name: str) -> str:
    """Where the report of an output goes by default: beside it, under its name.

    A label image that is not the one that the store shows has its own name in the file's.
    """
    stem = location.removesuffix(".zarr").removesuffix(".ome")
    shown = ((store.read_attributes(location) or {}).get(ATTRIBUTE) or {}).get("shows", "")
    is_main = str(shown).removeprefix("labels/").removesuffix("-instances") == name
    return f"{stem}.report.html" if is_main else f"{stem}.{name}.report.html"


def check_target(path: str) -> None:
    """Refuse a file that cannot be written or is not a report, before anything is read.

    Raises
    ------
    OutputError
        Saying what is there.
    """
    if not store.is_remote(path):
        if os.path.isdir(path):
            raise OutputError(
                f"output={path} is a folder, expected a file to write, as {path.rstrip('/')}/report.html."
            )
        if not os.path.isdir(os.path.dirname(path)):
            raise OutputError(f"output={path}: the folder {os.path.dirname(path)} is not there; make it first.")
    try:
        is_free = not exists(path) or _MARK.encode() in read_file(path)[:2000]
    except Exception as error:  # fsspec back ends raise classes of their own
        raise OutputError(f"output={path} cannot be read: {error}") from error
    if not is_free:
        raise OutputError(
            f"output={path} is there, but is not a report of segment-slide; it stays as it is. Choose another --output."
        )


def make_report(location: str, name: str, *, seconds: Mapping[str, float] | None = None) -> str:
    """The page of a label image as HTML; what cannot be read is left out, and the page says so.

    Reads metadata, the table of objects, one coarse level of image and labels, and a few chunks of finer ones.

    Raises
    ------
    InputError
        If there is no segmentation.
    """
    facts = gather(location, name)
    notes: list[str] = []
    sight = _try(notes, "The pictures", lambda: look(facts))
    plane = {"t": 0, "z": facts.labels.size("z") // 2} if sight is None else sight.plane
    table = _try(notes, "The table of objects", lambda: describe_table(facts, plane, DETAIL_PX))
    areas = None
    if table is None:
        areas = _try(notes, "Areas of classes", lambda: estimate_areas(facts, plane, DETAIL_PX))
    counted = table or areas
    what = "objects" if table is not None else "pixels of classes"
    shown = None
    if sight is not None:
        places = None if counted is None else counted.shown
        shown = _try(notes, "The pictures", lambda: draw_all(facts, sight, places, what))
    return _page(
        Content(facts, table, areas, sight, shown or ()), notes, stage_seconds(facts) if seconds is None else seconds
    )


def _try(notes: list[str], what: str, make: Callable[[], R]) -> R | None:
    """What can be made; else a note why not."""
    try:
        return make()
    except PipelineError as error:
        log.info("%s left out of the report", what, exc_info=error)
        notes.append(f"{what} could not be made: {error}")
        return None


def _page(content: Content, notes: list[str], seconds: Mapping[str, float]) -> str:
    facts = content.facts
    title = slide_name(facts)
    spans = file_spans(facts)
    has_image = content.sight is not None and content.sight.image is not None
    body = [
        tag(
            "header",
            _title(facts, title),
            _under(facts, spans[0].last_s if spans else None),
            tag("p", lead(content), class_="lead"),
        ),
        tiles(content),
        todo(missing(facts, has_image=has_image)),
        *(tag("p", note, class_="note") for note in notes),
        _section("How it looks", pictures(content)),
        _section("What was found", numbers(content)),
        density(content),
        _section("How long it took", times(spans, seconds)),
        _section("What made it", origin(facts)),
        _section("Open it", opening(facts)),
        _section("Make it again", again(facts)) if facts.record else "",
        tag("footer", f"segment-slide {code_version()}. Everything that this page shows is in this file."),
    ]
    head = [
        tag("meta", charset="utf-8"),
        trusted(_MARK),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · {facts.name}"),
        tag("style", trusted(STYLE)),
    ]
    page = tag("html", tag("head", *head), tag("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _section(title: str, content: Markup) -> Markup:
    return join(tag("h2", title), content) if content else content


def slide_name(facts: Facts) -> str:
    """What people call the slide: the file name of the image, or of the output where nothing tells of one."""
    path = str((facts.record.get("input") or {}).get("location") or facts.location)
    return path.rstrip("/").rpartition("/")[2].removesuffix(".zarr").removesuffix(".ome") or path


def _title(facts: Facts, title: str) -> Markup:
    if facts.is_complete:
        badge = tag("span", "complete", class_="badge good")
    else:
        done = (
            f"{facts.n_blocks_done:,} of {facts.n_blocks:,} blocks"
            if facts.n_blocks_done < facts.n_blocks
            else "pyramid"
        )
        badge = tag("span", f"not complete: {done}", class_="badge open")
    return tag("h1", title, badge)


def _under(facts: Facts, written_s: float | None) -> Markup:
    labels = facts.labels
    size = " × ".join(f"{labels.size(axis):,}" for axis in labels.axes)
    when = "" if written_s is None else f"segmented {show_date(written_s)} · "
    return tag("p", f"{when}{facts.name} · {size} px ({labels.axes}) · {facts.location}", class_="under")
