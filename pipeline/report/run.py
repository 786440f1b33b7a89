"""A segmentation in one page: what was found, how it looks, how long it took, what made it, how to make it again.

The report is one HTML file that holds everything: it can be opened from a disk and printed, and it asks no other host
for anything. Equal outputs (whose files also have equal times) give equal bytes.

::

    facts      what lies in the output, from metadata       views     which parts are shown
    table      the table of objects, part by part           pictures  how they are drawn
    estimate   classes on a coarse level, without a table   plots     histograms and the map of densities
    times      when files were written                      sections, origin  what is said
    target     where the page goes
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from segment_slide.pipeline.documents.page import make_head
from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.report.estimate import estimate_areas
from segment_slide.pipeline.report.facts import Facts, choose_name, gather
from segment_slide.pipeline.report.html import Markup, count, join, tag, trusted
from segment_slide.pipeline.report.origin import again, missing, opening, origin, times, todo
from segment_slide.pipeline.report.sections import Content, density, lead, numbers, pictures, tiles
from segment_slide.pipeline.report.small import small_objects
from segment_slide.pipeline.report.style import STYLE
from segment_slide.pipeline.report.table import describe_table
from segment_slide.pipeline.report.target import MARK, check_target, report_path, save
from segment_slide.pipeline.report.times import file_spans, show_date, stage_seconds
from segment_slide.pipeline.report.views import DETAIL_PX, Sight, draw_all, look
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.names import find_location
from segment_slide.pipeline.storage.record import code_version

R = TypeVar("R")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """A report that was written: where, and how large it is."""

    path: str
    n_bytes: int


def write_report(
    location: str,
    name: str | None = None,
    path: str | None = None,
    *,
    seconds: Mapping[str, float] | None = None,
    image: str | None = None,
) -> Written:
    """Write the report of an output.

    Parameters
    ----------
    location : str
        OME-Zarr output of a segmentation; path or URL. It is only read.
    name : str, optional
        Its label image; by default the one that the output shows.
    path : str, optional
        File or URL to write; by default beside the output (`report_path`).
    seconds : mapping, optional
        Wall time per stage, if a run has just measured it.
    image : str, optional
        The image to show, instead of the recorded one.

    Returns
    -------
    Written
        The file.

    Raises
    ------
    InputError
        If there is no segmentation.
    OutputError
        If the file cannot be written, or exists and is not a report of ours.
    """
    name = choose_name(location, name)
    location = store.resolve_location(location)
    target = report_path(location, name) if path is None else store.resolve_location(path)
    check_target(target)
    content = make_report(location, name, seconds=seconds, image=image).encode(errors="backslashreplace")
    save(target, content)
    return Written(target, len(content))


def make_report(
    location: str, name: str, *, seconds: Mapping[str, float] | None = None, image: str | None = None
) -> str:
    """Make the HTML page of a label image. What cannot be read is left out, and the page says so.

    Reads metadata, the table of objects, one coarse level of image and labels, and a few chunks of finer ones.

    Raises
    ------
    InputError
        If there is no segmentation.
    """
    facts = gather(location, name)
    notes = [*_notes_on_intensities(facts), *facts.objects.notes]
    sight = _try(notes, "The pictures", lambda: look(facts, notes, image))
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
        shown = _try(notes, "The pictures", lambda: draw_all(facts, sight, places, what, notes))
        notes += _notes_on_image(facts, sight)
    return _page(
        Content(facts, table, areas, sight, shown or ()), notes, stage_seconds(facts) if seconds is None else seconds
    )


def _notes_on_intensities(facts: Facts) -> list[str]:
    """What looked unlike the training images when the image was segmented."""
    used = facts.record and facts.record.normalisation
    return [f"Compared with the training images: {note}." for note in used.notes] if used else []


def _notes_on_image(facts: Facts, sight: Sight) -> list[str]:
    """Whether the image is still the one that was segmented, as far as its files tell."""
    recorded = facts.record and facts.record.input and facts.record.input.fingerprint
    if sight.image is None or not recorded:
        return []
    try:
        if fingerprint(sight.image.base, recorded) == recorded:
            return []
    except Exception as error:  # fsspec back ends raise classes of their own
        log.info("the image's files could not be listed", exc_info=error)
        return []
    return ["The image has other files than the one that was segmented: it was copied, repaired, or is another one."]


def _try(notes: list[str], what: str, make: Callable[[], R]) -> R | None:
    """Call a function; if it fails, add a note with the reason and return None."""
    try:
        return make()
    except PipelineError as error:
        log.info("%s left out of the report", what, exc_info=error)
        notes.append(f"{what} could not be made: {error}")
        return None


def _page(content: Content, notes: list[str], seconds: Mapping[str, float]) -> str:
    facts = content.facts
    title = slide_name(facts)
    spans = _try(notes, "Times of files", lambda: file_spans(facts)) or []
    has_image = content.sight is not None and content.sight.image is not None
    small = content.table.summary.small if content.table else None
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
        _section("What was found", join(numbers(content), small_objects(facts, small))),
        density(content),
        _section("How long it took", times(spans, seconds)),
        _section("What made it", origin(facts)),
        _section("Open it", opening(facts)),
        _section("Make it again", again(facts)) if facts.record else "",
        tag("footer", f"segment-slide {code_version()}. Everything that this page shows is in this file."),
    ]
    more = join(
        trusted(MARK),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
    )
    head = trusted(make_head(f"{title} · {facts.name}", style=STYLE, more=more))
    page = tag("html", tag("head", head), tag("body", *body), lang="en")
    return f"<!doctype html>\n{page}\n"


def _section(title: str, content: Markup) -> Markup:
    return join(tag("h2", title), content) if content else content


def slide_name(facts: Facts) -> str:
    """What people call the slide: the file name of the image, or of the output where nothing tells of one."""
    recorded = facts.record and facts.record.input and facts.record.input.location
    path = find_location(recorded or "", facts.location) or facts.location
    return path.rstrip("/").rpartition("/")[2].removesuffix(".zarr").removesuffix(".ome") or path


def _title(facts: Facts, title: str) -> Markup:
    if not facts.record:  # without a record the number of blocks is unknown
        return tag("h1", title)
    if facts.is_complete:
        there = ["classes", *(["objects"] if facts.instances else []), *(["table"] if facts.has_table else [])]
        text = "complete" if facts.has_table else f"{' and '.join(there)} complete"
        return tag("h1", title, tag("span", text, class_="badge good"))
    is_open = facts.n_blocks_done < facts.n_blocks
    done = f"{facts.n_blocks_done:,} of {count(facts.n_blocks, 'block')}" if is_open else "pyramid"
    return tag("h1", title, tag("span", f"not complete: {done}", class_="badge open"))


def _under(facts: Facts, written_s: float | None) -> Markup:
    labels = facts.labels
    size = " × ".join(f"{labels.size(axis):,}" for axis in labels.axes)
    when = "" if written_s is None else f"files of {show_date(written_s)} · "
    return tag("p", f"{when}{facts.name} · {size} px ({labels.axes}) · {facts.location}", class_="under")
