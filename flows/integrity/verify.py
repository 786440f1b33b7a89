"""Verify what is stored, and make again what is broken. Steps: verify, repair, verify again."""

from dataclasses import dataclass, field

from segment_slide.flows.integrity.options import VerifyRequest
from segment_slide.flows.integrity.repair import repair_all
from segment_slide.pipeline.blocks.progress import QuietStages, Stages
from segment_slide.pipeline.integrity.run import Report, verify


@dataclass(frozen=True)
class Verified:
    """The result of the command.

    Attributes
    ----------
    report : Report
        What is wrong now; after a repair, what is still wrong.
    before : Report or None
        What was wrong before the repair; None without one.
    refused : mapping of str to str
        What could not be made again, and why, one sentence each.
    """

    report: Report
    before: Report | None = None
    refused: dict[str, str] = field(default_factory=dict)


def verify_stored(request: VerifyRequest, progress: Stages | None = None) -> Verified:
    """Verify everything of ours at a path, and make again what is broken if that is asked for.

    Raises
    ------
    InputError
        If nothing of ours is there.
    """
    progress = progress or QuietStages()
    report = verify(request.path, progress)
    if not request.repair or report.is_sound:
        return Verified(report)
    refused = repair_all(report, request, progress)
    return Verified(verify(request.path, progress), report, refused)
