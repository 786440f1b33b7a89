"""Training sets and sample sets: arrays as their records say, counts and classes and weights that fit each other."""

import numpy as np

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.integrity.finding import Fault, Finding, Found, Made, Stage, alone
from segment_slide.pipeline.integrity.images import compare_array, shard_key
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.training.sample_set import PARTS, Part, SampleSet, read_sample_set
from segment_slide.pipeline.training.training_set import (
    CLASSES,
    COUNTS,
    WEIGHTS,
    AnnotatedImage,
    TrainingSet,
    read_training_set,
)
from segment_slide.unet.sample import IGNORE

_BLOCKS = 4  # of an image, or of a part of the samples, whose pixels are compared


@alone
def check_training_set(location: str) -> Found:
    """Check each image of a training set."""
    found, made = read_training_set(location), Made(Stage.WEIGHT_MAPS, location)
    for image in found.images:
        yield from check_annotated(found, image, made)
        yield from check_counts(found, image, made)


@alone
def check_annotated(found: TrainingSet, image: AnnotatedImage, made: Made) -> Found:
    """Compare the arrays of one image with the record."""
    planes = image.n_planes_axes
    axes = "tz"[-planes:] * bool(planes) if found.n_spatial == 2 else "t" * planes
    axes += "zyx"[-found.n_spatial :]
    chunk = found.settings.chunk
    inner = (1,) * planes + (chunk,) * found.n_spatial if chunk else found.array(image, CLASSES).chunks
    grid = tuple(-(-size // block) for size, block in zip(image.shape, image.block, strict=True))
    table = (*grid, found.n_classes)
    for spec in (
        ArraySpec(CLASSES, image.shape, image.block, inner, "uint8", axes),
        ArraySpec(WEIGHTS, image.shape, image.block, inner, "float32", axes),
        ArraySpec(COUNTS, table, table, table, "int64", axes + "c"),
    ):
        yield from compare_array(found.location, image.group, spec, made)


@alone
def check_counts(found: TrainingSet, image: AnnotatedImage, made: Made) -> Found:
    """Count the classes of some blocks again, and see that weights are where classes are."""
    counts = np.asarray(found.array(image, COUNTS)[...])
    where = join(image.group, COUNTS)
    if counts.reshape(-1, counts.shape[-1]).sum(0).tolist() != list(image.class_counts):
        problem = f"does not add up to the record's class_counts={image.class_counts}"
        yield Finding(Fault.CONTRADICTION, found.location, where, problem, made)
    classes, weights = found.array(image, CLASSES), found.array(image, WEIGHTS)
    grid = counts.shape[:-1]
    for number in np.unique(np.linspace(0, np.prod(grid) - 1, _BLOCKS).astype(int)):
        index = tuple(map(int, np.unravel_index(number, grid)))
        box = tuple(slice(i * size, (i + 1) * size) for i, size in zip(index, image.block, strict=True))
        values = np.asarray(classes[box])
        key = shard_key(join(image.group, CLASSES), index)
        if np.bincount(values[values != IGNORE], minlength=counts.shape[-1]).tolist() != counts[index].tolist():
            problem = f"holds other numbers of pixels per class than {where} says"
            yield Finding(Fault.CONTRADICTION, found.location, key, problem, made)
        if not np.array_equal(np.asarray(weights[box]) > 0, values != IGNORE):
            problem = "has weights where nothing is annotated, or none where something is"
            yield Finding(
                Fault.CONTRADICTION, found.location, shard_key(join(image.group, WEIGHTS), index), problem, made
            )


@alone
def check_sample_set(location: str) -> Found:
    """Check each part of a sample set."""
    samples, made = read_sample_set(location), Made(Stage.TRAINING_DATA, location)
    for part in PARTS:
        if samples.count(part):
            for spec in samples.specs(part):
                yield from compare_array(location, part, spec, made)
            yield from check_samples(samples, part, made)
        elif store.read_attributes(location, part) is not None:
            problem = f"is there, but the record has no {part} samples"
            yield Finding(Fault.SURPLUS, location, part, problem, made)


@alone
def check_samples(samples: SampleSet, part: Part, made: Made) -> Found:
    """See that some samples are what a training can use."""
    arrays = {spec.path: samples.array(part, spec.path) for spec in samples.specs(part)}
    n_images = len(samples.training_images if part == "training" else samples.validation_images)
    for number in np.unique(np.linspace(0, samples.count(part) - 1, _BLOCKS).astype(int)):
        image, classes, weights, place = (np.asarray(array[int(number)]) for array in arrays.values())
        index = int(number) // samples.shard_samples
        annotated = classes != IGNORE
        wrong = {
            "images": not np.isfinite(image).all(),
            "classes": (classes[annotated] >= len(samples.class_names)).any(),
            "weights": (weights[annotated] <= 0).any() or (weights[~annotated] != 0).any(),
            "places": not (np.isfinite(place).all() and 0 <= place[0] < n_images),
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                key = shard_key(join(part, name), (index, *(0,) * (arrays[name].ndim - 1)))
                problem = f"holds values that sample {number} cannot have"
                yield Finding(Fault.CONTRADICTION, samples.location, key, problem, made)
