"""A synthetic slide on disk: an OME-Zarr image with a pyramid, and its truth as a label image inside it.

::

    SLIDE.ome.zarr/0, 1, …          red, green, blue, uint8
    └── labels/truth/0, 1, …        cell ids, uint32

It is drawn shard by shard, so a slide may be larger than memory. An interrupted drawing resumes where it stopped.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import Index, ceil_divide
from segment_slide.pipeline.blocks.sizes import count_levels, level_shapes
from segment_slide.pipeline.blocks.tasks import run_all
from segment_slide.pipeline.errors import OutputError, OutputMismatchError
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.pyramid import Method, build_pyramid, calibrate
from segment_slide.pipeline.storage.record import Results, code_version
from segment_slide.pipeline.storage.sections import NOT_COMPARED, Section, list_differences, read_section, write_section
from segment_slide.pipeline.synthetic.slide import CHANNELS, PIXEL_SIZE_UM, SyntheticSlide, draw_region
from segment_slide.unet.boxes import Box

if TYPE_CHECKING:
    from distributed import Client

ATTRIBUTE = "segment_slide_synthetic"  # of the root, beside what shows the image
TRUTH_GROUP = "labels/truth"
_CHUNK_PX, _SHARD_PX = 512, 1024  # drawing a shard takes about 300 MB
_COLOURS = ("FF0000", "00FF00", "0000FF")


@dataclass(frozen=True)
class SlideRecord(Section):
    """What a synthetic slide was drawn from: its shape (y, x) and seed, and by which code."""

    shape: tuple[int, ...] = ()
    seed: int = 0
    code_version: str = field(default="", metadata=NOT_COMPARED)
    results: int = 1


def image_arrays(slide: SyntheticSlide) -> list[ArraySpec]:
    """Levels of the picture, finest first."""
    n = len(CHANNELS)
    return [
        ArraySpec(str(level), (n, *shape), (n, _SHARD_PX, _SHARD_PX), (n, _CHUNK_PX, _CHUNK_PX), "uint8", "cyx")
        for level, shape in enumerate(_level_shapes(slide))
    ]


def truth_arrays(slide: SyntheticSlide) -> list[ArraySpec]:
    """Levels of the truth, finest first."""
    return [
        ArraySpec(str(level), shape, (_SHARD_PX, _SHARD_PX), (_CHUNK_PX, _CHUNK_PX), "uint32", "yx")
        for level, shape in enumerate(_level_shapes(slide))
    ]


def _level_shapes(slide: SyntheticSlide) -> list[tuple[int, ...]]:
    return level_shapes(slide.shape, 2, count_levels(slide.shape, _CHUNK_PX))


def count_pending(slide: SyntheticSlide, location: str) -> int:
    """Count the shards of the picture that `store_slide` would draw."""
    done = store.stored_shards(location, "0") if store.is_occupied(location) else set()
    return image_arrays(slide)[0].n_shards - len(done)


def store_slide(
    slide: SyntheticSlide,
    location: str,
    *,
    client: "Client | None" = None,
    on_shard: Callable[[int], None] | None = None,
) -> int:
    """Draw a slide into an OME-Zarr; shards that exist already are kept.

    Parameters
    ----------
    slide : SyntheticSlide
        The slide to draw.
    location : str
        A new group, or one that this function began for the same slide.
    client : Client, optional
        Draws on its workers; without it, in this process.
    on_shard : callable, optional
        Called with the number of pixels of each shard that was drawn.

    Returns
    -------
    int
        Number of shards of the picture that were drawn; 0 if the slide was complete.

    Raises
    ------
    OutputMismatchError
        If the folder holds another slide.
    OutputError
        If something else is there, or nothing can be written.
    IncompleteError
        If files could not be made; the others are stored, and the same call goes on.
    """
    location = store.resolve_location(location)
    _begin(slide, location)
    store.remove_leftovers(location, "")
    images, truths = image_arrays(slide), truth_arrays(slide)
    done = store.stored_shards(location, "0")
    pending = [index for index in _shard_indices(truths[0]) if (0, *index) not in done]
    for index, _ in run_all(client, functools.partial(_store_shard, slide, location), pending, "file {}".format):
        if on_shard is not None:
            box = _box(truths[0], index)
            on_shard((box[0].stop - box[0].start) * (box[1].stop - box[1].start))
    build_pyramid(location, "", images, "yx", "local_mean", client=client)
    build_pyramid(location, TRUTH_GROUP, truths, "yx", "nearest", client=client)
    return len(pending)


def _begin(slide: SyntheticSlide, location: str) -> None:
    """Create groups and arrays, or recognise them as this slide's; the root's attributes come last."""
    record = SlideRecord(tuple(slide.shape), slide.seed, code_version(), Results.SYNTHETIC)
    attributes = store.read_attributes(location) if store.is_occupied(location) else {}
    found = (attributes or {}).get(ATTRIBUTE)
    if found is None:
        ours = {"zarr.json", "labels", *(level.path for level in image_arrays(slide))}
        if store.list_names(location) - ours or store.is_file(location):
            raise OutputError(f"output={location} holds something else; expected a new directory. Choose another.")
        _create(slide, location, record)
        return
    begun = read_section(SlideRecord, found, store.join(location, "zarr.json"))
    if list_differences(begun, record):
        raise OutputMismatchError(
            f"output={location} holds another synthetic slide: {found}, expected {write_section(record)}. "
            f"Choose another place, or delete it."
        )


def _create(slide: SyntheticSlide, location: str, record: SlideRecord) -> None:
    truths = truth_arrays(slide)
    truth = _calibrated("truth", "yx", len(truths), "nearest")
    store.create_group(location, TRUTH_GROUP, truths, {"ome": ome.label_attributes(truth)})
    store.create_group(location, "labels", [], {"ome": {"version": ome.VERSION, "labels": ["truth"]}})
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channels = [
        {"label": name, "color": colour, "active": True, "window": window}
        for name, colour in zip(CHANNELS, _COLOURS, strict=True)
    ]
    image = _calibrated("synthetic slide", "cyx", len(truths), "local_mean")
    attributes = {"ome": ome.multiscale_attributes(image, channels), ATTRIBUTE: write_section(record)}
    store.create_group(location, "", image_arrays(slide), attributes)


def _calibrated(name: str, axes: str, n_levels: int, method: Method) -> ome.Multiscale:
    sizes = tuple(1.0 if axis == "c" else PIXEL_SIZE_UM for axis in axes)
    units = tuple(None if axis == "c" else "micrometer" for axis in axes)
    finest = ome.Level("0", sizes, (0.0,) * len(axes))
    return calibrate(name, axes, units, finest, n_levels, method, halved="yx")


def _shard_indices(spec: ArraySpec) -> list[Index]:
    return list(itertools.product(*(range(ceil_divide(a, b)) for a, b in zip(spec.shape, spec.shard, strict=True))))


def _box(spec: ArraySpec, index: Index) -> Box:
    return tuple(
        slice(i * shard, min((i + 1) * shard, size))
        for i, shard, size in zip(index, spec.shard, spec.shape, strict=True)
    )


def _store_shard(slide: SyntheticSlide, location: str, index: Index) -> None:
    """Draw one shard. The picture is written last: if its shard exists, the shard of the truth exists too."""
    box = _box(truth_arrays(slide)[0], index)
    region = draw_region(slide, box)
    store.write_box(store.open_array(location, f"{TRUTH_GROUP}/0", writable=True), box, region.instances)
    store.write_box(store.open_array(location, "0", writable=True), (slice(None), *box), region.image)
