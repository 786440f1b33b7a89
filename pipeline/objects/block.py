"""The tasks for one block of an instance segmentation: find, rank and write. They do not depend on who calls them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segment_slide.pipeline.blocks.grid import BlockGrid, Index, ceil_divide
from segment_slide.pipeline.errors import UnreadableChunkError
from segment_slide.pipeline.objects.block_files import (
    BlockObjects,
    FaceObjects,
    first_pixels,
    load_faces,
    load_objects,
    save_block,
    shared_faces,
)
from segment_slide.pipeline.objects.components import Components, label_components, number_pieces
from segment_slide.pipeline.objects.ranks import number_objects, rank_row
from segment_slide.pipeline.objects.unite import JoinJob
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.labels import LabelSource
from segment_slide.unet.boxes import Box, clip_box, widen_box

BASES = "bases"
REGROW_REACH_PX = 2  # the ridge that training cuts is two pixels wide where it runs along y (`pipeline.objects.regrow`)


@dataclass(frozen=True)
class ObjectsJob:
    """What tasks need to label a slide.

    Parameters
    ----------
    source : LabelSource
        Class of each pixel.
    join : JoinJob
        Blocks, connectivity, intermediate files.
    min_size_px : int
        Smaller objects are dropped.
    split_depth_px : float, optional
        If given, touching objects are split at necks of this depth (`pipeline.objects.split`).
    spacing : tuple of float
        Pixel size per spatial axis, relative to the last one's.
    location, array_path : str
        Store and array that the ids are written into.
    """

    source: LabelSource
    join: JoinJob
    min_size_px: int
    split_depth_px: float | None
    spacing: tuple[float, ...]
    location: str
    array_path: str


@dataclass(frozen=True)
class RegrowJob:
    """What tasks need to give ridges back to objects: the ids as found, and where to write the result."""

    grid: BlockGrid
    location: str
    source_path: str
    target_path: str


@dataclass(frozen=True)
class RankItem:
    """A row of blocks to rank, and which face objects of each block are counted."""

    row: Index
    counted: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class RankedRow:
    """For a row of blocks: how many objects begin in each leading line, and the ranks of the face objects.

    `sizes` are the sizes of its objects that are not face objects, and how many have each; None if a file lacks them.
    """

    row: Index
    totals: np.ndarray
    ranks: tuple[np.ndarray, ...]
    sizes: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True)
class WriteItem:
    """A block to write.

    Attributes
    ----------
    index : tuple of int
        The block.
    before_rows : ndarray of int64
        Number of objects that begin before the block's row, per leading line.
    counted : ndarray of bool, (face objects,)
        Face objects that begin here and are kept.
    ids : ndarray of uint64, (face objects,)
        Ids of the block's face objects.
    """

    index: Index
    before_rows: np.ndarray
    counted: np.ndarray
    ids: np.ndarray


def find_objects(job: ObjectsJob, index: Index) -> None:
    """The first pass: find a block's objects and save them."""
    grid, join = job.join.grid, job.join
    objects = _label(job, index) if job.split_depth_px is None else _split(job, index)
    kept = objects.columns["size"] >= job.min_size_px
    save_block(join.work, index, objects, shared_faces(grid, index), kept)


def _label(job: ObjectsJob, index: Index) -> BlockObjects:
    """Connected components."""
    grid = job.join.grid
    classes = job.source.read(grid.write_box(index))
    components = label_components(classes, job.join.connectivity, planes=grid.n_planes_axes)
    return BlockObjects(components, _columns(job, index, components, classes.reshape(-1)))


def _columns(job: ObjectsJob, index: Index, components: Components, classes: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "size": components.sizes,
        "first": first_pixels(job.join.grid, index, components),
        "class": classes[components.first_pixel],
    }


