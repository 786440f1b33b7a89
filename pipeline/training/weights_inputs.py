"""What weight maps are made from, brought within reach: everything Zarr, class maps split into their objects.

What is not Zarr is ingested into the set, and objects of class maps are found plane by plane and stored beside; both
leave out what is there already. Works here or on a Dask cluster.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zarr.core.sync import sync

from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.blocks.tasks import run_all
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.plan import IngestPlan
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.labels import LabelPixels
from segment_slide.pipeline.storage.record import ATTRIBUTE, compare_records, list_differences
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.pipeline.training.annotation import FoundPixels
from segment_slide.pipeline.training.training_set import KIND
from segment_slide.pipeline.training.weights_block import WeightJob, write_objects
from segment_slide.pipeline.training.weights_plan import REQUEST_ATTRIBUTE, WeightPlan, is_counted, read_request

if TYPE_CHECKING:
    from distributed import Client

OnBlock = Callable[[int], None]
_OBJECTS, _SOURCES = "objects", "sources"


@dataclass(frozen=True)
class AnnotatedPixels:
    """One image of a plan with its pixels within reach: both are Zarr now."""

    image: ImageSource
    labels: ImageSource
    job: WeightJob


def begin(plan: WeightPlan) -> None:
    """Mark the output as ours and write down what was asked for; nothing if that is there.

    If something else was asked for before, but nothing counted yet (a wrong ignore value, say), that is forgotten.

    Raises
    ------
    OutputMismatchError
        If another run has counted something else since this one was planned.
    """
    begun = read_request(plan.location)
    if is_counted(plan):
        compare_records(begun, plan.request, plan.location)
    elif begun is None:
        store.create_group(
            plan.location, "", [], {ATTRIBUTE: {"kind": KIND}, REQUEST_ATTRIBUTE: write_section(plan.request)}
        )
    elif list_differences(begun, plan.request):
        for name in (_SOURCES, _OBJECTS):
            store.remove(plan.location, name)
        store.update_attributes(plan.location, "", {REQUEST_ATTRIBUTE: write_section(plan.request)})


@contextlib.contextmanager
def take_back_if_refused(plan: WeightPlan) -> Iterator[None]:
    """Leave nothing of a set that this run began if its labels are refused before they are counted.

    What was there before stays: another run may go on with it. So does what cannot be deleted; the next run of
    weight-maps goes on with it, or forgets it.

    Raises
    ------
    InputError
        As it came.
    """
    was_begun = read_request(plan.location) is not None
    try:
        yield
    except InputError:
        if not was_begun and not is_counted(plan):
            with contextlib.suppress(OSError):
                for name in (_SOURCES, _OBJECTS):
                    store.remove(plan.location, name)
                sync(store.open_store(plan.location, writable=True).delete("zarr.json"))
        raise


def inputs_to_ingest(plan: WeightPlan) -> list[tuple[str, IngestPlan]]:
    """Where in the set what is not Zarr goes, and how."""
    found = []
    for number, pair in enumerate(plan.annotation.pairs):
        for what, pixels in (("image", pair.image), ("labels", pair.labels)):
            if isinstance(pixels.content, IngestPlan):
                found.append((_source_location(plan, number, what), pixels.content))
    return found


def ingest(location: str, planned: IngestPlan, threads: int = 1) -> None:
    """Convert one input, or what is missing of it: level 0 is bit for bit the file's.

    Raises
    ------
    PipelineError
        If it cannot be decoded or written.
    """
    run_ingest(planned, location, threads=threads)


def open_pixels(plan: WeightPlan) -> list[AnnotatedPixels]:
    """Pixels of all images, once everything is Zarr."""
    found = []
    for number, pair in enumerate(plan.annotation.pairs):
        image, labels = pair.open(
            plan.annotation.wanted,
            _stored(plan, number, "image", pair.image),
            _stored(plan, number, "labels", pair.labels),
        )
        grid = plan.grid(pair)
        read = LabelPixels(labels, image.axes, image.shape)
        job = WeightJob(
            pair.name, plan.group(number), plan.location, read, grid, plan.options.rule, plan.options.settings
        )
        found.append(AnnotatedPixels(image, labels, job))
    return found


def _source_location(plan: WeightPlan, number: int, what: str) -> str:
    return store.join(plan.location, _SOURCES, f"{plan.group(number)}-{what}.ome.zarr")


def _stored(plan: WeightPlan, number: int, what: str, pixels: FoundPixels) -> StoredImage:
    if isinstance(pixels.content, IngestPlan):
        return describe_image(_source_location(plan, number, what))
    return pixels.content


def pending_planes(plan: WeightPlan, found: Sequence[AnnotatedPixels]) -> dict[str, list[Index]]:
    """By image name: planes whose objects are to be found and are not stored whole; arrays are made first."""
    if not plan.options.rule.is_coded:
        return {}
    return {pixels.job.name: _pending_planes(plan, pixels.job) for pixels in found}


def find_annotated_objects(
    found: Sequence[AnnotatedPixels],
    pending: Mapping[str, Sequence[Index]],
    client: "Client | None",
    on_plane: OnBlock,
) -> None:
    """Split class maps into their connected components, plane by plane, and store them.

    Raises
    ------
    InputError
        If values of the annotation cannot be what they are said to be.
    IncompleteError
        If planes failed twice, naming them; the others are stored.
    """
    jobs = {pixels.job.name: pixels.job for pixels in found}
    items = [(jobs[name], plane) for name, planes in pending.items() for plane in planes]
    for _, n_pixels in run_all(client, _write_objects, items, _name):
        on_plane(n_pixels)


def _name(item: tuple[WeightJob, Index]) -> str:
    job, plane = item
    return f"{job.name}, plane {plane}" if plane else job.name


def object_jobs(plan: WeightPlan, found: Sequence[AnnotatedPixels]) -> list[WeightJob]:
    """Jobs whose label values tell objects: the annotation itself, or the stored components of a class map."""
    jobs = [pixels.job for pixels in found]
    if not plan.options.rule.is_coded:
        return jobs
    return [replace(job, labels=_stored_objects(job)) for job in jobs]


def _write_objects(item: tuple[WeightJob, Index]) -> int:
    job, plane = item
    return write_objects(job, store.join(_OBJECTS, job.group), plane)


def _pending_planes(plan: WeightPlan, job: WeightJob) -> list[Index]:
    grid = job.grid
    planes = grid.n_planes_axes
    if job.group not in store.list_names(store.join(plan.location, _OBJECTS)):
        chunk = (1,) * planes + (plan.chunk,) * grid.n_spatial
        spec = store.ArraySpec(job.group, grid.shape, grid.block, chunk, "uint64", job.labels.axes)
        store.create_group(plan.location, _OBJECTS, [spec], {})
    done = store.stored_shards(plan.location, store.join(_OBJECTS, job.group))
    return sorted({index[:planes] for index in grid.indices() if index not in done})


def _stored_objects(job: WeightJob) -> LabelPixels:
    path = store.join(job.location, _OBJECTS, job.group)
    source = select_source(describe_image(path, axes=job.labels.axes), n_spatial=job.grid.n_spatial, n_channels=1)
    return replace(job.labels, source=source)
