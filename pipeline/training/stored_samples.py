"""Read stored samples for a training, in any order. Damaged and lost files are reported, never used for training."""

import numpy as np

from segment_slide.pipeline.errors import UnreadableChunkError
from segment_slide.pipeline.inputs.watch import InputWatch, watch
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.training.sample_set import ARRAYS, PARTS, Part, SampleSet, judge_sample_set, pending_shards
from segment_slide.unet.sample import IGNORE, Sample


class StoredSamples:
    """One part of a sample set as `unet.sample.Samples`.

    Parameters
    ----------
    samples : SampleSet
        The sample set.
    part : {"training", "validation"}
        The part to read.

    Raises
    ------
    InputError
        If some are not stored yet.
    """

    def __init__(self, samples: SampleSet, part: Part) -> None:
        self._samples, self._part, self._count = samples, part, samples.count(part)
        judge_sample_set(samples, (part,)).require()
        self._arrays = {name: samples.array(part, name) for name in ARRAYS} if self._count else {}

    def __len__(self) -> int:
        """Number of samples."""
        return self._count

    def __getitem__(self, number: int, /) -> Sample:
        """The sample with a number.

        Raises
        ------
        IndexError
            If there is no such sample.
        UnreadableChunkError
            If its file is damaged or was deleted.
        """
        if not 0 <= number < self._count:
            raise IndexError(f"sample {number} of {self._count}")
        try:
            image, classes, weights = (np.asarray(self._arrays[name][number]) for name in ARRAYS[:3])
        except Exception as error:  # on damaged bytes, codecs raise exceptions of many types
            raise UnreadableChunkError(self._explain(number, f"{type(error).__name__}: {error}")) from error
        # Zarr reads a deleted file as zeros: then annotated pixels have no weight, or the image is empty.
        if (weights[classes != IGNORE] <= 0).any() or (not image.any() and self._is_gone(number)):
            raise UnreadableChunkError(self._explain(number, "its file is gone"))
        return Sample(image, classes, weights)

    def _is_gone(self, number: int) -> bool:
        return number // self._samples.shard_samples in pending_shards(self._samples, self._part)

    def _explain(self, number: int, what: str) -> str:
        return (
            f"{self._samples.location}: {self._part} sample {number} cannot be read ({what}). Run the same "
            f"`segment-slide training-data` again: it finds the damaged file and makes it anew. Then go on training."
        )

    def place(self, number: int) -> tuple[float, ...]:
        """Number of the image that a sample was cut from, and the centre of the tile in it (px)."""
        return tuple(map(float, np.asarray(self._arrays["places"][number])))


def watch_samples(samples: SampleSet) -> InputWatch:
    """Take down the status of the files of a sample set."""
    images = {}
    for part in PARTS:
        for spec in samples.specs(part) if samples.count(part) else ():
            path, axes = store.join(samples.location, part, spec.path), "tczyx"[-len(spec.shape) :]
            images[f"{part} {spec.path}"] = describe_image(path, axes=axes)
    return watch(images)
