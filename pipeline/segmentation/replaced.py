"""Which blocks of a begun segmentation depend on chunks of its input that were replaced, and how to forget them.

The output's work folder holds lists of what was read (`pipeline.inputs`) until the segmentation is complete::

    labels/<name>/work/read/image    parts of chunks, their checksums
"""

import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import replace

from zarr.core.sync import sync

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import Index, reflect
from segment_slide.pipeline.errors import IncompleteError, OutputMismatchError
from segment_slide.pipeline.inputs.pieces import find_differing
from segment_slide.pipeline.inputs.watch import READ, InputWatch, begin_list, explain_changed, is_whole, watch
from segment_slide.pipeline.reads.noted import read_list, replace_list
from segment_slide.pipeline.segmentation.background import coarse_source
from segment_slide.pipeline.segmentation.output import stored_blocks
from segment_slide.pipeline.segmentation.plan import SegmentPlan
from segment_slide.pipeline.segmentation.record import update_record
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import is_sampled
from segment_slide.pipeline.storage.label_records import SegmentationRecord, SegmentedInput
from segment_slide.pipeline.storage.names import label_group, probability_group
from segment_slide.pipeline.zarr_stores.checked import has_listing

log = logging.getLogger(__name__)

IMAGE, MASK = "image", "mask"
_MOST_NAMED = 10
_NUMBERS = re.compile(r"\d+")


def work_path(name: str) -> str:
    """Folder of what an unfinished segmentation keeps beside its labels."""
    return f"{label_group(name)}/work"


def list_folder(location: str, name: str) -> str:
    """Folder of the lists of what was read."""
    return store.join(location, work_path(name), READ)


def watch_input(plan: SegmentPlan, location: str, name: str) -> InputWatch:
    """Take down the status of the input's files, and of the level that tells glass from tissue; nothing is written."""
    mask = coarse_source(plan.source).image if plan.parameters.skip_background else None
    return watch({IMAGE: plan.source.image, MASK: mask}, list_folder(location, name), {})


def keep_list(plan: SegmentPlan, watched: InputWatch, *, n_done: int) -> SegmentPlan:
    """The plan, with a list of what is read of its input from now on, if anything is still to be read."""
    if n_done == plan.grid.n_blocks:
        return plan
    begin_list(watched.folder, is_whole=not n_done)
    return replace(plan, source=replace(plan.source, image=watched.images[IMAGE]))


def check_input(watched: InputWatch, location: str, name: str, record: SegmentationRecord) -> None:
    """Refuse to call a segmentation complete whose input changed while it was made; else delete the lists.

    Raises
    ------
    IncompleteError
        Naming the files. The record names them too, so that nobody takes the segmentation for complete.
    """
    made_of = record.input or SegmentedInput()
    marks = {IMAGE: made_of.fingerprint, MASK: made_of.mask_fingerprint or ""}
    changed = replace(watched, fingerprints=marks).find_changed()
    kept = tuple(path.removeprefix(f"{watched.images[IMAGE].location}/") for path in changed[:_MOST_NAMED])
    if record.input is not None and kept != tuple(made_of.changed):
        update_record(location, name, replace(record, input=replace(made_of, changed=kept)))
    if changed:
        raise IncompleteError(
            explain_changed(
                changed,
                f"All blocks are stored in {location}, but they may be of two images, so it is not complete. If the "
                f"input is as it should be now, run the same command with `input_repaired`: what was made of these "
                f"files is made again.",
            )
        )
    store.remove(location, work_path(name))


def find_replaced(plan: SegmentPlan, location: str, name: str, recorded: SegmentedInput | None) -> set[str]:
    """Files of the input that are not what blocks of a begun output were made from, by what they read."""
    files = read_list(store.join(list_folder(location, name), IMAGE))
    # a fingerprint of all content is compared too: then only a file that was two things within one run is of interest
    is_known = recorded is not None and not is_sampled(recorded.fingerprint)
    return find_differing(plan.source.image, files, again=not is_known)


def refuse_replaced(plan: SegmentPlan, location: str, name: str, recorded: SegmentedInput | None) -> None:
    """Refuse to go on with blocks that were made from other chunks than those that lie there now.

    Raises
    ------
    OutputMismatchError
        Naming the chunks.
    """
    if names := find_replaced(plan, location, name, recorded):
        base = store.join(plan.source.image.location, plan.source.image.array_path)
        remedy = (
            f"output={location} was begun from other content. If only damaged chunks were replaced, add "
            f"`input_repaired`: what was made of them is made again. Otherwise choose another output, or delete it."
        )
        raise OutputMismatchError(explain_changed((store.join(base, file) for file in sorted(names)), remedy))


