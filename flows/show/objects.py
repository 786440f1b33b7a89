"""What the commands print of a table of objects: counts and sizes per class, where it is, how to open it."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segment_slide.flows.progress import format_rate, format_seconds
from segment_slide.flows.show.tables import show_how_to_look
from segment_slide.pipeline.measurement.picture import number

if TYPE_CHECKING:
    from segment_slide.flows.measure import MeasureReport
    from segment_slide.pipeline.measurement.summary import ClassSummary
    from segment_slide.pipeline.objects.stages import InstancesReport
    from segment_slide.pipeline.statistics.object_sizes import SmallObjects


def show_measure(console: Console, report: "MeasureReport") -> None:
    """Print what a run measured and how to continue."""
    if report.n_blocks_done_before or report.n_parts_done_before:
        console.print(
            f"Went on: {report.n_blocks_done_before} blocks and {report.n_parts_done_before} of {report.n_parts} parts "
            f"of the table were already done."
        )
    console.print(_make_table(report))
    _show_small(console, report.summary.small)
    stages = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in report.stage_seconds.items())
    measured = f"shapes, and intensities of {', '.join(report.channels)}" if report.channels else "shapes only"
    lines = (
        f"[bold green]Done:[/] {report.n_objects:,} objects in {format_seconds(report.seconds)} ({stages})",
        f"Measured: {escape(measured)}",
        f"Table: {escape(report.table)}",
        f"Summary: {escape(report.page)}",
        f"Open it: {escape(f'pyarrow.parquet.read_table({report.table!r})')}",
    )
    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _make_table(report: "MeasureReport") -> Table:
    summary = report.summary
    table = Table(title="Objects", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("class")
    size = f"{summary.size_name} ({summary.size_unit})"
    for name in ("objects", f"per {summary.density_unit}", "covered", f"median {size}", "quartiles", "at the border"):
        table.add_column(name, justify="right")
    for found in summary.classes:
        table.add_row(*_cells(found))
    if len(summary.classes) != 1:
        table.add_row(*_cells(summary.all))
    return table


def _cells(found: "ClassSummary") -> tuple[str, ...]:
    low, median, high = map(number, found.quartiles)
    return (
        escape(found.name),
        f"{found.n_objects:,}",
        number(found.density),
        f"{found.covered:.2%}",
        median if found.n_objects else "",
        f"{low} – {high}" if found.n_objects else "",
        f"{found.n_at_border:,}",
    )


def _show_small(console: Console, small: "SmallObjects | None") -> None:
    """Print how many objects are small, and how to drop them."""
    if small is not None and small.n_small:
        console.print(
            f"[yellow]Note:[/] {small}, which is often noise. `--min-size {small.below_px}` of `segment-slide "
            f"instances` or `segment` drops them; choose another output for it, or delete the instances first.",
            highlight=False,
            soft_wrap=True,
        )


def show_instances(console: Console, report: "InstancesReport") -> None:
    """Print how many objects there are and where."""
    if report.n_done_before:
        console.print(f"Went on: {report.n_done_before} of {report.n_blocks} blocks were already done.")
    seconds = sum(report.stage_seconds.values())
    stages = ", ".join(f"{name} {format_seconds(value)}" for name, value in report.stage_seconds.items())
    console.print(
        f"[bold green]Done:[/] {report.n_objects:,} objects in {format_seconds(seconds)} ({stages}), "
        f"{format_rate(report.n_pixels / max(seconds, 1e-9))}",
        highlight=False,
    )
    if report.n_larger_than_halo:
        console.print(
            f"[yellow]Note:[/] {report.n_larger_than_halo:,} object(s) at block borders belong to clumps larger than "
            f"the halo; how these were split may depend on where blocks lie. A larger --split-halo sees them whole.",
            highlight=False,
        )
    if report.from_model:
        console.print(
            f"From the model: {', '.join(report.from_model)}. Choose others with --min-size and --split, or none with "
            f"--ignore-model-objects.",
            highlight=False,
            soft_wrap=True,
        )
    _show_small(console, report.small)
    console.print(f"Instances: {escape(report.location)}/labels/{escape(report.name)}", highlight=False, soft_wrap=True)
    show_how_to_look(console, report.location)
