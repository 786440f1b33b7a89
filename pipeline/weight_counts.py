"""The first pass over annotations: how many pixels each class has in the whole data set, for w_c of Eq. 2."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from pipeline.grid import Index
from pipeline.source import ImageSource
from pipeline.tasks import run_tasks
from pipeline.training_set import AnnotatedImage, StoredPixels, TrainingSet
from pipeline.weight_blocks import WeightJob, count_block
from pipeline.weight_inputs import AnnotatedPixels, OnBlock, expect
from pipeline.weight_plan import WeightPlan
from unet.sample import IGNORE
from unet.weight_map import count_class_weights

if TYPE_CHECKING:
    from distributed import Client


def count_classes(
    plan: WeightPlan, jobs: Sequence[WeightJob], client: "Client | None", on_block: OnBlock
) -> dict[str, np.ndarray]:
    """Annotated pixels of each class and block, ridges cut: by image name, int64, (*blocks, n_classes).

    Raises
    ------
    InputError
        If values cannot be what they are said to be, nothing is annotated or nothing is foreground.
    """
    tables = {job.name: np.zeros((*job.grid.counts, IGNORE), np.int64) for job in jobs}
    items = ((job, index) for job in jobs for index in job.grid.indices())
    with contextlib.closing(run_tasks(client, _count, items)) as results:
        for (job, index), counts, error in results:
            tables[job.name][index] = expect(counts, error, f"{job.name}, block {index}")
            on_block(math.prod(part.stop - part.start for part in job.grid.write_box(index)))
    n_classes = _count_names(plan, tables)
    return {name: table[..., :n_classes] for name, table in tables.items()}


def _count(item: tuple[WeightJob, Index]) -> np.ndarray:
    return count_block(*item)


def _count_names(plan: WeightPlan, tables: dict[str, np.ndarray]) -> int:
    """Classes of the set: as named, or up to the highest that occurs."""
    total = np.sum([table.reshape(-1, table.shape[-1]).sum(axis=0) for table in tables.values()], axis=0)
    highest, names = int(np.flatnonzero(total).max(initial=-1)), plan.options.class_names
    if highest < 0:
        raise InputError(f"nothing is annotated: all labels have the ignored value {plan.options.ignore}.")
    if highest == 0:
        raise InputError(
            "nothing is foreground: all labels are 0 (or ignored); a network would learn to find nothing. Name the "
            "right label images."
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


def describe_set(plan: WeightPlan, found: Sequence[AnnotatedPixels], counts: dict[str, np.ndarray]) -> TrainingSet:
    """The training set that counts and plan make."""
    images = []
    for pixels in found:
        job = pixels.job
        per_class = counts[job.name].reshape(-1, counts[job.name].shape[-1]).sum(axis=0)
        images.append(
            AnnotatedImage(
                job.name,
                job.group,
                job.grid.shape,
                job.grid.block,
                tuple(map(int, per_class)),
                StoredPixels.describe(pixels.image),
                StoredPixels.describe(pixels.labels),
            )
        )
    totals = np.sum([image.class_counts for image in images], axis=0)
    first, settings = found[0].image, asdict(plan.options.settings)
    names = first.image.multiscale.channel_names
    return TrainingSet(
        plan.location,
        plan.n_spatial,
        plan.options.class_names or _default_names(len(totals)),
        count_class_weights(totals, balance=plan.options.settings.balance),
        tuple(images),
        {**settings, "kind": plan.options.kind, "ignore": plan.options.ignore, "chunk": plan.chunk},
        tuple(names[channel] for channel in first.channels) if names else (),
        _pixel_size_um(first),
    )


def _default_names(n_classes: int) -> tuple[str, ...]:
    if n_classes == 2:
        return ("background", "foreground")
    return ("background", *(f"class {number}" for number in range(1, n_classes)))


_MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "meter": 1e6}


def _pixel_size_um(source: ImageSource) -> tuple[float, ...]:
    image = source.image
    level, sizes = image.multiscale.levels[image.level], []
    for axis in source.spatial_axes:
        position = image.axes.index(axis)
        factor = _MICROMETRES.get(image.multiscale.units[position] or "")
        sizes.append(level.scale[position] * factor if factor else 0.0)
    return tuple(sizes) if all(sizes) else ()
