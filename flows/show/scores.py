"""Scores as a table for people, and as JSON and CSV for programs; all three come from one list of rows."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segment_slide.flows.progress import format_seconds
from segment_slide.flows.show.wording import in_options
from segment_slide.pipeline.documents.csv_table import make_csv
from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.training.pairing import describe_pairs

if TYPE_CHECKING:
    from segment_slide.flows.evaluate import EvaluateReport, ObjectReport
    from segment_slide.pipeline.scoring.membrane_scores import MembraneScores
    from segment_slide.pipeline.scoring.pixel_scores import Confusion

_COLUMNS = ("score", "of", "value")


@dataclass(frozen=True)
class ScoreRow:
    """One score: its name, what it refers to ("class 1", "IoU > 0.5", "threshold 0.4", or all), its value."""

    score: str
    of: str
    value: float


def score_rows(report: "EvaluateReport") -> list[ScoreRow]:
    """All scores of a report, the most informative first."""
    rows: list[ScoreRow] = []
    if report.classes is not None:
        rows += _class_rows(report.classes)
    if report.objects is not None:
        rows += _object_rows(report.objects)
    if report.membranes is not None:
        rows += _membrane_rows(report.membranes)
    return rows


def _class_rows(confusion: "Confusion") -> Iterator[ScoreRow]:
    yield ScoreRow("accuracy", "all", confusion.accuracy)
    yield ScoreRow("pixel error", "all", confusion.pixel_error)
    yield ScoreRow("mean IoU", "all", confusion.mean_iou)
    yield ScoreRow("mean Dice", "all", confusion.mean_dice)
    for found in confusion.classes():
        yield ScoreRow("IoU", f"class {found.value}", found.iou)
        yield ScoreRow("Dice", f"class {found.value}", found.dice)


def _object_rows(objects: "ObjectReport") -> Iterator[ScoreRow]:
    yield ScoreRow("true objects", "all", objects.n_truth)
    yield ScoreRow("found objects", "all", objects.n_predicted)
    yield ScoreRow("SEG", "all", objects.seg)
    yield ScoreRow("mean AP", "all", objects.mean_average_precision)
    for found in objects.matches:
        of = f"IoU > {found.iou:g}"
        yield ScoreRow("F1", of, found.f1)
        yield ScoreRow("precision", of, found.precision)
        yield ScoreRow("recall", of, found.recall)
        yield ScoreRow("AP", of, found.average_precision)
        if found.n_touching:
            yield ScoreRow("recall of touching objects", of, found.touching_recall)
    yield ScoreRow("Rand error", "all", objects.rand.error)
    yield ScoreRow("Rand F-score", "all", objects.rand.f_score)
    yield ScoreRow("V_Rand (not thinned)", "all", objects.rand.v_rand)
    yield ScoreRow("V_Info (not thinned)", "all", objects.rand.v_info)


_MEMBRANE_NAMES = {
    "pixel_error": "pixel error",
    "rand_error": "Rand error",
    "warping_error": "warping error",
    "rand_f_score": "Rand F-score",
    "v_rand": "V_Rand (thinned)",
    "v_info": "V_Info (thinned)",
}


def _membrane_rows(membranes: "MembraneScores") -> Iterator[ScoreRow]:
    for field in fields(membranes):
        best = getattr(membranes, field.name)
        yield ScoreRow(_MEMBRANE_NAMES[field.name], f"threshold {best.threshold:g}", best.value)


def show_scores(console: Console, report: "EvaluateReport") -> None:
    """Print the scores as a table, with notes below."""
    table = Table(title=f"Scores ({report.request.kind})", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("score")
    table.add_column("of")
    table.add_column("value", justify="right")
    for row in score_rows(report):
        table.add_row(escape(row.score), escape(row.of), _format(row.value))
    console.print(table)
    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(in_options(note))}", highlight=False)
    if report.pairs:
        pairs = describe_pairs(report.pairs)
        console.print(f"Pairs: {escape(pairs)}", highlight=False, soft_wrap=True)
    sizes = " x ".join(f"{size:,}" for size in report.shape)
    console.print(
        f"{escape(report.request.predicted)} against {escape(report.request.truth)}: {sizes} px, "
        f"{report.n_pixels:,} compared, {format_seconds(report.seconds)}",
        highlight=False,
        soft_wrap=True,
    )


def _format(value: float) -> str:
    """Format a number: counts as whole numbers; small errors keep their digits.

    >>> _format(12345), _format(0.5), _format(0.000353)
    ('12,345', '0.5000', '0.000353')
    """
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.6f}"


def write_json(report: "EvaluateReport", path: str | Path) -> None:
    """Write the compared images, the notes, and all scores at full precision.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    content = {
        "request": asdict(report.request),
        "shape": list(report.shape),
        "n_pixels": report.n_pixels,
        "notes": list(report.notes),
        "pairs": [list(pair) for pair in report.pairs],
        "scores": [asdict(row) for row in score_rows(report)],
    }
    _write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(report: "EvaluateReport", path: str | Path) -> None:
    """Write one line per score: score, of, value.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    _write(path, make_csv(_COLUMNS, ((row.score, row.of, row.value) for row in score_rows(report))))


def _write(path: str | Path, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(f"output={path} cannot be written: {error}") from error
