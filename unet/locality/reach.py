"""How far the context of a pixel goes: what is filled beyond a plane, and which outputs do not notice.

An output is clean if it is neither NaN nor changed by one bit. NaN passes units that never fire and weights that are 0;
some programs swallow it (a maximum, a ReLU), so the same is done with two random fillings, one of them large.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segment_slide.unet.errors import NotLocalError
from segment_slide.unet.locality.probe import MOST_BYTES, Probe, peak_bytes
from segment_slide.unet.locality.sizes import SizeRule

LONGEST_PX = 4096
_SEEN_PX = 48  # clean outputs in the middle of a strip, so that a stride can be found there
_SLACK_PX = 64  # the reach from another phase of the grid may be longer, by less than a stride
_LARGE = 1e3


@dataclass(frozen=True)
class Strip:
    """An image that is long on one axis, long enough for outputs that see neither of its ends.

    Attributes
    ----------
    axis : int
        The long axis.
    base : tuple of int
        Sizes of the image; that of the long axis is `length`.
    length : int
        Size of the long axis.
    rule : SizeRule
        Sizes of the long axis.
    before, after : int
        Reach (px), for an end anywhere.
    """

    axis: int
    base: tuple[int, ...]
    length: int
    rule: SizeRule
    before: int = 0
    after: int = 0

    def sizes(self, length: int | None = None) -> list[int]:
        """Spatial sizes, with another length if one is given."""
        return [*self.base[: self.axis], self.length if length is None else length, *self.base[self.axis + 1 :]]

    def part(self, image: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Part of an array (n, c, *spatial) along the long axis."""
        return image[(slice(None),) * (2 + self.axis) + (slice(start, stop),)]

    def inner(self, length: int | None = None) -> slice:
        """Outputs of a strip that neither end reaches, wherever its grid lies."""
        rule, length = self.rule, self.length if length is None else length
        before, after = self.before + _SLACK_PX, self.after + _SLACK_PX
        return slice(
            max(0, math.ceil((before - rule.crop) * rule.scale)),
            math.floor((length - after - rule.crop) * rule.scale),
        )


def find_strip(probe: Probe, axis: int, base: Sequence[int], rule: SizeRule) -> Strip:
    """A strip, as long as it must be; its reach is measured.

    Raises
    ------
    NotLocalError
        If every output depends on pixels however far away.
    """
    strip = Strip(axis, tuple(base), rule.round_up(max(base[axis], 3 * rule.step)), rule)
    spent = 0
    while True:
        before_bytes = peak_bytes()
        first, last = _clean_from(probe, strip, rule.step), _clean_to(probe, strip, strip.length - rule.step)
        spent = max(spent, peak_bytes() - before_bytes)
        if first is not None and last is not None and (last - first) / rule.scale >= _SEEN_PX:
            before = math.ceil(first / rule.scale + rule.crop) - rule.step
            after = strip.length - rule.step - math.floor((last + 1) / rule.scale + rule.crop)
            return replace(strip, before=before, after=after)
        if first is None or last is None:
            length = rule.round_up(2 * strip.length)
        else:
            length = rule.round_up(strip.length + max(rule.step, math.ceil((first - last) / rule.scale) + 2 * _SEEN_PX))
        # what looks at the whole image may take memory by the square of its size
        if length > LONGEST_PX or spent * (length / strip.length) ** 2 > MOST_BYTES:
            raise NotLocalError(
                f"its result at a pixel depends on the whole image: pixels along axis {axis} change the output "
                f"{strip.length - rule.step} px away ({probe.whole_image()}). So no tile can reproduce it. Retrain it "
                f"without: with batch normalisation, for example."
            )
        strip = replace(strip, length=length)


def reach_on_grid(probe: Probe, strip: Strip, stride: int) -> tuple[int, int]:
    """Reach before and after, for tiles that start at multiples of the stride; the largest of a few places."""
    rule = strip.rule
    before, after = [], []
    for cut in {stride, max(stride, strip.length // 8 // stride * stride)}:
        first, last = _clean_from(probe, strip, cut), _clean_to(probe, strip, strip.length - cut)
        if first is None or last is None:
            continue
        before.append(math.ceil(first / rule.scale + rule.crop) - cut)
        after.append(strip.length - cut - math.floor((last + 1) / rule.scale + rule.crop))
    if not before:
        raise NotLocalError(f"its reach changes along axis {strip.axis}: no halo can be given.")
    return max(0, *before), max(0, *after)


def _clean_from(probe: Probe, strip: Strip, cut: int) -> int | None:
    """First output that does not notice what lies before the plane `cut`."""
    clean = np.flatnonzero(~_reached(probe, strip, slice(0, cut)))
    return int(clean[0]) if len(clean) else None


def _clean_to(probe: Probe, strip: Strip, cut: int) -> int | None:
    """Last output that does not notice what lies from the plane `cut` on."""
    clean = np.flatnonzero(~_reached(probe, strip, slice(cut, None)))
    return int(clean[-1]) if len(clean) else None


def _reached(probe: Probe, strip: Strip, filled: slice) -> np.ndarray:
    """Which outputs along the long axis notice what is filled; between the first and the last of them, all."""
    image = probe.noise(strip.sizes())
    answer = probe.run(image)
    part = strip.part(image, filled.start, filled.stop if filled.stop is not None else strip.length)
    reached = np.zeros(answer.shape[2 + strip.axis], bool)
    others = tuple(axis for axis in range(answer.ndim) if axis != 2 + strip.axis)
    for filling in (np.nan, probe.noise(part.shape[2:]), probe.noise(part.shape[2:], _LARGE)):
        part[...] = filling
        changed = probe.run(image)
        reached |= (np.isnan(changed) | (changed != answer)).any(axis=others)
    places = np.flatnonzero(reached)
    if len(places):  # a filling may change every second output only
        from_start = filled.start == 0
        reached[: places[-1] + 1] |= from_start
        reached[places[0] :] |= not from_start
    return reached
