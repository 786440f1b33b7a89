"""Which sizes a network takes, and what sizes it then gives."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from segment_slide.unet.errors import NotLocalError
from segment_slide.unet.locality.probe import Probe

_FIRST_TRIED = {2: (32, 64, 96, 128, 48, 160, 192, 256, 188, 572), 3: (16, 24, 32, 48, 64, 96, 128, 44, 92)}
_ALL_TRIED = {2: range(8, 573), 3: range(4, 141)}
_WINDOW_PX = 65  # two sizes of any stride up to 32 lie in it
_WIDE_PX = 257  # where only few sizes run


@dataclass(frozen=True)
class SizeRule:
    """Sizes of one axis of which the network cuts least, so that no pooling drops a pixel.

    Attributes
    ----------
    smallest, step : int
        The network runs on `smallest` + k * `step`.
    scale : Fraction
        Size of the output per size of the input.
    crop : int
        What it cuts per side (px of the input).
    """

    smallest: int
    step: int
    scale: Fraction
    crop: int

    def round_up(self, size_px: int) -> int:
        """Smallest size that runs and is at least this."""
        return self.smallest + max(0, -(-(size_px - self.smallest) // self.step)) * self.step


def find_base(probe: Probe) -> int:
    """A size that runs if all axes have it."""
    usual = _FIRST_TRIED[probe.ndim]
    for size in (*usual, *_ALL_TRIED[probe.ndim]):
        if probe.sizes_out([size] * probe.ndim) is not None:
            return size
    raise NotLocalError(
        f"it runs on no size from {_ALL_TRIED[probe.ndim].start} to {_ALL_TRIED[probe.ndim].stop - 1} px; the last "
        f"error was: {probe.last_error!s:.300}"
    )


def find_rule(probe: Probe, axis: int, base: Sequence[int]) -> SizeRule:
    """Which sizes one axis may have, if the others have those of `base`.

    Raises
    ------
    NotLocalError
        If the output is no map of the image.
    """
    found = _sizes_out(probe, axis, base, range(base[axis], base[axis] + _WINDOW_PX))
    if len(found) < 2:
        found |= _sizes_out(probe, axis, base, range(base[axis] + _WINDOW_PX, base[axis] + _WIDE_PX))
    if len(found) < 2:
        raise NotLocalError(
            f"it takes one input size only ({base[axis]} px along axis {axis}), so tiles cannot have the context that "
            f"they need. The last error was: {probe.last_error!s:.300}"
        )
    scale = _find_scale(found)
    cut = {size: size - out / scale for size, out in found.items()}
    not_negative = [lost for lost in cut.values() if lost >= 0]
    if not not_negative:  # strided layers round up: more out than in is no map of the image
        raise NotLocalError(f"its output is larger than its input at every size: {_show(found)}.")
    least = min(not_negative)
    good = [size for size in sorted(cut) if cut[size] == least]
    if len(good) < 2:
        raise NotLocalError(f"its output's size does not follow from its input's: {_show(found)}.")
    if (least / 2).denominator != 1:
        raise NotLocalError(f"it cuts {least} px of an axis, which is not the same on both sides.")
    step = math.gcd(*(b - a for a, b in itertools.pairwise(good)))
    smallest = good[0]
    while smallest > step and _runs(probe, axis, base, smallest - step, scale, least):
        smallest -= step
    return SizeRule(smallest, step, scale, int(least / 2))


def _runs(probe: Probe, axis: int, base: Sequence[int], size: int, scale: Fraction, cut: Fraction) -> bool:
    found = _sizes_out(probe, axis, base, [size])
    return size in found and size - found[size] / scale == cut


def _sizes_out(probe: Probe, axis: int, base: Sequence[int], sizes: Sequence[int]) -> dict[int, int]:
    found = {}
    for size in sizes:
        out = probe.sizes_out([*base[:axis], size, *base[axis + 1 :]])
        if out is not None:
            found[size] = out[axis]
    return found


def _find_scale(found: Mapping[int, int]) -> Fraction:
    """Output per input: the slope of sizes that lie whole strides apart."""
    if len(set(found.values())) == 1:
        raise NotLocalError(
            f"its output has {next(iter(found.values()))} px whatever the input's size: it is no map of the image."
        )
    differences: dict[int, list[int]] = {}
    for a, b in itertools.combinations(sorted(found), 2):
        differences.setdefault(b - a, []).append(found[b] - found[a])
    # Sizes that lie a multiple of the stride apart give outputs that lie equally far apart, whatever is cut off. Most
    # pairs lie one stride apart.
    steady = {apart: out for apart, out in differences.items() if len(set(out)) == 1}
    if not steady:
        raise NotLocalError(f"its output's size does not follow from its input's: {_show(found)}.")
    apart = max(sorted(steady), key=lambda apart: len(steady[apart]))
    scale = Fraction(steady[apart][0], apart)
    if scale <= 0:
        raise NotLocalError(f"its output does not grow with its input: {_show(found)}.")
    return scale


def _show(found: Mapping[int, int]) -> str:
    return ", ".join(f"{size} px give {out}" for size, out in list(found.items())[:4])
