"""What the commands print of a night: what would be done, what is being done, what was done."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segment_slide.flows.nights.plan import Decision
from segment_slide.flows.nights.report import NightReport, NightRow, Outcome
from segment_slide.flows.progress import format_seconds
from segment_slide.flows.show.wording import in_options
from segment_slide.pipeline.blocks.memory import format_bytes

_COLOURS = {
    Outcome.SEGMENTED: "green",
    Outcome.FAILED: "yellow",
    Outcome.LEFT: "yellow",
    Outcome.SET_ASIDE: "red",
    Outcome.NEEDS_DECISION: "red",
}


def show_decisions(console: Console, decisions: Sequence[Decision]) -> None:
    """Print what a night would do."""
    table = _table("Acquisition", "Size", "Action", "Why")
    for decision in decisions:
        acquisition = decision.acquisition
        size = f"{format_bytes(acquisition.size_bytes)}, {acquisition.n_files} file(s)"
        table.add_row(escape(acquisition.name), size, str(decision.action), escape(in_options(decision.reason)))
    if decisions:
        console.print(table)
    n_work = sum(decision.is_work for decision in decisions)
    console.print(f"{len(decisions)} acquisition(s), {n_work} to segment. Nothing was changed.", highlight=False)


def show_begin(console: Console, decision: Decision) -> None:
    """Print which acquisition is segmented next."""
    console.print(
        f"[bold]{escape(decision.acquisition.name)}[/]: {escape(in_options(decision.reason))}",
        highlight=False,
        soft_wrap=True,
    )


def show_failure(console: Console, row: NightRow) -> None:
    """Print why an acquisition failed; successes are listed in the table at the end."""
    if row.outcome != Outcome.SEGMENTED:
        console.print(
            f"[bold red]{escape(row.name)}[/]: {row.outcome}: {escape(in_options(row.reason))}",
            highlight=False,
            soft_wrap=True,
        )


def show_night(console: Console, report: NightReport) -> None:
    """Print what a night did."""
    if report.skipped_because:
        console.print(f"Nothing was done: {escape(report.skipped_because)}.", highlight=False, soft_wrap=True)
        return
    table = _table("Acquisition", "Action", "Why", "Result")
    for row in report.rows:
        colour = _COLOURS.get(row.outcome, "dim")
        table.add_row(escape(row.name), str(row.action), escape(in_options(row.reason)), f"[{colour}]{_result(row)}[/]")
    if report.rows:
        console.print(table)
    counts = f"{report.n_segmented} segmented, {report.n_failed} failed, of {len(report.rows)} acquisition(s)"
    if report.newly_undecided:
        counts += f"; {len(report.newly_undecided)} need(s) a decision"
    console.print(f"[bold]{'Ended early' if report.ended_by else 'Done'}:[/] {counts}", highlight=False)
    small = [row.small.below_px for row in report.rows if row.small and row.small.n_small]
    if small:
        sizes = f"{min(small):,}" if min(small) == max(small) else f"{min(small):,} to {max(small):,}"
        console.print(
            f"[yellow]Note:[/] objects below {sizes} px are often noise. --min-size drops them in new results.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"Results: {escape(report.folder)}", highlight=False, soft_wrap=True)


def _result(row: NightRow) -> str:
    if row.outcome != Outcome.SEGMENTED:
        return str(row.outcome) if row.outcome != Outcome.SKIPPED else "-"
    small = "" if not (row.small and row.small.n_small) else f" ({row.small.share:.1%} < {row.small.below_px} px)"
    objects = "" if row.n_objects is None else f"{row.n_objects:,} objects{small}, "
    return f"{objects}{(row.n_pixels or 0) / 1e6:,.2f} Mpx in {format_seconds(row.seconds)}"


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")  # whole names and reasons, without ellipsis
    return table
