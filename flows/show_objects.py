"""What is printed of objects."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from segment_slide.flows.progress import format_rate, format_seconds
from segment_slide.flows.show.info import show_how_to_look

if TYPE_CHECKING:
    from segment_slide.flows.instances import InstancesReport


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
    console.print(f"Instances: {escape(report.location)}/labels/{escape(report.name)}", highlight=False, soft_wrap=True)
    show_how_to_look(console, report.location)
