"""Channels without information: constant ones, and those whose bright parts were cut off (saturated).

A network segments them like any other and nothing looks wrong: the result is all background, or objects without their
brightest parts. Nothing is refused: an empty field of view is constant, and bare glass may be as bright as a camera can
see. It is said before the work, and recorded.
"""

import numpy as np

from segment_slide.pipeline.statistics.sample import PATIENCE_S, Sample, sample_image
from segment_slide.pipeline.storage.source import ImageSource

# Percentiles leave out the brightest 0.2 % as specks. Five times as many are more than specks, and then the 99.8th
# percentile, by which images are scaled, is the cut itself.
MOST_SATURATED = 0.01
# A cut heaps up what was brighter at one value. Without one, the largest value is rarer than those below it, or as
# frequent as each of them.
_HEAP, _BELOW = 4, 0.05
_FEWEST_VALUES = 16  # masks and drawings have fewer
BOXES_OF_PLAN = 8  # a plan takes a second; a run looks at more


def note_plan(source: ImageSource) -> list[str]:
    """Look at a few boxes of an image: sentences without a full stop, empty if there is nothing to say."""
    sample = sample_image(source, patience_s=PATIENCE_S, most=BOXES_OF_PLAN)
    return [] if sample is None else note_degenerate(source, sample)


def note_degenerate(source: ImageSource, sample: Sample) -> list[str]:
    """Say which channels are constant or saturated.

    Parameters
    ----------
    source : ImageSource
        The image.
    sample : Sample
        Pixels of it, all over the image.

    Returns
    -------
    list of str
        Sentences without a full stop.
    """
    constant, notes = [], []
    for number, values in zip(source.channels, sample.values, strict=True):
        if len(values) > 1 and (values == values[0]).all():
            constant.append(f"channel {number} is constant: all its pixels are {values[0]:g}")
        elif share := find_saturation(values):
            limit = _name_limit(values)
            notes.append(
                f"channel {number} is saturated: {share:.1%} of its pixels have its largest value {values.max():g}"
                f"{limit}. It was exposed for too long, or its background is that bright; what is there cannot be told "
                f"apart"
            )
    if len(constant) == len(source.channels) > 1:
        constant = ["all channels are constant: the image is empty, or was not exported completely"]
    return [f"{sentence} (in a sample of the image)" for sentence in (*constant, *notes)]


def find_saturation(values: np.ndarray) -> float:
    """Share of pixels at the largest value, if that is a cut; else 0.

    >>> rng = np.random.default_rng(0)
    >>> find_saturation(rng.integers(0, 256, 10_000).astype(np.uint8))
    0.0
    >>> round(find_saturation(np.clip(rng.normal(200, 50, 10_000), 0, 255).astype(np.uint8)), 2)
    0.13
    """
    found, counts = np.unique(values, return_counts=True)
    share = float(counts[-1] / len(values))
    if len(found) < _FEWEST_VALUES or share < MOST_SATURATED:
        return 0.0
    largest, smallest = float(found[-1]), float(found[0])
    below = counts[:-1][found[:-1] >= largest - _BELOW * (largest - smallest)]
    is_heap = not len(below) or counts[-1] >= _HEAP * below.mean()
    return share if is_heap else 0.0


def _name_limit(values: np.ndarray) -> str:
    """Which limit of a dtype or of a camera a channel's largest value is; "" if none."""
    if values.dtype.kind not in "ui":
        return ""
    largest = int(values.max())
    if largest == np.iinfo(values.dtype).max:
        return f", the limit of {values.dtype}"
    bits = largest.bit_length()
    return f", the limit of {bits} bits" if largest == (1 << bits) - 1 and bits in (10, 12, 14) else ""
