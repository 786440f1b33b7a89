"""Choose a normalisation by looking at the training images: by how much their exposures differ.

Constants of all images keep what intensities mean, and cost no pass over a slide. They fail if exposures differ: an
image that is four times darker than the others looks empty. Percentiles of each image remove the exposure.

The measure of the spread, for each channel, over the images with objects that show more than noise in it:

* the ratio of ranges. The range of an image is the distance between its 1st and 99.8th percentile. The ratio is that of
  a large range to a small one: the 95th and the 5th percentile of all images' ranges. So one odd image in many does not
  decide;
* the shift. How far the dark ends move from image to image, or the bright ends, whichever is less (95th less 5th
  percentile over the images), divided by the median range. A lamp or a camera's offset moves both ends.

Percentiles are chosen if the ratio is above 2, or the shift above 1/2, in any channel.

Stained tissue in transmitted light (RGB with a bright background) keeps constants: its white is the same for all
images of a scanner, and percentiles would stretch a pale slide or bare glass to full contrast.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.statistics.levels import Levels, find_with_objects

MOST_RATIO = 2.0
MOST_SHIFT = 0.5
_ENDS = (5, 95)  # percentiles over the images
_BRIGHT = 1 / 3  # of white: tissue without any glass has its median pixel near a half
_MOST_IMAGES = 0.9


@dataclass(frozen=True)
class Choice:
    """A kind of normalisation, and the reason in a sentence that follows a colon."""

    kind: str
    reason: str


def choose_normalisation(images: Sequence[Levels]) -> Choice:
    """Choose between constants and percentiles.

    Parameters
    ----------
    images : sequence of Levels
        The training images with objects; at least one.
    """
    if is_bright_field(images):
        return Choice("constants", "these are RGB images with a bright background, as of stained tissue")
    if len(images) == 1:
        return Choice("constants", "there is one image, so nothing shows that exposures differ")
    ratios, shifts = zip(*(_spread(images, channel) for channel in range(len(images[0].low))), strict=True)
    ratio, shift = max(ratios), max(shifts)
    measured = f"ranges by a factor of {ratio:.2g} (limit {MOST_RATIO:g}), levels by {shift:.2g} ranges (limit "
    measured += f"{MOST_SHIFT:g})"
    if ratio > MOST_RATIO or shift > MOST_SHIFT:
        return Choice("percentiles", f"exposures differ between the {len(images)} images: {measured}")
    return Choice("constants", f"exposures of the {len(images)} images are alike: {measured}")


def _spread(images: Sequence[Levels], channel: int) -> tuple[float, float]:
    """Ratio of ranges and shift of levels of a channel; images without any range, or with noise only, are left out."""
    varied = [images[k] for k in find_with_objects(images, channel) if images[k].ranges[channel] > 0]
    if not varied:
        return 1.0, 0.0
    ranges = np.array([image.ranges[channel] for image in varied])
    small, large = np.percentile(ranges, _ENDS)
    moves = [
        float(np.ptp(np.percentile([end(image)[channel] for image in varied], _ENDS)))
        for end in (lambda image: image.low, lambda image: image.high)
    ]
    return float(large / small), min(moves) / float(np.median(ranges))


def is_bright_field(images: Sequence[Levels]) -> bool:
    """Whether these are RGB images of transmitted light, which have a bright background.

    The median pixel of nearly all images is brighter than a third of white. White is the brightest that any image of
    the same dtype shows. On a dark background (fluorescence stored as RGB) the median pixel is near black.
    """
    if len(images[0].low) != 3:
        return False
    white = {dtype: max(max(i.high) for i in images if i.dtype == dtype) for dtype in {i.dtype for i in images}}
    bright = [float(np.mean(image.level)) > _BRIGHT * white[image.dtype] for image in images]
    return sum(bright) >= _MOST_IMAGES * len(bright)
