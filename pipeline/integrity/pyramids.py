"""All checks of an image of ours: its arrays, its shards, and its coarser levels."""

from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.ingest.record import read_ingest_record
from segment_slide.pipeline.integrity.contents import Contents
from segment_slide.pipeline.integrity.finding import Found, Made, Stage, alone
from segment_slide.pipeline.integrity.images import StoredPyramid, check_arrays, check_shards
from segment_slide.pipeline.integrity.labels import numbered_pyramid, segmented_pyramids
from segment_slide.pipeline.integrity.levels import check_levels


def check_pyramid(pyramid: StoredPyramid) -> Found:
    """All checks of one image; none ends another."""
    yield from check_arrays(pyramid)
    yield from check_shards(pyramid)
    yield from check_levels(pyramid)


@alone
def check_segmented(location: str, name: str) -> Found:
    """The class map of a segmentation, and its probabilities."""
    for pyramid in segmented_pyramids(location, name):
        yield from check_pyramid(pyramid)


@alone
def check_numbered(location: str, name: str) -> Found:
    """The ids of objects."""
    pyramid = numbered_pyramid(location, name)
    if pyramid is not None:
        yield from check_pyramid(pyramid)


@alone
def check_converted(location: str) -> Found:
    """An image that was converted."""
    pyramid = converted_pyramid(location)
    if pyramid is not None:
        yield from check_pyramid(pyramid)


def find_pyramids(contents: Contents, made: Made) -> list[StoredPyramid]:
    """The images that a stage made; none if their records cannot be read."""
    location, name = contents.location, made.name
    try:
        if made.stage is Stage.SEGMENT:
            return list(segmented_pyramids(location, name))
        if made.stage is Stage.INSTANCES:
            found = numbered_pyramid(location, name)
        else:
            found = converted_pyramid(location) if made.stage is Stage.INGEST else None
    except PipelineError:
        return []
    return [] if found is None else [found]


def converted_pyramid(location: str) -> StoredPyramid | None:
    """A converted image, as its record says; None if it has none."""
    record = read_ingest_record(location)
    if record is None:
        return None
    chosen = record.parameters
    shape = dict(zip(chosen.axes, chosen.shape, strict=True)) if len(chosen.axes) == len(chosen.shape) else {}
    dtypes = (chosen.dtype,) if chosen.dtype else ()
    return StoredPyramid(location, "", Made(Stage.INGEST, location), "local_mean", shape, dtypes, chosen.shard)
