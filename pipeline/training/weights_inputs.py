"""Prepare the inputs of weight maps: convert everything to Zarr, and split class maps into their objects.

Inputs that are not Zarr are ingested into the set. Objects of class maps are found plane by plane and stored in the set
too. Both steps skip what is stored already. Works in this process or on a Dask cluster.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zarr.core.sync import sync

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.grid import Index
from segment_slide.pipeline.blocks.tasks import run_all
from segment_slide.pipeline.errors import IncompleteError, InputError
from segment_slide.pipeline.ingest.plan import IngestPlan
from segment_slide.pipeline.ingest.run import run_ingest
from segment_slide.pipeline.inputs.watch import InputWatch, explain_changed, watch
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import exists
from segment_slide.pipeline.storage.fingerprint import is_by_times
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.labels import LabelPixels
from segment_slide.pipeline.storage.record import ATTRIBUTE, compare_records
from segment_slide.pipeline.storage.sections import list_differences, write_section
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.pipeline.training.annotation import FoundPixels
from segment_slide.pipeline.training.records import WeightRequest
from segment_slide.pipeline.training.training_set import (
    CLASSES,
    KIND,
    StoredPixels,
    fingerprint_pixels,
    read_training_set,
)
from segment_slide.pipeline.training.weights_block import WeightJob, write_objects
from segment_slide.pipeline.training.weights_plan import REQUEST_ATTRIBUTE, WeightPlan, is_counted, read_request

if TYPE_CHECKING:
    from distributed import Client

OnBlock = Callable[[int], None]
_OBJECTS, _SOURCES = "objects", "sources"


@dataclass(frozen=True)
class AnnotatedPixels:
    """One image of a plan with its image and labels opened: both are Zarr now."""

    image: ImageSource
    labels: ImageSource
    job: WeightJob


def begin(plan: WeightPlan) -> None:
    """Mark the output as ours and write the request into it, unless it is there already.

    An earlier, different request is replaced if nothing was counted for it yet, for example if its ignore value was
    wrong.

    Raises
    ------
    OutputMismatchError
        If another run has counted for a different request since this one was planned.
    """
    begun = read_request(plan.location)
    if is_counted(plan):
        compare_records(begun, plan.request, plan.location)
        _renew_fingerprints(plan, begun or plan.request)
    elif begun is None:
        store.create_group(
            plan.location, "", [], {ATTRIBUTE: {"kind": KIND}, REQUEST_ATTRIBUTE: write_section(plan.request)}
        )
    elif list_differences(begun, plan.request):
        for name in (_SOURCES, _OBJECTS):
            store.remove(plan.location, name)
        store.update_attributes(plan.location, "", {REQUEST_ATTRIBUTE: write_section(plan.request)})


def _renew_fingerprints(plan: WeightPlan, begun: WeightRequest) -> None:
    """Replace fingerprints of older versions, which hold times of files, in a set whose inputs are the same still."""
    found = {
        f"{pair.name} ({what})": pixels
        for pair in plan.annotation.pairs
        for what, pixels in (("image", pair.image), ("labels", pair.labels))
    }
    new = {key: pixels.fingerprint() for key, pixels in found.items() if is_by_times(begun.inputs.get(key, ""))}
    if not new:
        return
    training_set = read_training_set(plan.location)
    images = tuple(
        replace(image, image=_renewed(image.image, plan.location), labels=_renewed(image.labels, plan.location))
        for image in training_set.images
    )
    request = replace(begun, inputs={**begun.inputs, **new})
    content = {ATTRIBUTE: replace(training_set, images=images).record(), REQUEST_ATTRIBUTE: write_section(request)}
    store.update_attributes(plan.location, "", content)


def _renewed(pixels: StoredPixels, location: str) -> StoredPixels:
    earlier = pixels.fingerprint
    if not is_by_times(earlier) or fingerprint_pixels(image := pixels.open().image, location, earlier) != earlier:
        return pixels
    return replace(pixels, fingerprint=fingerprint_pixels(image, location), earlier_fingerprint=earlier)


def watch_inputs(plan: WeightPlan) -> InputWatch:
    """Take down the status of the files of all stored images and labels, before anything of them is read."""
    images, marks = {}, {}
    for pair in plan.annotation.pairs:
        for what, pixels in (("image", pair.image), ("labels", pair.labels)):
            if isinstance(pixels.content, StoredImage):
                key = f"{pair.name} ({what})"
                images[key], marks[key] = pixels.content, plan.request.inputs.get(key, "")
    return watch(images, "", {key: mark for key, mark in marks.items() if not is_by_times(mark)})


def check_inputs(plan: WeightPlan, watched: InputWatch) -> None:
    """Refuse to call a set complete whose images or labels changed while it was made; its classes are deleted.

    Raises
    ------
    IncompleteError
        Naming the files.
    """
    if changed := watched.find_changed():
        for number in range(len(plan.annotation.pairs)):
            store.remove(plan.location, store.join(plan.group(number), CLASSES, "c"))
        remedy = f"{plan.location} is not complete; delete it, and run the same command again."
        raise IncompleteError(explain_changed(changed, remedy))


@contextlib.contextmanager
def take_back_if_refused(plan: WeightPlan) -> Iterator[None]:
    """Delete a set that this run began if its labels are refused before they are counted.

    A set that was there before stays, because another run may resume it. Files that cannot be deleted stay too; the
    next run of weight-maps resumes or replaces them.

    Raises
    ------
    InputError
        The original error, raised again.
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
    """Ingest plans for inputs that are not Zarr, with their locations in the set."""
    found = []
    for number, pair in enumerate(plan.annotation.pairs):
        for what, pixels in (("image", pair.image), ("labels", pair.labels)):
            if isinstance(pixels.content, IngestPlan):
                found.append((_source_location(plan, number, what), pixels.content))
    return found


