"""What a finished run shows in Prefect: a page in Markdown with a picture, kept as an artifact."""

import base64
import io
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from flows.deployed.operate import last_name
from flows.progress import format_rate, format_seconds
from flows.slide import SlideReport, SlideRequest
from pipeline.measure_picture import describe
from pipeline.thumbnail import draw_thumbnail

log = logging.getLogger(__name__)

_PICTURE_PX = 512  # per panel; the picture is kept in the database of the server


def publish_slide(request: SlideRequest, report: SlideReport) -> None:
    """Keep the page of a segmented slide as an artifact, under the name of its output."""
    create_markdown_artifact(
        markdown=describe_slide(request, report),
        key=artifact_key(report.segmented.location),
        description=f"Segmentation of {request.segment.input}",
    )


def publish_rows(location: str, title: str, rows: Mapping[str, str], *, picture: Path | None = None) -> None:
    """Keep what a training stage made as an artifact, with the picture that it drew."""
    parts = [f"# {title}", _table(("", ""), rows.items())]
    if picture is not None and picture.is_file():
        parts.insert(1, _embed(picture.read_bytes(), title))
    create_markdown_artifact(markdown="\n\n".join(parts), key=artifact_key(location), description=title)


def artifact_key(location: str) -> str:
    """A name that Prefect allows: lower case letters, digits and dashes.

    >>> artifact_key("/data/out/Slide_3 (a).ome.zarr")
    'slide-3-a'
    """
    name = last_name(location).removesuffix(".zarr").removesuffix(".ome")
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "slide"


def describe_slide(request: SlideRequest, report: SlideReport) -> str:
    """The page: what was done, what was found, how it looks, how to open it."""
    segment, done = request.segment, report.segmented
    before = f", {done.n_done_before:,} of them from before" if done.n_done_before else ""
    rows = {"input": f"`{segment.input}`"}
    if report.converted is not None:
        rows["converted to"] = f"`{report.converted.location}`"
    rows |= {
        "model": f"`{segment.model}`",
        "output": f"`{done.location}`",
        "label image": f"`labels/{done.name}`",
        "blocks": f"{done.n_blocks:,}{before}",
        "speed": f"{format_rate(done.pixels_per_s)} while segmenting" if done.n_pixels else "nothing was left to do",
    }
    if report.numbered is not None:
        rows["objects"] = f"{report.numbered.n_objects:,}"
    if report.measured is not None:
        rows["found"] = describe(report.measured.summary)
        rows |= {"table": f"`{report.measured.table}`", "page": f"`{report.measured.page}`"}
    rows["time"] = format_seconds(sum(report.stage_seconds.values()))
    return "\n\n".join(
        (
            f"# {last_name(segment.input)}",
            _picture(done.location, done.name),
            _table(("", ""), rows.items()),
            "## Time by stage",
            _table(("stage", "time"), ((name, format_seconds(s)) for name, s in report.stage_seconds.items())),
            "## Look at it",
            f"`napari {done.location}` (with the plugin napari-ome-zarr), or in Python:",
            f"```python\nimport zarr\nlabels = zarr.open('{done.location}')['labels/{done.name}/0']\n```",
        )
    )


def _picture(location: str, name: str) -> str:
    """The segmentation over the image, inside the page: a browser needs no other server for it."""
    try:
        picture = draw_thumbnail(location, name, side_px=_PICTURE_PX)
    except Exception as error:
        log.warning("the output's picture cannot be drawn", exc_info=error)
        return f"(no picture: {error})"
    return _embed(picture, "Segmentation")


def _embed(png: bytes, title: str) -> str:
    """As 256 colours: a photograph as 24-bit PNG takes three times the bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(file, format="PNG", optimize=True)
    return f"![{title}](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})"


def _table(names: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {names[0]} | {names[1]} |", "|---|---|"]
    lines += [f"| {cell(name)} | {cell(value)} |" for name, value in rows]
    return "\n".join(lines)


def cell(text: str) -> str:
    """A text that stays in its cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
