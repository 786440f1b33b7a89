"""Tables as CSV, which spreadsheets open: no text in them becomes a formula.

A spreadsheet takes a cell that begins with "=" for a formula, which can send the other cells to a web server. So such a
text gets an apostrophe before it. Only CSV has that: Parquet keeps names exactly, because tables are joined by them.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence

_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.ASCII)


def as_cell(value: object) -> object:
    """Make a cell: a text that a spreadsheet could compute gets an apostrophe; numbers stay as they are.

    >>> as_cell("=1+1"), as_cell("-1.5e-3"), as_cell("-a"), as_cell(-2), as_cell("a=b")
    ("'=1+1", '-1.5e-3', "'-a", -2, 'a=b')
    """
    if not isinstance(value, str) or not value.startswith(_SIGNS) or _NUMBER.fullmatch(value):
        return value
    return f"'{value}"


def make_csv(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Make the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(as_cell, header))
    writer.writerows(map(as_cell, row) for row in rows)
    return text.getvalue()
