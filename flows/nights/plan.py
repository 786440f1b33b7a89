"""Decide what a night would do with each acquisition. This only reads the folders; it is the dry run.

Only the outputs are remembered: an acquisition is done if its output says that it is done with this model. If somebody
deletes an output, it is made again.
"""

import math
import os
from dataclasses import dataclass, replace
from enum import StrEnum

from segment_slide.flows.requests import NightRequest, SlideRequest
from segment_slide.flows.workers import plan_cluster
from segment_slide.pipeline.blocks.sizes import choose_block, choose_chunk, choose_tile
from segment_slide.pipeline.errors import InputError, OutputError
from segment_slide.pipeline.nights.acquisitions import Acquisition, find_acquisitions, marker_path, why_incomplete
from segment_slide.pipeline.nights.notes import Done, Failure, begun_from, failure_path, read_done, read_failure
from segment_slide.pipeline.nights.outputs import IMAGES, Layout, missing_parts, output_name
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.names import check_name
from segment_slide.unet.open_network import open_network

_ITEMSIZE = 4
_DAY_S = 86400


class Action(StrEnum):
    """What a night does with an acquisition."""

    SEGMENT = "segment"
    RESUME = "resume"
    RETRY = "retry"
    DONE = "done"
    GROWING = "growing"
    SET_ASIDE = "set aside"
    TOO_OLD = "too old"
    CHANGED = "changed"
    REFUSED = "refused"


WORK = (Action.SEGMENT, Action.RESUME, Action.RETRY)
UNDECIDED = (Action.CHANGED, Action.REFUSED)


@dataclass(frozen=True)
class Decision:
    """The decision about one acquisition.

    Attributes
    ----------
    acquisition : Acquisition
        The acquisition as it was found.
    action : Action
        What to do.
    reason : str
        The reason in words.
    output : str
        Path of its output.
    tries : int
        How often its present content has failed.
    """

    acquisition: Acquisition
    action: Action
    reason: str
    output: str
    tries: int = 0

    @property
    def is_work(self) -> bool:
        """Whether the acquisition will be segmented in this night."""
        return self.action in WORK

    @property
    def needs_decision(self) -> bool:
        """Whether somebody must rename, copy or delete something first."""
        return self.action in UNDECIDED


def check_night(request: NightRequest) -> Layout:
    """Before anything is created, refuse a request with which no acquisition could be segmented.

    Returns
    -------
    Layout
        Where the results of this model are written.

    Raises
    ------
    InputError
        If a folder does not exist, a number is out of range, or a folder lies in another one.
    OutputError
        If `outputs` cannot be a folder.
    UnetError, PlanError, ClusterError
        If the model cannot be read, sizes do not fit it, or the cluster does not exist.
    """
    _check_numbers(request)
    watch, outputs = store.resolve_location(request.watch), store.resolve_location(request.outputs)
    _check_places(watch, outputs)
    segment = request.template.segment
    if segment.in_place:
        raise InputError("in_place: a night writes into its outputs folder; acquisitions are read-only.")
    check_name(segment.options.name)
    network, options = open_network(segment.model), segment.options
    block = choose_block(options.block, network.description)
    choose_tile(options.tile, block, network.description, _ITEMSIZE)
    choose_chunk(options.chunk, block, len(network.description.axes))
    plan_cluster(segment.workers)
    return Layout(outputs, str(network.path), network.sha256)


def _check_numbers(request: NightRequest) -> None:
    if not 0 <= request.stable_minutes < math.inf:
        raise InputError(f"stable_minutes={request.stable_minutes}, expected 0 or more.")
    if request.max_tries < 1:
        raise InputError(f"max_tries={request.max_tries}, expected 1 or more.")
    if request.max_age_days is not None and not request.max_age_days > 0:
        raise InputError(f"max_age_days={request.max_age_days}, expected more than 0.")
    if request.marker is not None:
        marker_path(Acquisition("/name", "name", 1, 0, 0.0, "", is_zarr=False), request.marker)


def _check_places(watch: str, outputs: str) -> None:
    if not store.is_remote(watch) and not os.path.isdir(watch):
        raise InputError(f"watch={watch}: no such folder.")
    if not store.is_remote(outputs) and os.path.exists(outputs) and not os.path.isdir(outputs):
        raise OutputError(f"outputs={outputs} is a file, expected a folder.")
    inner, outer = (path if store.is_remote(path) else os.path.realpath(path) for path in (watch, outputs))
    if f"{inner}/".startswith(f"{outer.rstrip('/')}/"):
        raise InputError(
            f"watch={watch} lies in outputs={outputs}: results would be taken for acquisitions; choose another folder."
        )


