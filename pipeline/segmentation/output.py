"""The segmentation's groups and arrays, created without any pixel."""

from typing import Any

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.manifest.homes import Made
from segment_slide.pipeline.segmentation.plan import SegmentPlan
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.label_records import SegmentationRecord
from segment_slide.pipeline.storage.names import label_group, probability_group
from segment_slide.pipeline.storage.place import list_label
from segment_slide.pipeline.storage.pyramid import calibrate
from segment_slide.pipeline.storage.record import ATTRIBUTE, has_mark
from segment_slide.pipeline.storage.sections import write_section


def create_output(location: str, name: str, plan: SegmentPlan, record: SegmentationRecord, *, in_place: bool) -> None:
    """Create all groups and arrays of an output, without any pixel.

    The record is written last: if it is there, everything else is there. An interrupted creation is done again with
    the same bytes.

    Parameters
    ----------
    location, name : str
        Store, and the label image's name.
    plan : SegmentPlan
        Shapes and calibration.
    record : SegmentationRecord
        Provenance, kept in the label group's attributes.
    in_place : bool
        The location is the input image, whose root metadata stay as they are.

    Raises
    ------
    OutputError
        If the location cannot be written.
    """
    labels = _calibrated(name, plan, "nearest", plan.source.axes)
    if not in_place and not has_mark(location):
        shown = ome.multiscale_attributes(ome.within(labels, label_group(name)))
        store.create_group(location, "", [], {"ome": shown, ATTRIBUTE: {"shows": label_group(name)}})
    list_label(location, name)
    if plan.probabilities is not None:
        arrays = plan.probability_arrays()
        scores = ome.multiscale_attributes(_calibrated(name, plan, "local_mean", arrays[0].axes))
        store.create_group(location, "probability", [], {})
        _create_image(location, probability_group(name), arrays, scores, record)
    shown = ome.label_attributes(labels, record.classes)
    _create_image(location, label_group(name), plan.label_arrays(), shown, record)


def what_it_makes(location: str, name: str, plan: SegmentPlan) -> Made:
    """Folders and files that a segmentation makes."""
    groups, above = [label_group(name)], ["zarr.json", "labels/zarr.json"]
    if plan.probabilities is not None:
        groups.append(probability_group(name))
        above.append("probability/zarr.json")
    return Made(location, tuple(groups), tuple(above))


def _create_image(
    location: str, group: str, arrays: list[ArraySpec], shown: dict[str, Any], record: SegmentationRecord
) -> None:
    """Write our mark, then the arrays, then their metadata."""
    store.create_group(location, group, [], {ATTRIBUTE: {}})
    store.create_group(location, group, arrays, {"ome": shown, ATTRIBUTE: write_section(record)})


def _calibrated(name: str, plan: SegmentPlan, method: Any, axes: str) -> ome.Multiscale:
    """Where the output's voxels lie: as the input's, moved by the start of the chosen planes."""
    image = plan.source.image
    level, units = image.multiscale.levels[image.level], dict(zip(image.axes, image.multiscale.units, strict=True))
    scale = dict(zip(image.axes, level.scale, strict=True))
    start = dict(zip(image.axes, level.translation, strict=True))
    for axis, (first, _) in zip(plan.source.plane_axes, plan.source.ranges, strict=True):
        start[axis] += first * scale[axis]
    scale["c"], start["c"], units["c"] = 1.0, 0.0, None
    first_level = ome.Level("0", tuple(scale[a] for a in axes), tuple(start[a] for a in axes))
    return calibrate(
        name, axes, tuple(units[a] for a in axes), first_level, plan.n_levels, method, halved=plan.source.spatial_axes
    )


def stored_blocks(location: str, name: str, plan: SegmentPlan) -> set[Index]:
    """Blocks whose shards are all there: labels, and probabilities if they are stored."""
    done = store.stored_shards(location, f"{label_group(name)}/0")
    if plan.probabilities is None:
        return done
    where = plan.channel_position
    scores = store.stored_shards(location, f"{probability_group(name)}/0")
    return done & {(*index[:where], *index[where + 1 :]) for index in scores}
