"""Score a segmentation against the truth. Steps: open both, check that they fit, count, score."""

import tempfile
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from segment_slide.flows.requests import KINDS, EvaluateRequest, Kind
from segment_slide.pipeline.blocks.progress import QuietStages, Stages
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.formats import list_files
from segment_slide.pipeline.scoring.class_values import note_on_values
from segment_slide.pipeline.scoring.contingency import Contingency
from segment_slide.pipeline.scoring.label_pair import LabelPair, watch_pair, with_lists
from segment_slide.pipeline.scoring.mask_files import Source, is_folder_of_files, open_source
from segment_slide.pipeline.scoring.membrane_scores import MembraneScores
from segment_slide.pipeline.scoring.object_class import settle_classes
from segment_slide.pipeline.scoring.object_scores import (
    ObjectScores,
    check_ious,
    mean_average_precision,
    score_matches,
    score_seg,
)
from segment_slide.pipeline.scoring.options import EvaluateOptions
from segment_slide.pipeline.scoring.pixel_scores import Confusion
from segment_slide.pipeline.scoring.rand_scores import RandScores, score_rand
from segment_slide.pipeline.scoring.run import ObjectCounts, check_pair, evaluate_stored, score_stored_membranes
from segment_slide.pipeline.training.pairing import list_names, pair_files

if TYPE_CHECKING:
    from distributed import Client

OBJECTS = ("auto", "ids", "components")


@dataclass(frozen=True)
class ObjectReport:
    """Scores of objects over all frames: `matches` has one entry per IoU threshold."""

    n_truth: int
    n_predicted: int
    seg: float
    matches: tuple[ObjectScores, ...]
    mean_average_precision: float
    rand: RandScores


@dataclass(frozen=True)
class EvaluateReport:
    """The results of an evaluation. Of `classes`, `objects` and `membranes` only the requested one is set.

    Attributes
    ----------
    request : EvaluateRequest
        What was compared.
    shape : tuple of int
        Size (px) of the truth, planes first.
    n_pixels : int
        Number of pixels compared, without ignored ones.
    notes : tuple of str
        What a reader of the scores should know.
    pairs : tuple of (predicted, truth)
        Files that were compared, if both sides are folders.
    seconds : float
        Wall time.
    """

    request: EvaluateRequest
    shape: tuple[int, ...]
    n_pixels: int
    classes: Confusion | None = None
    objects: ObjectReport | None = None
    membranes: MembraneScores | None = None
    notes: tuple[str, ...] = field(default=())
    pairs: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class ResolvedRequest:
    """A checked request: both sides opened, options with the classes of objects, notes, and the pairs of files."""

    pair: LabelPair
    options: EvaluateOptions
    notes: tuple[str, ...]
    n_blocks: int
    pairs: tuple[tuple[str, str], ...]


def evaluate_request(
    request: EvaluateRequest,
    progress: Stages | None = None,
    client: "Client | None" = None,
    resolved: "ResolvedRequest | None" = None,
    lists: str = "",
) -> EvaluateReport:
    """Score a segmentation.

    Parameters
    ----------
    request : EvaluateRequest
        What to compare.
    progress : Stages, optional
        Receives the progress.
    client : Client, optional
        Counts the blocks of stored images; None counts in this process.
    resolved : ResolvedRequest, optional
        The request as it was opened before; files are then not read again.
    lists : str
        Folder for lists of what is read, which all workers can write to; "" if there is none.

    Raises
    ------
    PipelineError
        If the input is bad (found before any work where metadata show it), if a chunk cannot be read, or if the truth
        has no object.
    IncompleteError
        If the input changed while it was read.
    """
    began = time.perf_counter()
    resolved = resolved or resolve_evaluate_request(request)
    watched = watch_pair(resolved.pair, lists)
    pair, options, notes = with_lists(resolved.pair, watched), resolved.options, resolved.notes
    unit = "blocks" if request.kind != "membranes" else "planes"
    with (progress or QuietStages()).stage("evaluate", total=resolved.n_blocks, unit=unit) as advance:
        work: dict[str, Any] = {"client": client}
        if request.kind == "membranes":
            scores = score_stored_membranes(pair.predicted, pair.truth, on_plane=advance, **work)
            found = EvaluateReport(request, pair.truth.shape, _size(pair), membranes=scores)
        elif request.kind == "classes":
            confusion = evaluate_stored(pair.predicted, pair.truth, "classes", options, on_block=advance, **work)
            found = _report_classes(request, pair, confusion)
        else:
            options, more = settle_classes(pair, options)
            notes += more
            counts = evaluate_stored(pair.predicted, pair.truth, "instances", options, on_block=advance, **work)
            found = _report_objects(request, pair, counts)
    watched.check("There is no score; run the same command again.")
    seconds = time.perf_counter() - began
    return replace(found, notes=notes + found.notes, pairs=resolved.pairs, seconds=seconds)


def evaluate_locally(
    request: EvaluateRequest, workers: int | None = None, progress: Stages | None = None
) -> EvaluateReport:
    """Run `evaluate_request` on worker processes of this machine, or in this process if there is only one block."""
    from segment_slide.cluster.complete import complete_spec
    from segment_slide.cluster.connect import connect
    from segment_slide.cluster.spec import ClusterSpec

    cluster = complete_spec(ClusterSpec(workers=workers))
    resolved = resolve_evaluate_request(request)
    with tempfile.TemporaryDirectory(prefix="segment-slide-") as lists:
        if resolved.n_blocks == 1:
            return evaluate_request(request, progress, resolved=resolved, lists=lists)
        with connect(cluster) as client:
            return evaluate_request(request, progress, client, resolved, lists)


