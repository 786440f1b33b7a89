"""Compare an image's intensities with those of the training images, and say in sentences what looks different.

A network does not refuse an image of another camera, of inverted contrast or with swapped channels: it segments it
badly. So each difference that a few percentiles can show is said before the work. The limits are wide: an image that
merely has other content than the training images must not be warned of.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from segment_slide.pipeline.statistics.levels import Levels
from segment_slide.unet.normalisation import ChannelIntensities, Intensities, Normalisation

_FAR = 0.5  # ranges: how far an image's values may lie outside of the training images'
_FLATTER = 0.25
_STANDARD_DEVIATIONS = 10
_MIDDLE, _FROM_MIDDLE = 0.5, 0.1  # between a dark and a bright background
_FROM_MIRRORED = 0.15
_MOST_PERMUTED = 5
_BETTER = 0.5
_DIFFERENT = 0.15


def compare_intensities(image: Levels, trained: Intensities, kind: str) -> list[str]:
    """List what looks different, each as a sentence without a full stop; empty if nothing does.

    Parameters
    ----------
    image : Levels
        Of the image that is to be segmented.
    trained : Intensities
        Of the training images.
    kind : str
        Kind of the normalisation. Only constants depend on the units of the intensities.
    """
    found = []
    if kind == "constants":
        found += _gather([_compare_range(image, k, known, trained) for k, known in enumerate(trained.channels)], image)
    if order := find_better_order(image, trained):
        shown = ", ".join(str(image.channels[position]) for position in order)
        found.append(
            f"the channels look like those of the training images in another order: {shown}; choose them in the right "
            f"order with `channels`"
        )
    else:
        places = zip(image.channels, image.places, trained.channels, strict=True)
        found += _gather([_compare_background(number, place, known.place) for number, place, known in places], image)
    of = " (in a sample of the image)" if image.is_sample else ""
    return [f"{sentence}{of}" for sentence in found]


def _gather(by_channel: Sequence[str], image: Levels) -> list[str]:
    """The sentence of the first channel that has one, with the numbers of the others; empty if no channel has."""
    said = [(number, sentence) for number, sentence in zip(image.channels, by_channel, strict=True) if sentence]
    if not said:
        return []
    others = ", ".join(str(number) for number, _ in said[1:])
    return [said[0][1] + (f"; likewise channel {others}" if others else "")]


def compare_constants(image: Levels, normalisation: Normalisation) -> list[str]:
    """The same for a checkpoint that knows nothing of its training images except their mean and standard deviation.

    An offset of 0 everywhere is no measured mean, and says nothing.
    """
    if not any(normalisation.offset):
        return []
    sentences = []
    constants = zip(image.channels, image.level, normalisation.offset, normalisation.scale, strict=True)
    for number, level, offset, scale in constants:
        sentence = (
            f"the median of channel {number} is {level:.4g} ({image.dtype}), the model's constants are mean "
            f"{offset:.4g} and standard deviation {scale:.4g}; they are probably of another exposure or bit depth"
        )
        sentences.append(sentence if abs(level - offset) > _STANDARD_DEVIATIONS * scale else "")
    return [f"{sentence} (in a sample of the image)" for sentence in _gather(sentences, image)]


def _compare_range(image: Levels, channel: int, known: ChannelIntensities, trained: Intensities) -> str:
    low, high, own = image.low[channel], image.high[channel], image.ranges[channel]
    lowest, highest, largest = known.low[0], known.high[2], known.range[2]
    where = f"channel {image.channels[channel]} has intensities from {low:.4g} to {high:.4g} ({image.dtype})"
    training = f"the training images from {lowest:.4g} to {highest:.4g} ({', '.join(trained.dtypes)})"
    remedy = (
        "the model scales by constants, which do not fit other exposures or bit depths: scale the image as the "
        "training images, or train with `normalise` percentiles"
    )
    if low < lowest - _FAR * largest or high > highest + _FAR * largest:
        return f"{where}, {training}; {remedy}"
    if own < _FLATTER * known.range[0]:
        flatter = f"a range of {own:.4g}; the smallest range in training was {known.range[0]:.4g}"
        return f"{where}, {flatter}. If it is not empty, {remedy}"
    return ""


def _compare_background(number: int, place: float, known: tuple[float, float, float]) -> str:
    """Warn if most pixels are bright but were dark in all training images, or the other way round.

    The median of an inverted image lies where that of the training images would lie after an inversion. In an image
    that merely is crowded, it lies among the intensities of objects.
    """
    smallest, median, largest = known
    is_bright = largest < _MIDDLE and place > max(_MIDDLE + _FROM_MIDDLE, 1 - median - _FROM_MIRRORED)
    is_dark = smallest > _MIDDLE and place < min(_MIDDLE - _FROM_MIDDLE, 1 - median + _FROM_MIRRORED)
    if is_bright or is_dark:
        here, there = ("bright", "dark") if is_bright else ("dark", "bright")
        are = f"most pixels of channel {number} are {here}, in the training images they were {there}"
        return f"{are}; is the contrast inverted?"
    return ""


def find_better_order(image: Levels, trained: Intensities) -> tuple[int, ...]:
    """The order of channels that fits the training images much better than the present one; empty if there is none.

    Intensities are compared relative to the brightest channel, so exposure does not matter.
    """
    n = len(trained.channels)
    if not 2 <= n <= _MOST_PERMUTED:
        return ()
    own = np.array([image.low, image.level, image.high]).T
    known = np.array([(c.low[1], c.level[1], c.high[1]) for c in trained.channels])
    if own.max() <= 0 or known.max() <= 0:
        return ()
    own, known = own / own.max(), known / known.max()
    costs = {order: float(np.abs(own[list(order)] - known).mean()) for order in itertools.permutations(range(n))}
    best, present = min(costs, key=lambda order: costs[order]), tuple(range(n))
    is_better = costs[present] > _DIFFERENT and costs[best] < _BETTER * costs[present]
    return best if is_better else ()
