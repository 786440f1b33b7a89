"""What happened to each acquisition in a night, and whether somebody must look at it."""

from dataclasses import dataclass
from enum import StrEnum

from segment_slide.flows.nights.plan import Action
from segment_slide.pipeline.statistics.object_sizes import SmallObjects


class Outcome(StrEnum):
    """What happened to an acquisition in a night."""

    SEGMENTED = "segmented"
    FAILED = "failed"  # will be tried again
    SET_ASIDE = "set aside"  # during this night
    LEFT = "left"  # for another night: it changed, another run holds it, its time limit passed, or the night ended
    NEEDS_DECISION = "needs a decision"  # reported for the first time in this night
    SKIPPED = "skipped"  # there was nothing to do


@dataclass(frozen=True)
class NightRow:
    """One acquisition in a night's report.

    Attributes
    ----------
    name : str
        Name of the acquisition.
    action : Action
        The planned action.
    outcome : Outcome
        What happened to it.
    reason : str
        Why this action was planned, or why it failed.
    seconds : float
        Wall time of all its tries in this night.
    n_objects, n_pixels : int or None
        Numbers of what was segmented in this night.
    output : str
        Path of its output.
    page : str
        Path of its report; "" if there is none.
    small : SmallObjects or None
        How many of the objects are small.
    """

    name: str
    action: Action
    outcome: Outcome
    reason: str
    seconds: float = 0.0
    n_objects: int | None = None
    n_pixels: int | None = None
    output: str = ""
    page: str = ""
    small: SmallObjects | None = None


@dataclass(frozen=True)
class NightReport:
    """What a night has done.

    Attributes
    ----------
    rows : tuple of NightRow
        One row for each acquisition, sorted by name.
    folder : str
        Folder for the results of this model.
    skipped_because : str
        Why the night did nothing: another night was running.
    ended_by : str
        The error that ended the night early; "" if there was none.
    """

    rows: tuple[NightRow, ...] = ()
    folder: str = ""
    skipped_because: str = ""
    ended_by: str = ""

    def count(self, outcome: Outcome) -> int:
        """Number of acquisitions with an outcome."""
        return sum(row.outcome == outcome for row in self.rows)

    @property
    def n_segmented(self) -> int:
        """Number of acquisitions that were finished in this night."""
        return self.count(Outcome.SEGMENTED)

    @property
    def n_failed(self) -> int:
        """Number of acquisitions that failed in this night, set aside or not."""
        return self.count(Outcome.FAILED) + self.count(Outcome.SET_ASIDE)

    @property
    def newly_set_aside(self) -> tuple[NightRow, ...]:
        """Acquisitions that will not be tried again."""
        return tuple(row for row in self.rows if row.outcome == Outcome.SET_ASIDE)

    @property
    def newly_undecided(self) -> tuple[NightRow, ...]:
        """Acquisitions that need a person's decision, and that no earlier night has reported."""
        return tuple(row for row in self.rows if row.outcome == Outcome.NEEDS_DECISION)

    @property
    def needs_operator(self) -> bool:
        """Whether something failed, needs a decision or ended the night; reports of earlier nights do not count."""
        return self.n_failed > 0 or bool(self.newly_undecided) or bool(self.ended_by)