def resolve_evaluate_request(request: EvaluateRequest) -> ResolvedRequest:
    """Open both sides and refuse what cannot be compared."""
    _check_words(request)
    if request.kind == "instances":
        check_ious(request.ious)
    pairs, notes = _pair_folders(request)
    predicted = open_source(
        request.predicted,
        n_spatial=request.n_spatial,
        level=request.predicted_level,
        axes=request.predicted_axes,
        channel=request.channel,
        files=[file for file, _ in pairs],
    )
    truth = open_source(
        request.truth,
        n_spatial=request.n_spatial,
        level=request.truth_level,
        axes=request.truth_axes,
        files=[file for _, file in pairs],
    )
    pair = LabelPair(predicted, truth)
    options, more = _resolve_objects(request, pair)
    total = check_pair(pair, request.kind, options)
    return ResolvedRequest(pair, options, notes + more, total, pairs)


def _pair_folders(request: EvaluateRequest) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Pair the files of two folders by name, not by order: one more file on a side would shift the order."""
    if not (is_folder_of_files(request.predicted) and is_folder_of_files(request.truth)):
        if request.options.label_suffix is not None:
            raise InputError(
                f"label_suffix={request.options.label_suffix!r} pairs the files of two folders, but predicted="
                f"{request.predicted} and truth={request.truth} are not both folders of TIFF or PNG files."
            )
        return (), ()
    suffix = request.options.label_suffix
    named, alone = pair_files(list_files([request.predicted]), list_files([request.truth]), label_suffix=suffix)
    pairs = tuple((predicted, truth) for _, predicted, truth in named)
    note = (
        f"{len(alone)} of {len(alone) + len(pairs)} files of the prediction have no truth, and are left out: "
        f"{list_names(alone)}"
    )
    return pairs, (note,) if alone else ()


def as_kind(word: str) -> Kind:
    """Check a word for what is compared.

    Raises
    ------
    InputError
        If there is no such kind.
    """
    for kind in KINDS:
        if word == kind:
            return kind
    raise InputError(f"kind={word!r}, expected one of: {', '.join(KINDS)}.")


def _check_words(request: EvaluateRequest) -> None:
    as_kind(request.kind)
    choices: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "predicted_objects": (request.predicted_objects, OBJECTS),
        "truth_objects": (request.truth_objects, OBJECTS),
        "n_spatial": (request.n_spatial, (2, 3)),
    }
    for name, (given, known) in choices.items():
        if given not in known:
            raise InputError(f"{name}={given!r}, expected one of: {', '.join(map(str, known))}.")


def _resolve_objects(request: EvaluateRequest, pair: LabelPair) -> tuple[EvaluateOptions, tuple[str, ...]]:
    if request.kind != "instances":
        return request.options, ()
    classes: dict[str, Any] = {}
    notes = []
    sides: dict[str, tuple[str, Source]] = {
        "predicted": (request.predicted_objects, pair.predicted),
        "truth": (request.truth_objects, pair.truth),
    }
    for name, (how, source) in sides.items():
        if how == "components" or (how == "auto" and source.dtype.itemsize == 1):
            classes[f"{name}_class"] = request.value
            why = f" ({source.dtype}; say 'ids' if these are instances)" if how == "auto" else ""
            notes.append(f"objects of {name}: components of class {request.value}{why}")
    return replace(request.options, **classes), tuple(notes)


def _report_classes(request: EvaluateRequest, pair: LabelPair, confusion: Confusion) -> EvaluateReport:
    notes = list(confusion.notes) + list(note_on_values(confusion))
    if confusion.n_ignored and request.options.ignore is not None:
        share = confusion.n_ignored / (confusion.n_ignored + confusion.n_pixels)
        notes.append(f"{confusion.n_ignored:,} pixels ({share:.1%}) are ignored")
    if confusion.n_ignored and confusion.score_class(0).n_truth == confusion.n_pixels:
        notes.append("the truth holds only background and ignored pixels: no score says how well objects were found")
    if not confusion.n_pixels:
        raise InputError(f"truth={request.truth}: all {confusion.n_ignored:,} pixels are ignored.")
    return EvaluateReport(request, pair.truth.shape, confusion.n_pixels, classes=confusion, notes=tuple(notes))


def _report_objects(request: EvaluateRequest, pair: LabelPair, counts: ObjectCounts) -> EvaluateReport:
    table: Contingency = counts.table
    seg = score_seg(table)  # refuses a truth without objects
    matches = score_matches(table, request.ious, counts.touching)
    objects = ObjectReport(
        n_truth=matches[0].n_truth,
        n_predicted=matches[0].n_predicted,
        seg=seg,
        matches=matches,
        mean_average_precision=mean_average_precision(matches),
        rand=score_rand(table),
    )
    n_pixels = int(table.n_pixels.sum())
    n_ignored = _size(pair) - n_pixels
    notes = [f"{n_ignored:,} pixels are ignored"] if n_ignored else []
    if objects.n_truth == 1 and request.truth_objects != "components":
        notes.append("the truth has one id: if it is a class map, its objects are components")
    is_read_as_ids = request.predicted_objects == "auto" and pair.predicted.dtype.itemsize > 1
    if objects.n_predicted == 1 < objects.n_truth and is_read_as_ids:
        notes.append("the prediction has one id: if it is a mask, its objects are components")
    return EvaluateReport(request, pair.truth.shape, n_pixels, objects=objects, notes=tuple(notes))


def _size(pair: LabelPair) -> int:
    n_pixels = pair.n_frames
    for size in pair.spatial_shape:
        n_pixels *= size
    return n_pixels