def forget_replaced(plan: SegmentPlan, location: str, name: str) -> int:
    """Delete all that was made from chunks that were replaced, and return the number of blocks.

    Coarse levels go first, then labels, then the lines of the list. If this is interrupted, the next run does it again.

    Raises
    ------
    OutputError
        If something cannot be deleted.
    """
    done = stored_blocks(location, name, plan)
    _warn_if_unknown(plan, location, name, n_done=len(done))
    names = find_replaced(plan, location, name, None)  # a fingerprint does not say which files
    blocks = done & set(blocks_touching(plan, names))
    for group, arrays, where in _images(plan, name):
        for level in range(len(arrays) - 1, -1, -1):
            _delete_shards(location, group, arrays[level], where, [_scaled(plan, index, level) for index in blocks])
    folder = store.join(list_folder(location, name), IMAGE)
    if names:
        replace_list(folder, {file: pieces for file, pieces in read_list(folder).items() if file not in names})
        log.warning(
            "%d block(s) touched one of the %d file(s) of the input that were replaced, and are made again",
            *(len(blocks), len(names)),
        )
    return len(blocks)


def _warn_if_unknown(plan: SegmentPlan, location: str, name: str, *, n_done: int) -> None:
    if not n_done or (has_listing(plan.source.image.location) and is_whole(list_folder(location, name))):
        return
    log.warning(
        "it cannot be told which of the %d blocks that are done touched a chunk that was replaced: no list says what "
        "they read. All of them are kept. If a chunk was replaced that they had read, delete %s and begin anew.",
        *(n_done, location),
    )


def blocks_touching(plan: SegmentPlan, names: Iterable[str]) -> Iterable[Index]:
    """Blocks whose read box lies on a chunk of the input, mirrored pixels included; all, if metadata have changed."""
    image, source = plan.source.image, plan.source
    chunks = [_index_of(name, len(image.shape)) for name in names]
    if None in chunks:
        yield from plan.grid.indices()
        return
    places = {tuple(chunk[image.axes.index(axis)] for axis in source.axes) for chunk in chunks if chunk is not None}
    starts = dict(zip(source.plane_axes, (first for first, _ in source.ranges), strict=True))
    sizes = dict(zip(image.axes, image.chunks, strict=True))
    read: dict[tuple[int, int, int], set[int]] = {}

    def chunks_of(number: int, axis: str, side: slice) -> set[int]:
        key = (number, side.start, side.stop)
        if key not in read:
            offset, size = starts.get(axis, 0), image.size(axis)
            pixels = range(side.start + offset, side.stop + offset)
            if axis in source.spatial_axes:
                read[key] = {reflect(pixel, size) // sizes[axis] for pixel in pixels}
            else:
                read[key] = {pixel // sizes[axis] for pixel in pixels}
        return read[key]

    for index in plan.grid.indices():
        box = plan.grid.read_box(index)
        touched = [chunks_of(k, axis, side) for k, (axis, side) in enumerate(zip(source.axes, box, strict=True))]
        if any(all(part in some for part, some in zip(place, touched, strict=True)) for place in places):
            yield index


def _index_of(name: str, ndim: int) -> Index | None:
    """Position of a chunk by its file's name, such as "c/0/1", "0/1" or "0.1"; None for metadata."""
    numbers = _NUMBERS.findall(name)
    return tuple(map(int, numbers)) if len(numbers) == ndim and "zarr" not in name and ".z" not in name else None


def _images(plan: SegmentPlan, name: str) -> list[tuple[str, list[ArraySpec], int | None]]:
    """Images of the output, those first whose shards do not say that a block is done."""
    found: list[tuple[str, list[ArraySpec], int | None]] = [(label_group(name), plan.label_arrays(), None)]
    if plan.probabilities is not None:
        found.insert(0, (probability_group(name), plan.probability_arrays(), plan.channel_position))
    return found


def _scaled(plan: SegmentPlan, index: Index, level: int) -> tuple[slice, ...]:
    """The pixels of a level that are made of a block, and one more on each side."""
    box = plan.grid.write_box(index)
    if level == 0:
        return box
    step, n_planes = 2**level, plan.grid.n_planes_axes
    spatial = (slice(max(0, side.start // step - 1), side.stop // step + 2) for side in box[n_planes:])
    return (*box[:n_planes], *spatial)


def _delete_shards(
    location: str, group: str, array: ArraySpec, where: int | None, boxes: Collection[tuple[slice, ...]]
) -> None:
    """Delete the shards of an array that boxes lie on; `where` is the position of its channel axis, if it has one."""
    path = f"{group}/{array.path}"
    shard = [size for axis, size in enumerate(array.shard) if axis != where]
    wanted = [
        [(side.start // size, -(-side.stop // size)) for side, size in zip(box, shard, strict=True)] for box in boxes
    ]
    if not wanted:
        return
    writable = store.open_store(location, writable=True)
    for stored in store.stored_shards(location, path):
        index = stored if where is None else (*stored[:where], *stored[where + 1 :])
        if any(all(first <= k < stop for k, (first, stop) in zip(index, box, strict=True)) for box in wanted):
            sync(writable.delete(f"{path}/c/{'/'.join(map(str, stored))}"))
