"""The reports of a nightly run in Prefect: a table of all acquisitions, and a summary page for the morning."""

from collections.abc import Sequence

from segment_slide.flows.deployed.artifacts import write_page, write_table
from segment_slide.flows.deployed.reports import artifact_key, at_best, code, plain
from segment_slide.flows.nights.plan import UNDECIDED, Action, Decision
from segment_slide.flows.nights.report import NightReport, NightRow, Outcome
from segment_slide.flows.progress import format_seconds
from segment_slide.pipeline.blocks.memory import format_bytes

_NAMES, _ROWS, _REASON_LETTERS = 5, 100, 500  # limits of the page, so that people can read it; the table has no limits


def publish_decisions(decisions: Sequence[Decision], watch: str) -> None:
    """Publish what a nightly run would do as a table."""
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
    write_table(rows, key=f"plan-{artifact_key(watch)}", description=f"What a night would do in {code(watch)}")


def publish_night(report: NightReport, watch: str) -> None:
    """Publish what a nightly run did: all of it as a table, and what matters in the morning as a page."""
    name, rows, page = artifact_key(watch), [_table_row(row) for row in report.rows], describe_night(report, watch)
    about = f"The night in {code(watch)}: {plain(summarise(report))}"
    everything = f"All acquisitions in {code(watch)}"
    at_best("the table", lambda: write_table(rows, key=f"night-{name}", description=everything))
    at_best("the page", lambda: write_page(page, key=f"morning-{name}", description=about))


def summarise(report: NightReport) -> str:
    """Summarise a nightly run in one sentence.

    >>> summarise(NightReport(skipped_because="another night is at work in /out"))
    'nothing was done: another night is at work in /out'
    """
    if report.skipped_because:
        return f"nothing was done: {report.skipped_because}"
    counts = {
        "still growing": sum(row.action == Action.GROWING for row in report.rows),
        "set aside before": sum(row.action == Action.SET_ASIDE for row in report.rows),
        "to be decided": sum(row.action in UNDECIDED for row in report.rows),
    }
    text = f"{report.n_segmented} segmented, {report.n_failed} failed"
    text += "".join(f", {count} {what}" for what, count in counts.items() if count)
    if report.ended_by:
        text = f"ended before its end, {text}"
    seen = (Outcome.FAILED, Outcome.SET_ASIDE, Outcome.NEEDS_DECISION)
    names = [row.name for row in report.rows if row.outcome in seen]
    return f"{text}: look at {_some(names)}" if names else text


def _some(names: Sequence[str]) -> str:
    """List the first names and the number of the others."""
    more = len(names) - _NAMES
    return f"{', '.join(names[:_NAMES])} and {more:,} more" if more > 0 else ", ".join(names)


def describe_night(report: NightReport, watch: str) -> str:
    """Write the page for the morning. What needs action comes first."""
    parts = [f"# New in {code(watch)}", f"**{plain(summarise(report))}**"]
    if report.skipped_because:
        return "\n\n".join(parts)
    if report.ended_by:
        parts.append(f"The night was ended by: {_reason(report.ended_by)}")
    sections = {
        "Failed in this night": [row for row in report.rows if row.outcome in (Outcome.FAILED, Outcome.SET_ASIDE)],
        "Needs a decision": [row for row in report.rows if row.action in UNDECIDED],
        "Set aside before": [row for row in report.rows if row.action == Action.SET_ASIDE],
        "Not yet": [row for row in report.rows if _is_waiting(row)],
    }
    for title, rows in sections.items():
        if rows:
            parts += [f"## {title}", _list(rows)]
    done = [row for row in report.rows if row.outcome == Outcome.SEGMENTED]
    if done:
        parts += ["## Segmented", _done_table(done)]
    if any(map(_small, done)):
        parts.append("Small objects are often noise. `min_size` of the deployment drops them in new results.")
    return "\n\n".join([*parts, f"Results: {code(report.folder)}"])


def _is_waiting(row: NightRow) -> bool:
    return row.action in (Action.GROWING, Action.TOO_OLD) or row.outcome == Outcome.LEFT


def _list(rows: Sequence[NightRow]) -> str:
    lines = [f"- {code(row.name)}: {_reason(row.reason)}" for row in rows[:_ROWS]]
    more = len(rows) - _ROWS
    return "\n".join([*lines, f"- and {more:,} more (see the table)"] if more > 0 else lines)


def _reason(text: str) -> str:
    return plain(text if len(text) <= _REASON_LETTERS else f"{text[:_REASON_LETTERS]} …")


def _done_table(rows: Sequence[NightRow]) -> str:
    lines = ["| acquisition | objects | small objects | Mpx | time | report |", "|---|--:|--:|--:|--:|---|"]
    for row in rows[:_ROWS]:
        objects = "" if row.n_objects is None else f"{row.n_objects:,}"
        pixels = f"{(row.n_pixels or 0) / 1e6:,.1f}"
        cells = (code(row.name), objects, _small(row), pixels, format_seconds(row.seconds), _page(row))
        lines.append(f"| {' | '.join(cells)} |")
    more = len(rows) - _ROWS
    return "\n".join(lines) + (f"\n\nand {more:,} more (see the table)" if more > 0 else "")


def _small(row: NightRow) -> str:
    """The share of small objects, if there are any."""
    small = row.small
    return f"{small.share:.1%} (below {small.below_px} px)" if small is not None and small.n_small else ""


def _page(row: NightRow) -> str:
    return code(row.page) if row.page else ""


def _table_row(row: NightRow) -> dict[str, str | int | float | None]:
    return {
        "acquisition": row.name,
        "planned": str(row.action),
        "result": str(row.outcome),
        "why": row.reason,
        "seconds": round(row.seconds, 1),
        "objects": row.n_objects,
        "small objects": _small(row),
        "pixels": row.n_pixels,
        "output": row.output,
        "report": row.page,
    }
