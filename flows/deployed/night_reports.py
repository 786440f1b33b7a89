"""What a night shows in Prefect: a table of all acquisitions, and a summary for the morning."""

from collections.abc import Iterable, Sequence

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.deployed.reports import artifact_key, cell
from flows.night_report import NightReport, NightRow, Outcome
from flows.plan_night import Action, Decision
from flows.progress import format_bytes, format_seconds


def publish_decisions(decisions: Sequence[Decision], watch: str) -> None:
    """Keep what a night would do as a table."""
    rows = [
        {
            "acquisition": decision.acquisition.name,
            "action": str(decision.action),
            "why": decision.reason,
            "size": format_bytes(decision.acquisition.size_bytes),
            "output": decision.output,
        }
        for decision in decisions
    ]
    create_table_artifact(rows, key=f"plan-{artifact_key(watch)}", description=f"What a night would do in {watch}")


def publish_night(report: NightReport, watch: str) -> None:
    """Keep what a night did: all of it as a table, what matters in the morning as a page."""
    name = artifact_key(watch)
    create_table_artifact(
        [_table_row(row) for row in report.rows], key=f"night-{name}", description=f"All acquisitions in {watch}"
    )
    create_markdown_artifact(
        describe_night(report, watch), key=f"morning-{name}", description=f"The night in {watch}: {summarise(report)}"
    )


def summarise(report: NightReport) -> str:
    """A night in a sentence.

    >>> summarise(NightReport(skipped_because="another night is at work in /out"))
    'nothing was done: another night is at work in /out'
    """
    if report.skipped_because:
        return f"nothing was done: {report.skipped_because}"
    text = f"{report.n_segmented} segmented, {report.n_failed} failed"
    aside = sum(row.action == Action.SET_ASIDE for row in report.rows)
    growing = sum(row.action == Action.GROWING for row in report.rows)
    if growing:
        text += f", {growing} still growing"
    if aside:
        text += f", {aside} set aside before"
    failed = [row.name for row in report.rows if row.outcome in (Outcome.FAILED, Outcome.SET_ASIDE)]
    return f"{text}: look at {', '.join(failed)}" if failed else text


def describe_night(report: NightReport, watch: str) -> str:
    """The page for the morning: what somebody has to act on first."""
    parts = [f"# New in `{watch}`", f"**{summarise(report)}**"]
    if report.skipped_because:
        return "\n\n".join(parts)
    failed = [row for row in report.rows if row.outcome in (Outcome.FAILED, Outcome.SET_ASIDE)]
    before = [row for row in report.rows if row.action == Action.SET_ASIDE]
    done = [row for row in report.rows if row.outcome == Outcome.SEGMENTED]
    waiting = [row for row in report.rows if row.action in (Action.GROWING, Action.REFUSED, Action.TOO_OLD)]
    waiting += [row for row in report.rows if row.outcome == Outcome.LEFT]
    for title, rows in (("Failed in this night", failed), ("Set aside before", before), ("Not yet", waiting)):
        if rows:
            parts += [f"## {title}", _list(rows)]
    if done:
        parts += ["## Segmented", _done_table(done)]
    return "\n\n".join([*parts, f"Results: `{report.folder}`"])


def _list(rows: Iterable[NightRow]) -> str:
    return "\n".join(f"- `{row.name}`: {cell(row.reason)}" for row in rows)


def _done_table(rows: Iterable[NightRow]) -> str:
    lines = ["| acquisition | objects | Mpx | time |", "|---|--:|--:|--:|"]
    for row in rows:
        objects = "" if row.n_objects is None else f"{row.n_objects:,}"
        pixels = f"{(row.n_pixels or 0) / 1e6:,.1f}"
        lines.append(f"| {cell(row.name)} | {objects} | {pixels} | {format_seconds(row.seconds)} |")
    return "\n".join(lines)


def _table_row(row: NightRow) -> dict[str, str | int | float | None]:
    return {
        "acquisition": row.name,
        "planned": str(row.action),
        "result": str(row.outcome),
        "why": row.reason,
        "seconds": round(row.seconds, 1),
        "objects": row.n_objects,
        "pixels": row.n_pixels,
        "output": row.output,
    }
