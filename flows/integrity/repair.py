"""Make broken files again: metadata from their checksums, coarser levels from finer ones, blocks by their own stage.

A stage makes what is missing of its output, so a broken block is deleted and the stage is run as its record says. It
refuses if the input or the model is not what it was; then nothing is deleted.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from segment_slide.cluster.errors import ClusterError
from segment_slide.flows.ingest import ingest_image
from segment_slide.flows.instances import label_objects, resolve_instances_request
from segment_slide.flows.integrity.options import VerifyRequest
from segment_slide.flows.integrity.requests import (
    ingest_request,
    instances_request,
    measure_request,
    segment_request,
)
from segment_slide.flows.measure import measure_objects, plan_request
from segment_slide.flows.segment import segment_image
from segment_slide.flows.segment_request import resolve_segment_request
from segment_slide.pipeline.blocks.progress import Stages
from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.ingest.plan import plan_ingest
from segment_slide.pipeline.ingest.record import read_ingest_record
from segment_slide.pipeline.integrity.contents import Contents
from segment_slide.pipeline.integrity.finding import Fault, Finding, Made, Stage
from segment_slide.pipeline.integrity.images import StoredPyramid
from segment_slide.pipeline.integrity.metadata import restore_metadata
from segment_slide.pipeline.integrity.pyramids import find_pyramids
from segment_slide.pipeline.integrity.restore import rebuild_levels
from segment_slide.pipeline.integrity.run import Report
from segment_slide.pipeline.manifest.content import is_data, split_shard
from segment_slide.pipeline.measurement.record import TABLES
from segment_slide.pipeline.measurement.table import is_part, part_path
from segment_slide.pipeline.storage.files import delete, exists
from segment_slide.pipeline.storage.lock import hold
from segment_slide.pipeline.storage.record import compare_records
from segment_slide.pipeline.storage.store import join, remove_leftovers
from segment_slide.unet.errors import UnetError

log = logging.getLogger(__name__)

ORDER = (Stage.INGEST, Stage.SEGMENT, Stage.INSTANCES, Stage.MEASURE)  # each reads what those before it make
METADATA, SURPLUS = -2, -1  # phases before those of the stages
BROKEN = (Fault.CHANGED, Fault.UNREADABLE, Fault.MISSING)
_REFUSALS = (PipelineError, UnetError, ClusterError)


def repair_all(report: Report, chosen: VerifyRequest, progress: Stages) -> dict[str, str]:
    """Make again what is broken, as far as that is possible.

    Returns
    -------
    dict
        For each output of which something could not be made again, why.
    """
    refused: dict[str, str] = {}
    repairs: list[Repair] = []
    for contents in report.contents:
        findings = [finding for finding in report.findings if finding.store == contents.location]
        repairs += _repairs(contents, findings, chosen, progress)
    kept_out: set[str] = set()  # a stage would list damaged metadata in a new manifest, as if they were right
    for repair in sorted(repairs, key=lambda repair: repair.phase):
        if repair.location in kept_out:
            refused[repair.title] = "its metadata are damaged, and cannot be made again"
            continue
        try:
            repair.run()
        except _REFUSALS as error:
            refused[repair.title] = str(error)
            kept_out |= {repair.location} if repair.phase == METADATA else set()
    return refused


@dataclass(frozen=True)
class Repair:
    """Something to do.

    Attributes
    ----------
    phase : int
        Metadata of all outputs come first, then stage by stage: each reads what those before it make.
    location, title : str
        The output, and what the repair is called in messages.
    run : callable
        Does it.
    """

    phase: int
    location: str
    title: str
    run: Callable[[], None]


def _repairs(contents: Contents, findings: list[Finding], chosen: VerifyRequest, progress: Stages) -> Iterator[Repair]:
    """What is to be done for one output."""
    location = contents.location
    broken = [finding for finding in findings if finding.fault in BROKEN]
    metadata = [finding.key for finding in broken if not is_data(finding.key)]
    if metadata:
        yield Repair(METADATA, location, location, lambda: _restore(contents, metadata))
    surplus = [
        finding.key
        for finding in findings
        if is_surplus_shard(finding, findings) or is_surplus_part(finding, findings, location)
    ]
    if surplus:
        yield Repair(SURPLUS, location, location, lambda: _delete_all(location, surplus))
    data = sorted((f for f in broken if is_data(f.key) and f.made.stage in ORDER), key=_order)
    for made, group in groupby(data, lambda finding: finding.made):
        keys = sorted({finding.key for finding in group})
        title = f"{made.stage} {join(location, made.name)}"
        yield Repair(ORDER.index(made.stage), location, title, _repair_of(contents, made, keys, chosen, progress))


def _order(finding: Finding) -> tuple[int, str, str]:
    return ORDER.index(finding.made.stage), finding.made.name, finding.key


def is_surplus_shard(finding: Finding, findings: list[Finding]) -> bool:
    """Whether a file that is too much can only be ours: one that is called like a shard of an array of ours.

    An array of ours has metadata in the manifest; were they too much as well, the array would be somebody else's.
    """
    shard = split_shard(finding.key)
    surplus = {other.key for other in findings if other.fault is Fault.SURPLUS}
    return finding.fault is Fault.SURPLUS and shard is not None and f"{shard[0]}/zarr.json" not in surplus


def is_surplus_part(finding: Finding, findings: list[Finding], location: str) -> bool:
    """Whether a file that is too much is called like a part of a table of ours, whose readers would take its rows, too.

    A table of ours has a first part that is in the manifest; else the table would be somebody else's.
    """
    table, _, name = finding.key.rpartition("/")
    surplus = {join(location, other.key) for other in findings if other.fault is Fault.SURPLUS}
    first = part_path(location, table, 0)
    is_ours = table.startswith(f"{TABLES}/") and first not in surplus and exists(first)
    return finding.fault is Fault.SURPLUS and is_part(name) and is_ours


def _delete_all(location: str, keys: list[str]) -> None:
    with hold(location, lambda: None):
        for key in keys:
            delete(join(location, key))


def _restore(contents: Contents, keys: list[str]) -> None:
    with hold(contents.location, lambda: remove_leftovers(contents.location, "")):
        restore_metadata(contents, keys)


def _repair_of(
    contents: Contents, made: Made, keys: list[str], chosen: VerifyRequest, progress: Stages
) -> Callable[[], None]:
    def repair() -> None:
        finest, coarser = _split_levels(keys)
        for pyramid in find_pyramids(contents, made):
            mine = [key for key in coarser if key.startswith(f"{pyramid.group}/".lstrip("/"))]
            if mine and not finest:
                _rebuild(pyramid, mine)
        if finest:
            _run_again(made, keys, chosen, progress)

    return repair


def _split_levels(keys: list[str]) -> tuple[list[str], list[str]]:
    """Files that only the stage can make, and shards of coarser levels."""
    coarser = [key for key in keys if (shard := split_shard(key)) and shard[0].rpartition("/")[2] not in ("", "0")]
    return [key for key in keys if key not in coarser], coarser


def _rebuild(pyramid: StoredPyramid, keys: list[str]) -> None:
    with hold(pyramid.location, lambda: remove_leftovers(pyramid.location, pyramid.group)):
        rebuild_levels(pyramid, keys)


def _run_again(made: Made, keys: list[str], chosen: VerifyRequest, progress: Stages) -> None:
    """Check that the stage would go on, then delete the broken files and run it."""
    run = _RUNS[made.stage](made, chosen, progress)
    _delete_all(made.location, keys)
    run()


# Each checks all that can be checked before a file is deleted, and returns what runs the stage.


def _segment(made: Made, chosen: VerifyRequest, progress: Stages) -> Callable[[], object]:
    request = segment_request(made.location, made.name, chosen)
    resolve_segment_request(request)
    return lambda: segment_image(request, progress)


def _number(made: Made, chosen: VerifyRequest, progress: Stages) -> Callable[[], object]:
    request = instances_request(made.location, made.name, chosen)
    resolve_instances_request(request)
    return lambda: label_objects(request, progress)


def _measure(made: Made, chosen: VerifyRequest, progress: Stages) -> Callable[[], object]:
    request = measure_request(made.location, made.name, chosen)
    plan_request(request)
    return lambda: measure_objects(request, progress)


def _ingest(made: Made, chosen: VerifyRequest, progress: Stages) -> Callable[[], object]:
    file, options = ingest_request(made.location, chosen)
    compare_records(read_ingest_record(made.location), plan_ingest([file], options).record, made.location)
    return lambda: ingest_image([file], made.location, options, progress)


_RUNS: dict[Stage, Callable[[Made, VerifyRequest, Stages], Callable[[], object]]] = {
    Stage.SEGMENT: _segment,
    Stage.INSTANCES: _number,
    Stage.MEASURE: _measure,
    Stage.INGEST: _ingest,
}
