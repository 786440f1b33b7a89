"""The instance image on disk: where it may be stored, its groups and metadata, and the record of how it was made.

::

    OUT.ome.zarr/labels/<name>-instances/0, 1, …    uint32 or uint64 ids, `nearest` pyramid
                                         work       intermediate files, until the ids are written
"""

from dataclasses import replace

import numpy as np

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.errors import InputError, OutputError
from segment_slide.pipeline.objects.plan import InstancePlan
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.complete import require_complete
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.label_records import ClassesIdentity, read_instances_record
from segment_slide.pipeline.storage.lock import LOCK_NAME
from segment_slide.pipeline.storage.names import check_name, instance_group, instances_name, label_group
from segment_slide.pipeline.storage.place import check_output, has_label, list_label, read_label_names
from segment_slide.pipeline.storage.pyramid import calibrate
from segment_slide.pipeline.storage.record import ATTRIBUTE, compare_records, has_mark, identify_group
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.pipeline.storage.work_folder import WorkFolder

FILLED, UNGROWN = "filled", "ungrown"  # classes with filled holes, and ids before their ridges are given back


def work_folder(location: str, name: str, step: str) -> WorkFolder:
    """Folder where a step keeps the files that other blocks need."""
    return WorkFolder(location, f"{work_path(name)}/{step}")


def work_path(name: str) -> str:
    """Folder of all intermediate files."""
    return f"{instance_group(name)}/work"


def find_labels(location: str, name: str, *, level: int = 0, axes: str | None = None) -> tuple[StoredImage, bool]:
    """The class map to label, and whether it is a label image in `labels/` of the location.

    Raises
    ------
    InputError
        If there is none, or it is not complete. The message names the label images that exist.
    """
    location = store.resolve_location(location)
    check_name(name)
    listed = [found for found in read_label_names(location) if has_label(location, found)]
    if has_label(location, name):
        image = describe_image(store.join(location, label_group(name)), level=level, axes=axes)
        require_complete(image)
        return image, True
    if listed:
        raise InputError(f"{location} has no label image {name!r}; choose with `name`: {', '.join(listed)}.")
    image = describe_image(location, level=level, axes=axes)
    require_complete(image)
    return image, False


def is_ours(location: str, name: str) -> bool:
    """Whether a label image was made by this package."""
    return has_mark(location, label_group(name))


def check_place(location: str, name: str, input_location: str, plan: InstancePlan, *, in_place: bool) -> bool:
    """Refuse a place where instances cannot or must not be written. Return whether they were begun there before.

    Parameters
    ----------
    location, name : str
        Store for the ids, and name of the class map.
    input_location : str
        The store that classes are read from.
    plan : InstancePlan
        The plan of this run.
    in_place : bool
        Whether both are the same store.

    Raises
    ------
    OutputError
        If files that are not ours are there.
    OutputMismatchError
        If other instances were begun there. The message names what differs.
    """
    check_output(location, instances_name(name), input_location, in_place=in_place)
    begun = read_instances_record(location, name)
    if begun:
        compare_records(begun, plan.record(location, begun), store.join(location, instance_group(name)))
    return begun is not None


def begin(location: str, name: str, plan: InstancePlan, from_model: tuple[str, ...] = (), *, in_place: bool) -> None:
    """Record what is about to be made. The array comes later, because its dtype depends on the number of objects.

    Each group is marked as ours from the start, so that a run that is killed at any moment is recognised on resume.
    `from_model` are the options that the model recommended.
    """
    group = instance_group(name)
    if not in_place and not has_mark(location):
        shown = ome.multiscale_attributes(ome.within(_calibrated(name, plan), group))
        store.create_group(location, "", [], {"ome": shown, ATTRIBUTE: {"shows": group}})
    identity = ClassesIdentity(identify_group(plan.image.location))
    noted = replace(plan.record(location), identity=identity, from_model=from_model)
    store.create_group(location, group, [], {ATTRIBUTE: write_section(noted)})


def renew_record(location: str, name: str, plan: InstancePlan) -> None:
    """Replace the fingerprint of an older version, which holds times of files, in a begun run that may go on."""
    begun = read_instances_record(location, name)
    if begun is not None and (renewed := plan.renew(begun)) != begun:
        store.update_attributes(location, instance_group(name), {ATTRIBUTE: write_section(renewed)})


def what_a_run_would_create(location: str, name: str) -> str:
    """Path of everything that a new run adds to a store: the store itself ("") if nothing is there yet."""
    group = instance_group(name)
    for depth, folder in enumerate(("", *group.split("/")[:-1])):
        if store.read_attributes(location, folder) is None and not store.list_names(store.join(location, folder)) - {
            LOCK_NAME
        }:
            return "/".join(group.split("/")[:depth])
    return group


def create_work(location: str, name: str, plan: InstancePlan) -> None:
    """Create the intermediate arrays, unless they exist already."""
    if has_mark(location, work_path(name)):
        return
    wanted = {FILLED: ("uint8", plan.parameters.fill_holes_px), UNGROWN: ("uint64", plan.parameters.regrow)}
    arrays = [
        ArraySpec(array, plan.grid.shape, plan.grid.block, plan.chunk, dtype, plan.axes)
        for array, (dtype, is_wanted) in wanted.items()
        if is_wanted
    ]
    store.create_group(location, work_path(name), arrays, {ATTRIBUTE: {}})


def create_arrays(location: str, name: str, plan: InstancePlan, count: int) -> None:
    """Create the empty instance image, unless it exists already.

    Arrays are created first, then the label image's metadata, and the entry in `labels/` last. So a viewer finds the
    image only when it is complete.
    """
    group = instance_group(name)
    if "ome" not in (store.read_attributes(location, group) or {}):
        shown = ome.label_attributes(_calibrated(name, plan))
        store.create_group(location, group, plan.arrays(ids_dtype(count)), {"ome": shown})
    list_label(location, instances_name(name))


def ids_dtype(count: int) -> str:
    """The smallest dtype that holds all ids and that viewers can show.

    >>> ids_dtype(2**32 - 1), ids_dtype(2**32)
    ('uint32', 'uint64')
    """
    return "uint32" if count <= np.iinfo(np.uint32).max else "uint64"


def finish(location: str, name: str, n_objects: int, n_larger_than_halo: int) -> None:
    """Record that all ids are written.

    Parameters
    ----------
    location, name : str
        Store and class map.
    n_objects, n_larger_than_halo : int
        Number of objects, and how many of them were larger than the halo. Both are added to the record.
    """
    record = read_instances_record(location, name)
    if record is None:
        raise OutputError(f"{store.join(location, instance_group(name))} was deleted while it was written.")
    done = replace(record, n_objects=n_objects, n_larger_than_halo=n_larger_than_halo)
    store.update_attributes(location, instance_group(name), {ATTRIBUTE: write_section(done)})


def remove_work(location: str, name: str) -> None:
    """Delete the intermediate files once all ids are written."""
    store.remove(location, work_path(name))


def _calibrated(name: str, plan: InstancePlan) -> ome.Multiscale:
    """Positions of the ids' voxels: the same as those of the classes."""
    image = plan.image
    level, units = image.multiscale.levels[image.level], dict(zip(image.axes, image.multiscale.units, strict=True))
    scale, start = (dict(zip(image.axes, values, strict=True)) for values in (level.scale, level.translation))
    first = ome.Level("0", tuple(scale[a] for a in plan.axes), tuple(start[a] for a in plan.axes))
    names = tuple(units[axis] for axis in plan.axes)
    return calibrate(instances_name(name), plan.axes, names, first, plan.n_levels, "nearest", halved=plan.spatial_axes)
