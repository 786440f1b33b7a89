"""Make training samples with many workers. Each task draws the samples of one file.

A sample depends on (seed, number, sources) alone, and one task writes a file as a whole. So the bytes are the same for
any number of workers, and after a crash and a second run.
"""

import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.blocks.tasks import Wording, keeping_what_is_done, run_all
from segment_slide.pipeline.errors import IncompleteError, InputError
from segment_slide.pipeline.inputs.watch import InputWatch, explain_changed, watch
from segment_slide.pipeline.statistics.result import ChannelStatistics
from segment_slide.pipeline.statistics.result import pool_statistics as pool_images
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.training.sample_set import ARRAYS, Part, SampleSet, pending_shards
from segment_slide.pipeline.training.stored_pixels import StoredAnnotation
from segment_slide.pipeline.training.training_set import CLASSES, WEIGHTS, AnnotatedImage, TrainingSet
from segment_slide.unet.draw import Place, SampleSettings, cut_plain, draw_sample

if TYPE_CHECKING:
    from distributed import Client

_SPLIT = 1 << 32  # marks this use of the seed; larger than any sample number, so random numbers differ


def split_images(
    training_set: TrainingSet, *, share: float, names: Sequence[str], seed: int
) -> tuple[list[AnnotatedImage], list[AnnotatedImage]]:
    """Choose images to train on, and images that training never sees. All planes of an image stay together.

    Neighbouring planes, or patches of one image, show the same cells. So a split within an image would give a score
    that is too good.

    Parameters
    ----------
    training_set : TrainingSet
        The images; those without annotation are left out.
    share : float
        Share of the images to validate with, 0 to below 1. At least one image if there are two or more; none if there
        is only one.
    names : sequence of str
        Validate with these images instead.
    seed : int
        Seed of the choice, if no images are named.

    Raises
    ------
    InputError
        If a name is unknown or without annotation, or no image is left to train on.
    """
    annotated = [image for image in training_set.images if sum(image.class_counts)]
    known = [image.name for image in annotated]
    if not annotated:
        raise InputError(
            f"{training_set.location}: no pixel of any image is annotated: there is nothing to learn from."
        )
    if not 0 <= share < 1:
        raise InputError(f"validation share={share}, expected 0 to below 1.")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"validation image {unknown[0]!r} is not among the annotated images of {training_set.location}: "
            f"{', '.join(known)}."
        )
    if not names and share and len(known) > 1:
        count = min(max(1, round(share * len(known))), len(known) - 1)
        names = [known[i] for i in np.random.default_rng([seed, _SPLIT]).permutation(len(known))[:count]]
    if len(set(names)) == len(known):
        raise InputError(f"all {len(known)} annotated images would validate; leave at least one to train on.")
    return (
        [image for image in annotated if image.name not in names],
        [image for image in annotated if image.name in names],
    )