def ingest(location: str, planned: IngestPlan, threads: int = 1) -> None:
    """Convert one input, or its missing parts. Level 0 equals the file bit for bit.

    Raises
    ------
    PipelineError
        If it cannot be decoded or written.
    """
    run_ingest(planned, location, threads=threads)


def open_pixels(plan: WeightPlan) -> list[AnnotatedPixels]:
    """Open the pixels of all images, once everything is Zarr."""
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
    """By image name: planes whose objects must be found and are not completely stored. Creates the arrays first."""
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
        If values of the annotation do not fit the kind of labels.
    IncompleteError
        If planes failed twice. The message names them; the others are stored.
    """
    jobs = {pixels.job.name: pixels.job for pixels in found}
    items = [(jobs[name], plane) for name, planes in pending.items() for plane in planes]
    for _, n_pixels in run_all(client, _write_objects, items, _name):
        on_plane(n_pixels)


def _name(item: tuple[WeightJob, Index]) -> str:
    job, plane = item
    return f"{job.name}, plane {plane}" if plane else job.name


def object_jobs(plan: WeightPlan, found: Sequence[AnnotatedPixels]) -> list[WeightJob]:
    """Jobs whose labels distinguish objects: the annotation itself, or the stored components of a class map."""
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
    array = store.join(plan.location, _OBJECTS, job.group, "zarr.json")
    if store.read_attributes(plan.location, _OBJECTS) is None or not exists(array):  # a folder alone is no array
        chunk = (1,) * planes + (plan.chunk,) * grid.n_spatial
        spec = ArraySpec(job.group, grid.shape, grid.block, chunk, "uint64", job.labels.axes)
        store.create_group(plan.location, _OBJECTS, [spec], {})
    done = store.stored_shards(plan.location, store.join(_OBJECTS, job.group))
    return sorted({index[:planes] for index in grid.indices() if index not in done})


def _stored_objects(job: WeightJob) -> LabelPixels:
    path = store.join(job.location, _OBJECTS, job.group)
    source = select_source(describe_image(path, axes=job.labels.axes), n_spatial=job.grid.n_spatial, n_channels=1)
    return replace(job.labels, source=source)
