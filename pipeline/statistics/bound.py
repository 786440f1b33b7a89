"""Do not stretch an image that is nearly flat: a blank field would turn its noise into cells.

Percentiles, and mean and standard deviation, stretch every image to the same contrast. A blank field holds noise only,
and the network would see that noise as large as it saw cells. So the scale of an image has a lower bound::

    bound = noise of the image / share
    share = 3/2 of the largest noise that a training image had after normalisation, but at least 1/4 of what nothing but
            white noise would have without this bound

That is, noise is not stretched much more than it was in training. Noise is compared, not the range, because the range
means nothing across cameras: 8 bits, 12 bits in 16, real numbers from 0 to 1. Noise changes its units with the image.
The 1/4 is for very clean training images (synthetic ones), which would forbid any noise.

Noise that was smoothed (a lens, JPEG, a denoiser, a picture that was enlarged) is underestimated. So there is another
bound for an image of a dtype of the training images whose range is below a third of the smallest range in training: the
share is a third of that, and the noise is that of the pixels or of their means over 2 x 2 or 4 x 4 pixels, whichever is
largest. This bound is at most a third of the smallest range in training for a range of just that, and at most all of it
for smaller ranges. Other images are not judged by means, because crowded objects look like noise in them.

An image that fills no more of its bound than noise alone would is treated as blank, or as glass with a few objects:

* its background is put where the training images' background was. A percentile of noise is no background, and on a
  bright field it would put the glass where objects were;
* its noise becomes that of the median training image (at least 1/20 of what noise alone would have), and in a dtype of
  the training images it is not scaled by less than they were;
* its full range, from the smallest to the largest value, becomes at most that of the median training image. So a hot
  pixel, or the few cells of a large slide, are as bright as the brightest pixels in training, not a hundred times
  brighter. If nothing but noise is left without its ten brightest and ten darkest pixels, there is no object, and these
  specks become ten times fainter.

Between the two there is no jump: from blank to the bound these three lose their weight.
"""

import statistics
from dataclasses import dataclass

from segment_slide.pipeline.statistics.levels import Levels, Scaling
from segment_slide.unet.normalisation import ChannelIntensities, Intensities, Normalisation

MORE_NOISE = 3 / 2
NOISE_SHARE = 1 / 4
QUIET_SHARE = 1 / 20
RANGE_SHARE = 1 / 3
NOISE_SHARE_FAR_BELOW = 1 / 3
_BLANK = 0.3  # of the bound; noise alone fills 1/4 of it, or less
_FAINT = 0.1
_ENDS = (0.001, 0.999)  # of a normal distribution, for percentiles of 0 and 100


@dataclass(frozen=True)
class Bounded:
    """Offset and scale of each channel after the bound, and what was changed, in sentences."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    notes: tuple[str, ...] = ()


def bound_scaling(measured: Scaling, image: Levels, wanted: Normalisation, trained: Intensities) -> Bounded:
    """Apply the bound to offset and scale that were measured on an image.

    Parameters
    ----------
    measured : (offset, scale)
        One value each per channel; the scale is 0 if the channel is flat.
    image : Levels
        The image's levels.
    wanted : Normalisation
        "mean-std" or "percentiles".
    trained : Intensities
        Of the training images.

    Returns
    -------
    Bounded
        Scales are above 0.
    """
    offsets, scales, notes = [], [], []
    for channel, (offset, scale) in enumerate(zip(*measured, strict=True)):
        known, is_same = trained.channels[channel], image.dtype in trained.dtypes
        given = _without_specks(scale, image, channel, wanted)
        least = _find_bound(given, image, channel, wanted, known, is_same=is_same)
        if given < least or given == 0:
            quiet = max(known.noise[1], QUIET_SHARE / _scale_of_noise(wanted))
            flat = _FlatChannel(image, channel, offset, given, least)
            offset, scale = flat.scaled(quiet, known, is_same=is_same)
            notes.append(_explain(image.channels[channel], given, scale, wanted, known))
        offsets.append(offset)
        scales.append(scale)
    return Bounded(tuple(offsets), tuple(scales), tuple(notes))


def _without_specks(scale: float, image: Levels, channel: int, wanted: Normalisation) -> float:
    """The scale of a channel. Specks in a blank field enlarge the standard deviation, but not percentiles."""
    is_noise = wanted.kind == "mean-std" and image.holds_noise_only(channel)
    return min(scale, image.noise[channel]) if is_noise else scale


def _find_bound(
    scale: float, image: Levels, channel: int, wanted: Normalisation, known: ChannelIntensities, *, is_same: bool
) -> float:
    """The least scale of a channel; `is_same` says whether its units may be those of the training images."""
    share = max(MORE_NOISE * known.noise[2], NOISE_SHARE / _scale_of_noise(wanted))
    least = image.noise[channel] / share
    far_below = RANGE_SHARE * known.smallest_scale
    if is_same and scale < far_below:
        most = min(known.smallest_scale, far_below**2 / scale) if scale else known.smallest_scale
        return max(least, min(most, image.coarse_noise[channel] / share / NOISE_SHARE_FAR_BELOW))
    return least


def _scale_of_noise(wanted: Normalisation) -> float:
    """The scale that an image of nothing but normal noise with standard deviation 1 would get.

    >>> round(_scale_of_noise(Normalisation("percentiles")), 1)
    5.2
    """
    if wanted.kind == "mean-std":
        return 1.0
    normal = statistics.NormalDist()
    low, high = (min(max(q / 100, _ENDS[0]), _ENDS[1]) for q in (wanted.low, wanted.high))
    return max(normal.inv_cdf(high) - normal.inv_cdf(low), 1e-3)


@dataclass(frozen=True)
class _FlatChannel:
    """A channel whose scale, as it was measured, is below its bound."""

    image: Levels
    channel: int
    offset: float
    scale: float
    least: float

    def scaled(self, quiet: float, known: ChannelIntensities, *, is_same: bool) -> tuple[float, float]:
        """Offset and scale. `quiet` is the noise that a blank image shall have."""
        level, noise = self.image.level[self.channel], self.image.noise[self.channel]
        filled = self.scale / self.least if self.least else 0.0
        blank = min(1.0, (1 - filled) / (1 - _BLANK)) ** 2
        own_place = (level - self.offset) / self.scale if self.scale else 0.0
        place = (1 - blank) * own_place + blank * known.background
        wanted = max(self._full_range * known.reach, noise / quiet, known.smallest_scale if is_same else 0.0)
        scale = max(self.least, blank * wanted) or 1.0
        return level - place * scale, scale

    @property
    def _full_range(self) -> float:
        full = self.image.largest[self.channel] - self.image.smallest[self.channel]
        return full / _FAINT if self.image.holds_noise_only(self.channel) else full


def _explain(number: int, given: float, scale: float, wanted: Normalisation, known: ChannelIntensities) -> str:
    what = "range (percentiles)" if wanted.kind == "percentiles" else "standard deviation"
    return (
        f"channel {number} is nearly flat: its {what} is {given:.4g} and mostly noise (training images: "
        f"{known.smallest_scale:.4g} or more). It is not stretched to full contrast, so that noise does not become "
        f"objects: scale {scale:.4g}"
    )
