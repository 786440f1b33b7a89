"""What became of each acquisition in a night, and whether somebody has to look at it."""

from dataclasses import dataclass
from enum import StrEnum

from segment_slide.flows.nights.plan import Action


class Outcome(StrEnum):
    """What became of an acquisition in a night."""

    SEGMENTED = "segmented"
    FAILED = "failed"  # and is tried again
    SET_ASIDE = "set aside"  # in this night
    LEFT = "left"  # for another night: it changed, another run holds it, its time was used up, the night ended
    NEEDS_DECISION = "needs a decision"  # and this is the first night to say so
    SKIPPED = "skipped"  # nothing was to be done


@dataclass(frozen=True)
class NightRow:
    """One acquisition in a night's report.

    Attributes
    ----------
    name : str
        Of the acquisition.
    action : Action
        As planned.
    outcome : Outcome
        What became of it.
    reason : str
        Why it was planned so, or why it failed.
    seconds : float
        Wall time of all tries in this night.
    n_objects, n_pixels : int or None
        Of what was segmented in this night.
    output : str
        Where its result lies.
    page : str
        File of its report; "" if there is none.
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


@dataclass(frozen=True)
class NightReport:
    """What a night did.

    Attributes
    ----------
    rows : tuple of NightRow
        Every acquisition, by name.
    folder : str
        Where the results of this model lie.
    skipped_because : str
        Why nothing was done at all: another night was at work.
    ended_by : str
        The error that ended the night before its end; "" if none did.
    """

    rows: tuple[NightRow, ...] = ()
    folder: str = ""
    skipped_because: str = ""
    ended_by: str = ""

    def count(self, outcome: Outcome) -> int:
        """Acquisitions with an outcome."""
        return sum(row.outcome == outcome for row in self.rows)

    @property
    def n_segmented(self) -> int:
        """Acquisitions that were finished in this night."""
        return self.count(Outcome.SEGMENTED)

    @property
    def n_failed(self) -> int:
        """Acquisitions that failed in this night, set aside or not."""
        return self.count(Outcome.FAILED) + self.count(Outcome.SET_ASIDE)

    @property
    def newly_set_aside(self) -> tuple[NightRow, ...]:
        """Acquisitions that will not be tried again."""
        return tuple(row for row in self.rows if row.outcome == Outcome.SET_ASIDE)

    @property
    def newly_undecided(self) -> tuple[NightRow, ...]:
        """Acquisitions that somebody has to decide about, and that no night before said so of."""
        return tuple(row for row in self.rows if row.outcome == Outcome.NEEDS_DECISION)

    @property
    def needs_operator(self) -> bool:
        """Whether something failed or asks for a decision in this night; what did so before does not count."""
        return self.n_failed > 0 or bool(self.newly_undecided) or bool(self.ended_by)