def plan_night(request: NightRequest, now_s: float) -> list[Decision]:
    """Decide what a night that begins now does with each acquisition, sorted by name; nothing is changed.

    Parameters
    ----------
    request : NightRequest
        The request of the night.
    now_s : float
        Present time (s since the epoch).

    Raises
    ------
    InputError, OutputError, UnetError, PlanError, ClusterError
        As `check_night`.
    """
    return decide_all(request, check_night(request), now_s)


def decide_all(request: NightRequest, layout: Layout, now_s: float) -> list[Decision]:
    """As `plan_night`, for a request that was checked already."""
    decisions, taken = list[Decision](), dict[str, str]()
    for acquisition in find_acquisitions(request.watch, request.patterns, skip=[layout.outputs]):
        output = layout.output_of(acquisition.name)
        owner = taken.setdefault(output, acquisition.name)
        if owner != acquisition.name:
            reason = f"its output would be that of {owner}: rename one of them"
            decisions.append(Decision(acquisition, Action.REFUSED, reason, output))
        else:
            decisions.append(_decide(request, layout, acquisition, now_s))
    return decisions


def _decide(request: NightRequest, layout: Layout, acquisition: Acquisition, now_s: float) -> Decision:
    output = layout.output_of(acquisition.name)
    done, failure = read_done(output), read_failure(output)
    tries = failure.tries if failure and acquisition.is_as(failure.fingerprint, failure.times) else 0
    if not acquisition.is_zarr and store.is_remote(acquisition.path):
        action, reason = Action.REFUSED, "it cannot be converted from a URL; copy it first"
    elif done is not None:
        action, reason = _judge_finished(request, acquisition, output, done)
    elif failure is not None:
        action, reason = _judge_failed(request, acquisition, output, failure)
    else:
        action, reason = _judge_unfinished(request, acquisition, output, now_s)
    if action in WORK and (wait := why_incomplete(acquisition, now_s, request.stable_minutes, request.marker)):
        action, reason = Action.GROWING, wait
    return Decision(acquisition, action, reason, output, tries)


def _judge_finished(request: NightRequest, acquisition: Acquisition, output: str, done: Done) -> tuple[Action, str]:
    """Decide what to do with an acquisition whose output says that it is done."""
    if not acquisition.is_as(done.fingerprint, done.times):
        return Action.CHANGED, f"changed since it was segmented: delete {output} to segment it again"
    missing = parts_missing(request.template, output)
    if not missing:
        return Action.DONE, "" if done.n_objects is None else f"{done.n_objects:,} objects"
    failure = read_failure(output)
    if failure and acquisition.is_as(failure.fingerprint, failure.times):
        return _judge_failed(request, acquisition, output, failure)
    return Action.RESUME, f"{', '.join(missing)} is missing"


def parts_missing(template: SlideRequest, output: str) -> list[str]:
    """List the parts that a template asks for and that an output lacks."""
    objects = template.objects is not None
    return missing_parts(output, template.segment.options.name, instances=objects, table=objects and template.measure)


def _judge_failed(request: NightRequest, acquisition: Acquisition, output: str, failure: Failure) -> tuple[Action, str]:
    """Decide what to do with an acquisition that failed before."""
    if not acquisition.is_as(failure.fingerprint, failure.times):
        return Action.SEGMENT, "changed since it failed"
    if failure.tries >= request.max_tries:
        remedy = f"delete {failure_path(output)} to try it again"
        return Action.SET_ASIDE, f"failed {failure.tries} time(s): {failure.reason} ({remedy})"
    return Action.RETRY, f"failed {failure.tries} of {request.max_tries} times: {failure.reason}"


def _judge_unfinished(request: NightRequest, acquisition: Acquisition, output: str, now_s: float) -> tuple[Action, str]:
    """Decide what to do with an acquisition that was never finished and never failed."""
    if store.is_occupied(output):
        if (begun := begun_from(output)) is not None and not acquisition.is_as(begun.fingerprint, begun.times):
            return Action.SEGMENT, "changed since it was begun"
        return Action.RESUME, "begun earlier"
    age_days = (now_s - acquisition.changed_s) / _DAY_S
    if request.max_age_days is not None and age_days > request.max_age_days:
        return Action.TOO_OLD, f"{age_days:.1f} days old, limit {request.max_age_days:g}"
    return Action.SEGMENT, "new"


def slide_request(request: NightRequest, decision: Decision) -> SlideRequest:
    """Fill the template with what belongs to one acquisition."""
    acquisition, template = decision.acquisition, request.template
    outputs = store.resolve_location(request.outputs)
    image = "" if acquisition.is_zarr else store.join(outputs, IMAGES, output_name(acquisition.name))
    segment = replace(template.segment, input=acquisition.path, output=decision.output)
    return replace(template, segment=segment, image=image)
