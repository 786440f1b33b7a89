"""What `verify` prints: what was read, what is wrong, and which command makes it again."""

import shlex
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from segment_slide.flows.show.wording import in_options
from segment_slide.pipeline.blocks.memory import format_bytes
from segment_slide.pipeline.integrity.finding import Fault, Finding, Stage

if TYPE_CHECKING:
    from segment_slide.flows.integrity.verify import Verified
    from segment_slide.pipeline.integrity.run import Report

_SHOWN = 50  # findings
_REPAIRED = (Stage.INGEST, Stage.SEGMENT, Stage.INSTANCES, Stage.MEASURE)


def show_verified(console: Console, verified: "Verified") -> None:
    """Print the result of a verification, and of a repair."""
    report, before = verified.report, verified.before
    for note in report.notes:
        console.print(
            f"[yellow]Note:[/] {escape(note.where)}: {escape(note.sentence)}", highlight=False, soft_wrap=True
        )
    if before is not None:
        n_mended = len({finding.path for finding in before.findings} - {finding.path for finding in report.findings})
        console.print(f"Repaired: {n_mended} of {len({f.path for f in before.findings})} files", highlight=False)
        for what, why in verified.refused.items():
            console.print(f"[yellow]Not repaired:[/] {escape(what)}: {escape(in_options(why))}", highlight=False)
    for finding in report.findings[:_SHOWN]:
        console.print(f"[bold red]{finding.fault}[/] {escape(finding.path)}", highlight=False, soft_wrap=True)
        sentence = f"  It {finding.problem}. {remedy(finding, report.path, was_repaired=before is not None)}"
        console.print(escape(sentence), highlight=False, soft_wrap=True)
    if len(report.findings) > _SHOWN:
        console.print(f"… and {len(report.findings) - _SHOWN} more", highlight=False)
    console.print(_summary(report), highlight=False, soft_wrap=True)


def _summary(report: "Report") -> str:
    read = f"{report.n_files:,} files, {format_bytes(report.n_bytes)}"
    kinds = sorted({str(contents.kind) for contents in report.contents})
    what = f"{escape(report.path)} ({', '.join(kinds)}; {read})"
    if report.is_sound:
        return f"[bold green]Sound:[/] {what}"
    return f"[bold red]Not sound:[/] {what}: {len(report.findings)} finding(s)"


def remedy(finding: Finding, path: str, *, was_repaired: bool = False) -> str:
    """What to do about a finding, with the command."""
    stage = finding.made.stage
    if finding.fault is Fault.SURPLUS:
        return "Move it elsewhere, or delete it."
    if finding.fault is Fault.INPUT:
        return "Restore the input, or run the same command into another output."
    if stage in _REPAIRED and not was_repaired:
        return f"Mend it: segment-slide verify {shlex.quote(path)} --repair"
    if stage in _REPAIRED:
        return f"Delete {_what_to_delete(finding)} and run segment-slide {stage} again as it was run."
    if stage is Stage.TRAIN:
        return "Copy the file again, or train again: segment-slide train."
    if stage is Stage.NIGHT:
        return "Delete it: segment-slide segment-new writes it again."
    if stage is Stage.NONE:
        return "Restore it from a copy."
    return f"Delete {_what_to_delete(finding)} and run segment-slide {stage} again as it was run: it makes it again."


def _what_to_delete(finding: Finding) -> str:
    return "the file" if finding.key and not finding.key.endswith("zarr.json") else "the output"
