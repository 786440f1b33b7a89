"""The report of a finished run in Prefect: a page in Markdown with a picture, published as an artifact."""

import base64
import hashlib
import html
import io
import logging
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from segment_slide.flows.deployed.artifacts import in_unicode, write_page
from segment_slide.flows.deployed.operate import last_name
from segment_slide.flows.progress import format_rate, format_seconds
from segment_slide.flows.requests import SlideRequest
from segment_slide.flows.show.tables import view_command
from segment_slide.flows.slide import SlideReport, naming_places
from segment_slide.pipeline.measurement.picture import describe
from segment_slide.pipeline.pictures.thumbnail import draw_thumbnail

R = TypeVar("R")

log = logging.getLogger(__name__)

_PICTURE_PX = 512  # per panel; small, because the server stores the picture in its database


def publish_slide(request: SlideRequest, report: SlideReport) -> None:
    """Publish the page of a segmented slide as an artifact, under the name of its output."""
    with naming_places(request):  # for the picture
        markdown, key = describe_slide(request, report), artifact_key(report.segmented.location)
    description = f"Segmentation of {in_unicode(request.segment.input)}"
    at_best("the report", lambda: write_page(markdown, key=key, description=description))


def publish_rows(location: str, title: str, rows: Mapping[str, str], *, picture: Path | None = None) -> None:
    """Publish the result of a training stage as an artifact, with the picture that the stage drew."""
    parts = [f"# {title}", _table(("", ""), ((name, plain(value)) for name, value in rows.items()))]
    if picture is not None and picture.is_file():
        parts.insert(1, _embed(picture.read_bytes(), title))
    markdown, key = "\n\n".join(parts), artifact_key(location)
    at_best("the report", lambda: write_page(markdown, key=key, description=title))


def at_best(what: str, make: Callable[[], R]) -> R | None:
    """Make something that may fail: hours of work are not given up for a page. Log the error and return None then."""
    try:
        return make()
    except Exception as error:
        log.warning("%s could not be made: %s", what, error, exc_info=error)
        return None


def artifact_key(location: str) -> str:
    """Make a name that Prefect allows (lower case letters, digits and dashes), unique for each location.

    >>> artifact_key("/data/out/Slide_3 (a).ome.zarr")
    'slide-3-a-71eacc'
    """
    name = last_name(location).removesuffix(".zarr").removesuffix(".ome")
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "slide"
    return f"{readable}-{hashlib.sha256(location.encode(errors='surrogateescape')).hexdigest()[:6]}"


def describe_slide(request: SlideRequest, report: SlideReport) -> str:
    """Write the page: what was done, what was found, a picture, and how to open the output."""
    segment, done = request.segment, report.segmented
    before = f", {done.n_done_before:,} of them from before" if done.n_done_before else ""
    rows = {"input": code(segment.input)}
    if report.converted is not None:
        rows["converted to"] = code(report.converted.location)
    rows |= {
        "model": code(segment.model),
        "output": code(done.location),
        "label image": code(f"labels/{done.name}"),
        "blocks": f"{done.n_blocks:,}{before}",
        "speed": f"{format_rate(done.pixels_per_s)} while segmenting" if done.n_pixels else "nothing was left to do",
    }
    if report.numbered is not None:
        rows["objects"] = f"{report.numbered.n_objects:,}"
        if report.numbered.from_model:
            rows["from the model"] = plain(", ".join(report.numbered.from_model))
        if report.small is not None and report.small.n_small:
            rows["small objects"] = f"{report.small}; min_size={report.small.below_px} drops them"
    if report.measured is not None:
        rows["found"] = plain(describe(report.measured.summary))
        rows |= {"table": code(report.measured.table), "page": code(report.measured.page)}
    if report.page:
        rows["report"] = code(report.page)
    rows["time"] = format_seconds(sum(report.stage_seconds.values()))
    in_napari = f"napari --plugin napari-ome-zarr {shlex.quote(done.location)}"
    array = f"{done.location}/labels/{done.name}/0"
    return "\n\n".join(
        (
            f"# {plain(last_name(segment.input))}",
            _picture(done.location, done.name),
            _table(("", ""), rows.items()),
            "## Time by stage",
            _table(("stage", "time"), ((name, format_seconds(s)) for name, s in report.stage_seconds.items())),
            "## Look at it",
            fenced(f"{view_command(done.location)}\n{in_napari}", "sh"),
            fenced(f"import zarr\nlabels = zarr.open({array!r})", "python"),
        )
    )


def _picture(location: str, name: str) -> str:
    """Draw the segmentation over the image. The picture is inside the page, so a browser needs no other server."""
    picture = at_best("the picture", lambda: draw_thumbnail(location, name, side_px=_PICTURE_PX))
    return "(no picture: the log says why)" if picture is None else _embed(picture, "Segmentation")


def _embed(png: bytes, title: str) -> str:
    """Embed a picture with 256 colours: as 24-bit PNG a photograph takes three times the bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(file, format="PNG", optimize=True)
    return f"![{title}](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})"


def _table(names: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {names[0]} | {names[1]} |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    return "\n".join(lines)


def fenced(text: str, language: str) -> str:
    """Format lines as code in Markdown. No name in them can end the block: its fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{in_unicode(text)}\n{fence}"


def code(text: str) -> str:
    r"""Format a text as code in Markdown, also inside a table. The text may hold any characters, as paths do.

    >>> code("/data/a`b|c.tif")
    '``/data/a`b\\|c.tif``'
    """
    text = " ".join(in_unicode(text).split("\n")).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def plain(text: str) -> str:
    r"""Escape all Markdown and HTML in a text: names and errors may hold any characters.

    >>> print(plain("a|b <img> ![x]"))
    a\|b &lt;img&gt; \!\[x\]
    """
    escaped = html.escape(" ".join(in_unicode(text).split("\n")), quote=False)
    return re.sub(r"([\\`*_{}\[\]()!|~])", r"\\\1", escaped)
