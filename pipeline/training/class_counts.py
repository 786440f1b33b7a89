"""The first pass over annotations: count the pixels of each class in the whole data set, for w_c of Eq. 2."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.blocks.tasks import Wording, run_all
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage.calibration import pixel_um
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.pipeline.training.pairing import tell_apart
from segment_slide.pipeline.training.records import WeightChoices
from segment_slide.pipeline.training.training_set import AnnotatedImage, StoredPixels, TrainingSet
from segment_slide.pipeline.training.weights_block import BlockCount, WeightJob, count_block
from segment_slide.pipeline.training.weights_inputs import AnnotatedPixels, OnBlock
from segment_slide.pipeline.training.weights_plan import WeightPlan
from segment_slide.unet.sample import IGNORE
from segment_slide.unet.weight_map import count_class_weights

if TYPE_CHECKING:
    from distributed import Client


_SHOWN = 5
WORDING = Wording("block(s) could not be counted, and nothing is counted without them:")


def count_classes(
    plan: WeightPlan, jobs: Sequence[WeightJob], client: "Client | None", on_block: OnBlock
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Read all annotations once.

    Returns
    -------
    counts : dict of ndarray of int64, (*blocks, n_classes)
        By image name: annotated pixels of each class and block, ridges cut.
    notes : tuple of str
        Warnings about what looks unintended.

    Raises
    ------
    InputError
        If values do not fit the kind of labels, nothing is annotated or nothing is foreground.
    IncompleteError
        If blocks failed twice. The message names them. There is no count without them.
    """
    tables = {job.name: np.zeros((*job.grid.counts, IGNORE), np.int64) for job in jobs}
    ids: dict[str, set[int]] = {job.name: set() for job in jobs}  # at most two ids of each block
    items = ((job, index) for job in jobs for index in job.grid.indices())
    for (job, index), found in run_all(client, _count, items, _name, wording=WORDING):
        tables[job.name][index] = found.per_class
        ids[job.name] |= {found.lowest_id, found.highest_id} - {0}
        on_block(math.prod(part.stop - part.start for part in job.grid.write_box(index)))
    n_classes = _count_names(plan, tables)
    notes = _note_on_ids(ids) if plan.options.kind == "instances" else ()
    notes += _note_on_ignored(plan, tables)
    return {name: table[..., :n_classes] for name, table in tables.items()}, notes


def _count(item: tuple[WeightJob, Index]) -> BlockCount:
    return count_block(*item)


def _name(item: tuple[WeightJob, Index]) -> str:
    return f"{item[0].name}, block {item[1]}"


def _note_on_ids(ids: Mapping[str, Collection[int]]) -> tuple[str, ...]:
    """Warn of images with a single object, because these are often masks."""
    single = [f"{name} ({next(iter(found))})" for name, found in ids.items() if len(found) == 1]
    if not single:
        return ()
    shown = ", ".join(single[:_SHOWN]) + (" …" if len(single) > _SHOWN else "")
    note = (
        f"{len(single)} of {len(ids)} label images have one value beside 0, and so one object, and no border between "
        f"objects: {shown}. If they are masks, make the set anew with `kind='binary'`."
    )
    return (note,)


def _note_on_ignored(plan: WeightPlan, tables: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Warn of images in which all that is not background is ignored: the ignored value may mark the foreground."""
    sizes = {pair.name: math.prod(plan.grid(pair).shape) for pair in plan.annotation.pairs}
    only = [name for name, table in tables.items() if table.sum() == table[..., 0].sum() < sizes[name]]
    if not only or plan.options.ignore is None:
        return ()
    shown = ", ".join(only[:_SHOWN]) + (" …" if len(only) > _SHOWN else "")
    note = (
        f"{len(only)} of {len(tables)} label images hold only background and the ignored value {plan.options.ignore}: "
        f"{shown}. If the value marks foreground in them, as in masks of 0 and 255, give it a class of its own."
    )
    return (note,)


def _count_names(plan: WeightPlan, tables: dict[str, np.ndarray]) -> int:
    """Number of classes of the set: those that are named, or all up to the highest value in the labels."""
    total = np.sum([table.reshape(-1, table.shape[-1]).sum(axis=0) for table in tables.values()], axis=0)
    highest, names = int(np.flatnonzero(total).max(initial=-1)), plan.options.class_names
    if highest < 0:
        raise InputError(f"nothing is annotated: all labels have the ignored value {plan.options.ignore}.")
    if highest == 0:
        ignored = plan.options.ignore
        mask = f" If {ignored} is foreground, as in masks, leave `ignore` out." if ignored is not None else ""
        raise InputError(
            f"nothing is foreground: all labels are 0 (or ignored); a network would learn to find nothing. Name the "
            f"right label images.{mask}"
        )
    if np.count_nonzero(total) == 1:
        raise InputError(
            f"everything annotated has class {highest}; a network would learn to find nothing else. Annotate what is "
            f"background too, as 0."
        )
    empty = [name for name, table in tables.items() if not table.any()]
    if empty:
        raise InputError(f"{', '.join(empty)}: all labels have the ignored value; leave the image out.")
    if names and highest >= len(names):
        raise InputError(f"the labels hold class {highest}, but {len(names)} classes are named: {', '.join(names)}.")
    if not names and (missing := np.flatnonzero(total[1:highest] == 0) + 1).size:
        raise InputError(
            f"the labels hold class {highest}, but nothing of class {missing[0]}. If that is meant, name all classes; "
            f"else number them 0, 1, 2 … (PNG files of 1, 2 or 4 bits are read as 0 to 255), or choose another kind."
        )
    return len(names) or max(highest + 1, 2)


def describe_set(
    plan: WeightPlan,
    found: Sequence[AnnotatedPixels],
    counts: Mapping[str, np.ndarray],
    notes: tuple[str, ...] = (),
) -> TrainingSet:
    """The training set that results from plan, counts and notes."""
    images = []
    pairs = plan.annotation.pairs
    image_files, label_files = tell_apart([p.image.path for p in pairs]), tell_apart([p.labels.path for p in pairs])
    for pixels, *pair in zip(found, image_files, label_files, strict=True):
        job = pixels.job
        per_class = counts[job.name].reshape(-1, counts[job.name].shape[-1]).sum(axis=0)
        images.append(
            AnnotatedImage(
                job.name,
                job.group,
                job.grid.shape,
                job.grid.block,
                tuple(map(int, per_class)),
                StoredPixels.describe(pixels.image, plan.location),
                StoredPixels.describe(pixels.labels, plan.location),
                (pair[0], pair[1]),
            )
        )
    totals = np.sum([image.class_counts for image in images], axis=0)
    first, options = found[0].image, plan.options
    names = first.image.multiscale.channel_names
    return TrainingSet(
        plan.location,
        plan.n_spatial,
        plan.options.class_names or _default_names(len(totals)),
        count_class_weights(totals, balance=plan.options.settings.balance),
        tuple(images),
        WeightChoices(**asdict(options.settings), kind=options.kind, ignore=options.ignore, chunk=plan.chunk),
        tuple(names[channel] for channel in first.channels) if names else (),
        _pixel_size_um(first),
        notes,
    )


def _default_names(n_classes: int) -> tuple[str, ...]:
    if n_classes == 2:
        return ("background", "foreground")
    return ("background", *(f"class {number}" for number in range(1, n_classes)))


def _pixel_size_um(source: ImageSource) -> tuple[float, ...]:
    sizes = [pixel_um(source.image, axis) for axis in source.spatial_axes]
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == len(sizes) else ()
