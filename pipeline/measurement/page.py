"""Summary of a table of objects as one HTML page: numbers, picture, columns, and how to open the table.

The page loads nothing from elsewhere. It holds no times and no paths, so equal tables give equal bytes.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from segment_slide.pipeline.documents.page import make_head
from segment_slide.pipeline.measurement.picture import describe, number
from segment_slide.pipeline.measurement.summary import ClassSummary, Summary
from segment_slide.pipeline.plain_text import neutralise
from segment_slide.pipeline.statistics.object_sizes import SmallObjects

if TYPE_CHECKING:
    import pyarrow as pa

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; } p.lead { color: #555; }
table { border-collapse: collapse; } th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #999; font-weight: 600; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
th.n { text-align: right; } tr.all td { border-top: 1px solid #ccc; font-weight: 600; }
img { max-width: 100%; } code, pre { background: #f4f4f4; padding: .1rem .3rem; border-radius: 3px; }
pre { padding: .7rem; overflow-x: auto; }
"""


def make_page(summary: Summary, title: str, picture: bytes, schema: "pa.Schema", folder: str) -> str:
    """The page as HTML.

    Parameters
    ----------
    summary : Summary
        Numbers to show.
    title : str
        Title of the page, which says what was measured.
    picture : bytes
        PNG of `pipeline.measurement.picture.draw_summary`.
    schema : pyarrow.Schema
        Schema of the table: names, types and units of columns.
    folder : str
        Name of the table's folder, which is beside the page.
    """
    image = base64.b64encode(picture).decode()
    columns = [
        (field.name, _name_type(str(field.type)), (field.metadata or {}).get(b"unit", b"").decode()) for field in schema
    ]
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lead">{html.escape(describe(summary))}</p>',
        _class_table(summary),
        *([f"<p>{html.escape(on_small(summary.small))}</p>"] if summary.small.n_small else []),
        f'<p><img alt="Objects per class, and sizes of objects" src="data:image/png;base64,{image}"></p>',
        "<h2>The table</h2>",
        f"<p>One row per object, in <code>{html.escape(folder)}</code> beside this page:</p>",
        f"<pre>import pyarrow.parquet\ntable = pyarrow.parquet.read_table({html.escape(repr(folder))})</pre>",
        "<p>With pandas (<code>pip install pandas</code>), <code>table.to_pandas()</code> makes a data frame.</p>",
        _rows(("column", "type", "unit"), columns, n_words=3),
    ]
    head = make_head(title, style=_STYLE)
    page = "\n".join(['<!doctype html><html lang="en"><head>', head, "</head><body>", *body, "</body></html>", ""])
    return neutralise(page)  # names of classes come from files


def on_small(small: SmallObjects) -> str:
    """What small objects are, and how to drop them."""
    return (
        f"{small}. That is fewer than {small.below_px} pixels: less than a tenth of the usual object, or less than a "
        f"network can tell from noise. To drop them, number the objects with a smallest size (min-size) of "
        f"{small.below_px}."
    )


def _name_type(arrow: str) -> str:
    return "string" if arrow.startswith("dictionary") else arrow


def class_rows(summary: Summary) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column headings, and the cells of each class. If there is not exactly one class, a row of all objects follows."""
    names = (
        "class",
        "objects",
        f"per {summary.density_unit}",
        "covered",
        f"median {summary.size_name} ({summary.size_unit})",
        "quartiles",
        "at the image border",
    )
    rows = [_cells(found) for found in summary.classes]
    return names, [*rows, _cells(summary.all)] if len(rows) != 1 else rows


def _class_table(summary: Summary) -> str:
    return _rows(*class_rows(summary), n_words=1, has_total=len(summary.classes) > 1)


def _cells(found: ClassSummary) -> tuple[str, ...]:
    low, median, high = map(number, found.quartiles)
    return (
        found.name,
        f"{found.n_objects:,}",
        number(found.density),
        f"{found.covered:.2%}",
        median if found.n_objects else "",
        f"{low} – {high}" if found.n_objects else "",
        f"{found.n_at_border:,}",
    )


def _rows(names: Sequence[str], rows: Iterable[Sequence[str]], *, n_words: int, has_total: bool = False) -> str:
    """An HTML table whose first columns are words and all others numbers."""
    content = list(rows)
    lines = ["<table>", _row("th", names, n_words)]
    lines += [_row("td", row, n_words, is_total=has_total and row is content[-1]) for row in content]
    return "\n".join([*lines, "</table>"])


def _row(tag: str, cells: Sequence[str], n_words: int, *, is_total: bool = False) -> str:
    kinds = ["" if place < n_words else ' class="n"' for place in range(len(cells))]
    inner = [f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)]
    return "".join(['<tr class="all">' if is_total else "<tr>", *inner, "</tr>"])
