"""Verify everything of ours at a path: all files in parallel, and beside them the checks of what must agree."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

from segment_slide.pipeline.blocks.attempts import try_in_threads
from segment_slide.pipeline.blocks.progress import Stages
from segment_slide.pipeline.integrity import inputs, labels, networks, nights, pyramids, tables, training
from segment_slide.pipeline.integrity.contents import Contents, Kind, find_contents
from segment_slide.pipeline.integrity.files import FileSteps, Step, plan_files
from segment_slide.pipeline.integrity.finding import Fault, Finding, Found, Made, Note, Stage

_ORDER = tuple(Fault)
_NOBODY = Made(Stage.NONE, "")
_OF_KIND: dict[Kind, Callable[[str], Found]] = {
    Kind.TRAINING_SET: training.check_training_set,
    Kind.SAMPLES: training.check_sample_set,
    Kind.MODEL: networks.check_model,
    Kind.STATE: networks.check_state,
    Kind.TRAINING: networks.check_training,
    Kind.NOTE: nights.check_note,
}
_SINGLE_FILES = (Kind.MODEL, Kind.STATE, Kind.NOTE)


@dataclass(frozen=True)
class Report:
    """What was found at a path.

    Attributes
    ----------
    path : str
        As it was given.
    contents : tuple of Contents
        What of ours lies there.
    findings : tuple of Finding
        What is wrong, faults of files first; nothing if all is sound.
    notes : tuple of Note
        What could not be checked.
    n_files, n_bytes : int
        Files that were read, and their bytes.
    n_unsealed : int
        Files among them whose checksums are not known.
    """

    path: str
    contents: tuple[Contents, ...]
    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]
    n_files: int
    n_bytes: int
    n_unsealed: int

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(path: str, progress: Stages, threads: int = 0) -> Report:
    """Check everything of ours at a path; nothing is changed.

    Parameters
    ----------
    path : path or URL
        An image, a segmentation, a training set, samples, a model, a training's folder, or a folder of any of these.
    progress : Stages
        Receives the progress.
    threads : int
        Files that are read at a time; 0 for one per core.

    Raises
    ------
    InputError
        If nothing of ours is there.
    UnreachableError
        If a store does not answer.
    """
    contents = tuple(find_contents(path))
    plans = [plan_files(item) if item.kind not in _SINGLE_FILES else FileSteps([], [], [], 0) for item in contents]
    found: list[Finding | Note] = [item for plan in plans for item in plan.found]
    reads = [step for plan in plans for step in (*plan.hashed, *plan.decoded)]
    checks: list[Step] = [functools.partial(_collect, check) for item in contents for check in _checks(item)]
    threads = threads or len(os.sched_getaffinity(0))
    with progress.stage("verify", total=len(reads) + len(checks), unit="steps") as advance:
        for result in _run(reads, checks, threads):
            found += result
            advance(0)
    findings, notes = _settle(found)
    n_unsealed = sum(len(plan.decoded) for plan in plans)
    return Report(path, contents, findings, notes, len(reads), sum(plan.n_bytes for plan in plans), n_unsealed)


def _collect(check: Found) -> list[Finding | Note]:
    return list(check)


def _run(reads: list[Step], checks: list[Step], threads: int) -> Iterator[list[Finding | Note]]:
    """Results in order of completion. Checks, which wait for each other in Zarr's event loop, are mixed with reads."""
    with closing(try_in_threads(_call, _mix(reads, checks), threads)) as results:
        for _, result, error in results:
            if error is not None:
                raise error
            yield result or []


def _call(step: Step) -> list[Finding | Note]:
    return step()


def _mix(many: list[Step], few: list[Step]) -> Iterable[Step]:
    """All steps, with the few between the many."""
    spacing = max(1, len(many) // (len(few) + 1))
    waiting = iter(few)
    for number, step in enumerate(many):
        yield step
        if number % spacing == spacing - 1 and (other := next(waiting, None)) is not None:
            yield other
    yield from waiting


def _checks(contents: Contents) -> Iterator[Found]:
    """Everything that must agree, one check a piece."""
    location = contents.location
    if (check := _OF_KIND.get(contents.kind)) is not None:
        yield check(location)
        return
    if contents.is_image:
        yield pyramids.check_converted(location)
        yield inputs.check_ingested(location)
    for name in contents.segmentations:
        yield labels.check_segmentation(location, name)
        yield pyramids.check_segmented(location, name)
        yield inputs.check_segmented(location, name)
    for name in contents.instances:
        yield labels.check_instances(location, name)
        yield pyramids.check_numbered(location, name)
        yield inputs.check_numbered(location, name)
    for name in contents.tables:
        yield tables.check_table(location, name)
        yield tables.check_rows(location, name)
    if contents.is_done:
        yield nights.check_done(location)


def _settle(found: Iterable[Finding | Note]) -> tuple[tuple[Finding, ...], tuple[Note, ...]]:
    """Findings without repetitions, and notes. A check that was given up is a finding where no other explains it."""
    found = list(found)
    findings = {(item.fault, item.path): item for item in found if isinstance(item, Finding)}
    notes = {(item.where, item.sentence): item for item in found if isinstance(item, Note)}
    stores = {finding.store for finding in findings.values()}
    kept = []
    for note in notes.values():
        if not note.is_given_up:
            kept.append(note)
        elif note.where not in stores:
            given_up = Finding(Fault.UNREADABLE, note.where, "", f"cannot be checked ({note.sentence})", _NOBODY)
            findings[given_up.fault, given_up.path] = given_up
    ordered = sorted(findings.values(), key=lambda finding: (_ORDER.index(finding.fault), finding.path))
    return tuple(ordered), tuple(kept)
