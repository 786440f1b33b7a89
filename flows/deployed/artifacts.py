"""The only file that writes artifacts, names of runs and logs of Prefect: control characters in them become escapes."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from segment_slide.flows.show.safe_output import SafeRecord
from segment_slide.pipeline.plain_text import neutralise

# Prefect shows what all loggers of a run say, in the browser and in the terminal of whoever reads it there.
logging.setLogRecordFactory(SafeRecord)


def write_page(markdown: str, *, key: str, description: str) -> None:
    """Publish a page in Markdown."""
    create_markdown_artifact(in_unicode(markdown), key=key, description=in_unicode(description))


def write_table(rows: Sequence[Mapping[str, Any]], *, key: str, description: str) -> None:
    """Publish a table: each row maps the names of columns to values."""
    mended = [{name: in_unicode(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in rows]
    create_table_artifact(mended, key=key, description=in_unicode(description))


def write_progress(artifact: UUID | None, percent: float, description: str) -> UUID:
    """Publish progress; `artifact` is the one to update, if there is one."""
    if artifact is None:
        return cast(UUID, create_progress_artifact(percent, description=in_unicode(description)))
    update_progress_artifact(artifact, percent, description=in_unicode(description))
    return artifact


def in_unicode(text: str) -> str:
    r"""A text that Prefect's server takes: bytes of file names that are no text are written as escapes.

    >>> in_unicode("a\udce9b\x1b[2J")
    'a\\udce9b\\x1b[2J'
    """
    return neutralise(text).encode(errors="backslashreplace").decode()
