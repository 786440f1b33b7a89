"""Compare a stored segmentation with the stored truth, block by block. Scores equal those of both images in memory.

Each block gives a table of counts. Tables add up exactly, so scores do not depend on the blocks, on where they ran or
on the order in which they finish. Memory holds a few blocks and one row per pair of overlapping objects.

::

    classes     block ─► 256 x 256 counts            ─► sum    ─► IoU, Dice, accuracy
    instances   block ─► (frame, id, id) : pixels    ─► merge  ─► SEG, F1, AP, Rand; touching ids, from a halo of 2 px
    membranes   plane ─► scores at 11 thresholds     ─► mean   ─► the best of each
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar, overload

import numpy as np

from segment_slide.pipeline.blocks.tasks import Wording, run_all
from segment_slide.pipeline.errors import InputError, TasksFailedError
from segment_slide.pipeline.scoring.class_values import ValueCounts, count_values, resolve
from segment_slide.pipeline.scoring.contingency import (
    Areas,
    Contingency,
    as_ids,
    count_pairs,
    merge_areas,
    merge_tables,
)
from segment_slide.pipeline.scoring.label_pair import LabelPair, Part, read_part
from segment_slide.pipeline.scoring.mask_files import Source
from segment_slide.pipeline.scoring.membrane_scores import MembraneScores, best_scores, score_thresholds
from segment_slide.pipeline.scoring.object_scores import TOUCHING_PX, as_areas, find_touching
from segment_slide.pipeline.scoring.options import EvaluateOptions, Kind
from segment_slide.pipeline.scoring.pixel_scores import IGNORE, Confusion, count_confusion
from segment_slide.pipeline.scoring.rand_scores import label_components
from segment_slide.pipeline.scoring.totals import Total
from segment_slide.unet.boxes import clip_box, widen_box

if TYPE_CHECKING:
    from distributed import Client

Result = TypeVar("Result")

WORDING = Wording("part(s) could not be compared, and there is no score without them:", "There is no score.", "parts")


@dataclass(frozen=True)
class ObjectCounts:
    """Counts that all scores of objects are computed from.

    Attributes
    ----------
    table : Contingency
        Table of all frames.
    touching : Areas
        True objects that touch another one in their frame.
    """

    table: Contingency
    touching: Areas


@overload
def evaluate_stored(
    predicted: Source,
    truth: Source,
    kind: Literal["classes"],
    options: EvaluateOptions | None = None,
    client: "Client | None" = None,
    on_block: Callable[[int], None] | None = None,
) -> Confusion: ...


@overload
def evaluate_stored(
    predicted: Source,
    truth: Source,
    kind: Literal["instances"],
    options: EvaluateOptions | None = None,
    client: "Client | None" = None,
    on_block: Callable[[int], None] | None = None,
) -> ObjectCounts: ...


def evaluate_stored(
    predicted: Source,
    truth: Source,
    kind: Kind,
    options: EvaluateOptions | None = None,
    client: "Client | None" = None,
    on_block: Callable[[int], None] | None = None,
) -> Confusion | ObjectCounts:
    """Count the pixels that each pair of labels of a segmentation and the truth share.

    Parameters
    ----------
    predicted, truth : ImageSource or ArraySource
        Labels on the same pixels; planes (t, and z in 2D) are frames.
    kind : {"classes", "instances"}
        Whether labels are compared as classes or as instances.
    options : EvaluateOptions, optional
        Block size, ignored value, and whether class maps are split into objects.
    client : Client, optional
        Client of a Dask cluster; None runs in this process. Pixels in memory are always compared in this process.
    on_block : callable, optional
        Called after each block with the number of its pixels.

    Returns
    -------
    Confusion or ObjectCounts
        Bit-equal for every block size, client and order. Unless options say it, the values of the whole image decide
        what 255 means; notes tell.

    Raises
    ------
    InputError
        Before any pixel is read: if sources do not match. While reading: if a value is negative or no class.
    BlockError
        If a chunk is damaged.
    IncompleteError
        If a block could not be compared for another reason. There is no score without it.
    """
    options = options or EvaluateOptions()
    pair = LabelPair(predicted, truth)
    check_pair(pair, kind, options)
    parts, client = _parts(pair, options, kind), client if pair.is_stored else None
    if kind == "classes":
        if options.reads_by_values:
            values = _run(functools.partial(_count_values, pair), parts, client, on_block)
            return resolve(sum(values, ValueCounts.none()))
        found = _run(functools.partial(_count_classes, pair, options), parts, client, on_block)
        return sum(found, Confusion(_no_counts()))
    tables, touching = Total(merge_tables), Total(merge_areas)
    for counts in _run(functools.partial(_count_objects, pair, options), parts, client, on_block):
        tables.add(counts.table)
        touching.add(counts.touching)
    return ObjectCounts(tables.merged(), touching.merged())


def score_stored_membranes(
    probability: Source,
    truth: Source,
    client: "Client | None" = None,
    on_plane: Callable[[int], None] | None = None,
) -> MembraneScores:
    """The EM challenge's scores of a stored probability map of cells, plane by plane (`score_membranes`).

    Raises
    ------
    InputError
        If the sources do not match, a plane has more than 2^28 pixels, a probability is outside [0, 1], or a plane of
        the truth has no cell.
    """
    pair, options = LabelPair(probability, truth), EvaluateOptions()
    check_pair(pair, "membranes", options)
    client = client if pair.is_stored else None
    by_frame = dict(_run(functools.partial(_score_plane, pair), _parts(pair, options, "membranes"), client, on_plane))
    return best_scores([by_frame[frame] for frame in sorted(by_frame)])


def check_pair(pair: LabelPair, kind: Kind | Literal["membranes"], options: EvaluateOptions) -> int:
    """Refuse images that cannot be compared, before a pixel is read. Return the number of blocks (or planes) to read.

    Raises
    ------
    InputError
        If shapes differ, labels are not integers, or planes are too large to be processed in one piece.
    """
    if options.block_px < 1:
        raise InputError(f"block={options.block_px} px, expected at least 1.")
    pair.check_shapes()
    if kind != "membranes":
        pair.check_labels()
    elif pair.truth.n_spatial != 2:
        raise InputError("membranes are scored in planes (y, x), expected 2 spatial axes: z is a plane axis.")
    if kind == "membranes" or (kind == "instances" and options.has_components):
        pair.check_planes()
    return sum(1 for _ in _parts(pair, options, kind))


# --- one block -----------------------------------------------------------------------------------------------------


def _parts(pair: LabelPair, options: EvaluateOptions, kind: Kind | Literal["membranes"]) -> Iterator[Part]:
    if kind == "membranes" or (kind == "instances" and options.has_components):
        return pair.planes()
    return pair.blocks(options.block_px)


def _count_values(pair: LabelPair, part: Part) -> ValueCounts:
    return count_values(read_part(pair.truth, part), read_part(pair.predicted, part))


def _count_classes(pair: LabelPair, options: EvaluateOptions, part: Part) -> Confusion:
    truth, predicted = read_part(pair.truth, part), read_part(pair.predicted, part)
    ignore = options.ignored
    if not options.is_binary:
        if ignore is not None and not 0 <= ignore <= IGNORE:  # a value such as -1 is no class
            kept = truth != ignore
            found = count_confusion(truth[kept], predicted[kept], None) if kept.any() else Confusion(_no_counts())
            return replace(found, n_ignored=int(kept.size - kept.sum()))
        return count_confusion(truth, predicted, ignore)
    ignored = np.zeros(truth.shape, bool) if ignore is None else truth == ignore
    binary = (as_ids(np.where(ignored, 0, truth), "truth") > 0).astype(np.uint8)
    binary[ignored] = IGNORE
    return count_confusion(binary, as_ids(predicted, "predicted") > 0, IGNORE)


def _no_counts() -> np.ndarray:
    return np.zeros((IGNORE + 1, IGNORE + 1), np.int64)


def _count_objects(pair: LabelPair, options: EvaluateOptions, part: Part) -> ObjectCounts:
    predicted = _objects(read_part(pair.predicted, part), "predicted", options.predicted_class)
    wide = clip_box(widen_box(part.box, TOUCHING_PX), pair.spatial_shape)
    own = tuple(slice(side.start - w.start, side.stop - w.start) for side, w in zip(part.box, wide, strict=True))
    labels = read_part(pair.truth, Part(part.frame, wide))
    ignore = options.ignored
    ignored = np.zeros(labels.shape, bool) if ignore is None else labels == ignore
    truth = _objects(np.where(ignored, labels.dtype.type(0), labels), "truth", options.truth_class)
    kept = ~ignored[own]
    table = count_pairs(truth[own][kept], predicted[kept], part.frame) if kept.any() else merge_tables([])
    return ObjectCounts(table, as_areas(part.frame, find_touching(truth, own)))


def _objects(labels: np.ndarray, name: str, value: int | None) -> np.ndarray:
    """Ids as they are stored, or the numbers of the components of one class."""
    return as_ids(labels if value is None else label_components(labels == value), name)


def _score_plane(pair: LabelPair, part: Part) -> tuple[int, np.ndarray]:
    return part.frame, score_thresholds(read_part(pair.truth, part), read_part(pair.predicted, part))


# --- all of them ---------------------------------------------------------------------------------------------------


def _run(
    function: Callable[[Part], Result],
    parts: Iterable[Part],
    client: "Client | None",
    on_block: Callable[[int], None] | None,
) -> Iterator[Result]:
    """Results in order of completion. Raises an error if any is missing."""
    try:
        for part, result in run_all(client, function, parts, _name, wording=WORDING):
            if on_block is not None:
                on_block(part.n_pixels)
            yield result
    except InputError as error:
        raise error.__cause__ or error from None
    except TasksFailedError as failed:
        raise failed if failed.fault_of_input is None else failed.fault_of_input.error from None


def _name(part: Part) -> str:
    sides = ", ".join(f"{side.start}:{side.stop}" for side in part.box)
    return f"frame {part.frame}, pixels ({sides})"