def pool_statistics(measured: Sequence[ChannelStatistics]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (1 if 0) of each channel over all images. Sums are exact in any order of images."""
    pooled = pool_images(measured)
    return pooled.mean, tuple(std or 1.0 for std in pooled.std)


def note_on_frames(training_names: Sequence[str], validation_names: Sequence[str]) -> str | None:
    """Warning if a validation image may be the frame next to a training image, because both show the same cells.

    >>> note_on_frames(["t000", "t001"], ["t002"])
    'validation image t002 and training image t001 are neighbours by number; if they are frames of one movie they ...
    >>> note_on_frames(["a1"], ["b2", "a3"])
    """
    frames = {key: name for name in training_names if (key := _frame(name))}
    for name in validation_names:
        series, number = _frame(name) or ("", -1)
        if other := frames.get((series, number - 1)) or frames.get((series, number + 1)):
            return (
                f"validation image {name} and training image {other} are neighbours by number; if they are frames of "
                f"one movie they show the same cells, and the score is too good: keep other movies for validation with "
                f"`validation_images`."
            )
    return None


def _frame(name: str) -> tuple[str, int] | None:
    """A name without its last number, and that number."""
    parts = re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", name, re.DOTALL)
    return (f"{parts[1]}\0{parts[3]}", int(parts[2])) if parts else None


def fingerprint_set(training_set: TrainingSet) -> str:
    """sha256 of what a training set was made from and how. It does not depend on where the set and its images lie."""
    record = training_set.record()
    record.pop("notes", None)
    for image in record["images"]:
        for pixels in (image["image"], image["labels"]):
            del pixels["location"]
            if earlier := pixels.pop("earlier_fingerprint", None):  # samples may have been drawn before
                pixels["fingerprint"] = earlier
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SampleJob:
    """What a task needs to make any file of a sample set.

    Parameters
    ----------
    samples : SampleSet
        Sample set to write to.
    settings : SampleSettings
        How samples are drawn.
    sources : dict
        Normalised images of each part, in the order of their names in `samples`.
    """

    samples: SampleSet
    settings: SampleSettings
    sources: dict[Part, list[StoredAnnotation]]


@dataclass(frozen=True)
class ShardItem:
    """One file of each array: its part and number, and, if its tiles are not drawn at random, the tiles."""

    part: Part
    number: int
    places: tuple[Place, ...] = ()


def make_items(samples: SampleSet, places: Sequence[Place]) -> list[ShardItem]:
    """Files that are not stored yet; `places` are the validation tiles."""
    step = samples.shard_samples
    drawn = [ShardItem("training", number) for number in pending_shards(samples, "training")]
    plain = [
        ShardItem("validation", number, tuple(places[number * step : (number + 1) * step]))
        for number in pending_shards(samples, "validation")
    ]
    return drawn + plain


def plan_task_bytes(samples: SampleSet, settings: SampleSettings) -> int:
    """Memory (bytes, upper limit) to make one file: its samples, and the pixels that one of them is made from."""
    read_px, moved_px = math.prod(samples.read_px), 10 * settings.augment.elastic_std_px
    diagonal = math.hypot(*samples.read_px[-2:]) if settings.augment.interpolates else max(samples.read_px[-2:])
    box_px = math.prod(size + moved_px for size in samples.read_px[:-2]) * (diagonal + moved_px) ** 2
    file_bytes = samples.shard_samples * (read_px * samples.n_channels * 4 + math.prod(samples.tile_px) * 5)
    # A file is held three times: as pixels, compressed, and assembled; a sample's intensities up to four times.
    sample_bytes = read_px * 4 * (samples.n_spatial + 4 * samples.n_channels) + box_px * samples.n_channels * 12
    return int(3 * file_bytes + sample_bytes)


def write_shard(job: SampleJob, item: ShardItem) -> int:
    """Make the samples of one file of each array and store them. Return the number of pixels of their tiles."""
    samples, sources = job.samples, job.sources[item.part]
    first = item.number * samples.shard_samples
    count = min(samples.shard_samples, samples.count(item.part) - first)
    values = {spec.path: np.empty((count, *spec.shape[1:]), spec.dtype) for spec in samples.specs(item.part)}
    for i in range(count):
        if item.part == "training":
            sample, place = draw_sample(sources, job.settings, first + i)
        else:
            sample, place = cut_plain(sources, job.settings, item.places[i]), item.places[i]
        values["images"][i], values["classes"][i], values["weights"][i] = sample.image, sample.classes, sample.weights
        values["places"][i] = _place_row(place, samples)
    for name in reversed(ARRAYS):  # images, the largest, come last
        array = samples.array(item.part, name, writable=True)
        store.write_box(array, (slice(first, first + count),), values[name])
    return count * math.prod(samples.tile_px)


def _place_row(place: Place, samples: SampleSet) -> list[float]:
    found = (*place.plane, *place.centre_px)
    missing = len(samples.settings.place_axes) - len(found)  # images may lack plane axes that others have
    return [place.image, *(0,) * missing, *found]


def write_samples(
    job: SampleJob,
    items: Sequence[ShardItem],
    client: "Client | None" = None,
    on_shard: Callable[[int], None] | None = None,
) -> None:
    """Make the files of a sample set, here or on a cluster.

    Parameters
    ----------
    job, items : SampleJob, sequence of ShardItem
        What to make, and which files.
    client : Client, optional
        Client of a Dask cluster; None runs in this process.
    on_shard : callable, optional
        Called after each file with the number of pixels of its tiles.

    Raises
    ------
    IncompleteError
        If files failed twice. The message names the first ones. All others are stored, and the same command resumes.
    """
    wording = Wording(
        f"of {len(items)} files of samples could not be made; all others are stored in {job.samples.location}:",
        plural="files",
    )
    with keeping_what_is_done():
        for _, n_pixels in run_all(client, functools.partial(write_shard, job), items, _name, wording=wording):
            if on_shard is not None:
                on_shard(n_pixels)


def watch_annotations(annotations: Sequence[StoredAnnotation]) -> InputWatch:
    """Take down the status of the files of images, and of their classes and weights."""
    images = {f"{item.image.name} (image)": item.source.image for item in annotations}
    for item in annotations:
        for name in (CLASSES, WEIGHTS):
            path = store.join(item.training_set.location, item.image.group, name)
            axes = "tczyx"[-len(item.image.shape) :]
            images[f"{item.image.name} ({name})"] = describe_image(path, axes=axes)
    return watch(images)


def check_annotations(watched: InputWatch, samples: SampleSet) -> None:
    """Refuse to call samples complete whose images changed while they were drawn; their pixels are deleted.

    Raises
    ------
    IncompleteError
        Naming the files.
    """
    if changed := watched.find_changed():
        for part in ("training", "validation"):
            store.remove(samples.location, store.join(part, "images", "c"))
        remedy = f"{samples.location} is not complete; make the weight maps again, and then the samples."
        raise IncompleteError(explain_changed(changed, remedy))


def _name(item: ShardItem) -> str:
    return f"{item.part} file {item.number}"