def _split(job: ObjectsJob, index: Index) -> BlockObjects:
    """Pieces of touching objects, found in the block and its halo, so that whole objects are seen."""
    from segment_slide.pipeline.objects.split import split_touching

    grid = job.join.grid
    planes, owned = grid.n_planes_axes, grid.write_box(index)
    read = clip_box(grid.read_box(index), grid.shape)
    classes = job.source.read(read)
    spatial = read[planes:]
    pieces = split_touching(
        classes.reshape(classes.shape[planes:]),
        depth_px=job.split_depth_px or 0.0,
        spacing=job.spacing,
        connectivity=job.join.connectivity,
        open_faces=tuple((s.start > 0, s.stop < n) for s, n in zip(spatial, grid.shape[planes:], strict=True)),
    )
    inner: Box = tuple(slice(o.start - r.start, o.stop - r.start) for o, r in zip(owned, read, strict=True))
    components, piece = number_pieces(pieces.labels.reshape(classes.shape)[inner])
    columns = _columns(job, index, components, np.ascontiguousarray(classes[inner]).reshape(-1))
    seed = pieces.seed[piece - 1]
    place = np.unravel_index(np.maximum(seed, 0), classes.shape[planes:])
    whole = np.ravel_multi_index([p + s.start for p, s in zip(place, spatial, strict=True)], grid.shape[planes:])
    columns |= {"seed": np.where(seed < 0, -1, whole), "cut": pieces.cut[piece - 1]}
    return BlockObjects(components, columns)


def rank_objects(job: ObjectsJob, item: RankItem) -> RankedRow:
    """Between the passes: rank the objects of a row, and save for each block's task what it needs."""
    join = job.join
    # The counts of a row are needed together. The faces are not, and those of a wide volume would not fit in memory.
    blocks = [replace(load_faces(join.work, index), faces={}) for index in join.row_blocks(item.row)]
    owned = join.grid.write_box((*item.row, 0))[-2]
    ranked = rank_row(blocks, item.counted, owned.stop - owned.start)
    for index, base in zip(join.row_blocks(item.row), ranked.bases, strict=True):
        join.work.save(BASES, index, {"base": base})
    return RankedRow(item.row, ranked.totals, tuple(ranked.ranks), _sizes_of(blocks))


def _sizes_of(blocks: Sequence[FaceObjects]) -> tuple[np.ndarray, np.ndarray] | None:
    sizes, counts = ([getattr(block, name) for block in blocks] for name in ("sizes", "size_counts"))
    return None if any(part is None for part in sizes) else (np.concatenate(sizes), np.concatenate(counts))


def write_objects(job: ObjectsJob, item: WriteItem) -> int:
    """The second pass: give a block's objects their ids and store its shard. Return the number of its pixels."""
    grid, work = job.join.grid, job.join.work
    array = store.open_array(job.location, job.array_path, writable=True)
    objects, faces = load_objects(work, item.index), load_faces(work, item.index)
    inner = objects.columns["size"] >= job.min_size_px
    inner[faces.numbers - 1] = False
    begins = np.zeros_like(inner)
    begins[faces.numbers - 1] = item.counted
    base = work.load(BASES, item.index)["base"]
    ids = number_objects(objects.components.first_line, inner, begins, base, item.before_rows)
    ids[faces.numbers - 1] = item.ids
    pixels = objects.components.paint(ids.astype(array.dtype))
    store.write_box(array, grid.write_box(item.index), pixels)
    return pixels.size


def regrow_objects(job: RegrowJob, index: Index) -> int:
    """After the second pass: store a block's ids with their ridges given back. Return the number of its pixels."""
    from segment_slide.pipeline.objects.regrow import regrow_ridges

    grid, planes = job.grid, job.grid.n_planes_axes
    owned = grid.write_box(index)
    near = clip_box(widen_box(owned, REGROW_REACH_PX, n_planes=planes), grid.shape)
    beyond = [
        (REGROW_REACH_PX - o.start + n.start, REGROW_REACH_PX - n.stop + o.stop)
        for o, n in zip(owned[planes:], near[planes:], strict=True)
    ]
    array = store.open_array(job.location, job.target_path, writable=True)
    ids = _read_ungrown(job, near).astype(array.dtype)
    grown = regrow_ridges(np.pad(ids.reshape(ids.shape[planes:]), beyond), REGROW_REACH_PX)
    store.write_box(array, owned, grown.reshape([part.stop - part.start for part in owned]))
    return grown.size


def _read_ungrown(job: RegrowJob, box: Box) -> np.ndarray:
    """Ids as they were found. If one of their shards is damaged, the error says which files to delete."""
    try:
        return np.asarray(store.open_array(job.location, job.source_path)[box])
    except Exception as error:  # on damaged bytes, codecs raise exceptions of many types
        shards = [range(s.start // n, ceil_divide(s.stop, n)) for s, n in zip(box, job.grid.block, strict=True)]
        files = " or ".join("/".join(["c", *map(str, index)]) for index in itertools.product(*shards))
        raise UnreadableChunkError(
            f"a file of {store.join(job.location, job.source_path)} is damaged, {files} ({error}); delete it, so that "
            f"it is made again"
        ) from error
