"""The grid of a network: the smallest shift that shifts its result and changes nothing else."""

import math

import numpy as np

from segment_slide.unet.errors import NotLocalError
from segment_slide.unet.locality.probe import Probe
from segment_slide.unet.locality.reach import Strip

# Multiples of all usual strides.
_SHIFTS = (1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 5, 10, 20, 40, 7, 14, 28, 56, 9, 18, 36, 128)
_PRIMES = 2, 3, 5, 7
_AMPLITUDES = 1.0, 0.2
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 32)
_SEEN_PX = 16
# Differences in standard deviations: the most that may be rounding, the least that can be told from it, and how much
# rounding varies from one shift to another.
_ROUNDING = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-3}
_FLOOR = {np.dtype(np.float64): 1e-13, np.dtype(np.float32): 1e-6}
_SCATTER = 30


def find_stride(probe: Probe, strip: Strip) -> int:
    """Smallest shift with which a network commutes, on one axis.

    The network should have random weights: a branch that hardly counts after a training decides here, too.

    Raises
    ------
    NotLocalError
        If there is none.
    """
    differences = {shift: _difference_of_shift(probe, strip, shift) for shift in _SHIFTS}
    least = min(differences.values())
    if least > _ROUNDING[probe.dtype]:
        raise NotLocalError(
            f"no shift up to {max(_SHIFTS)} px along axis {strip.axis} leaves its result as it is (best: {least:.1e} "
            f"of its standard deviation). What it says of a pixel depends on where in the image the pixel lies: "
            f"interpolation with align_corners=True, or an embedding of positions."
        )
    # Shifts that commute differ by rounding alone, all by about as much; a branch that hardly counts differs by more.
    limit = max(_FLOOR[probe.dtype], _SCATTER * least)
    stride = min(shift for shift, difference in differences.items() if difference <= limit)
    for prime in _PRIMES:  # shifts that commute are the multiples of the smallest one
        while stride % prime == 0 and _difference_of_shift(probe, strip, stride // prime) <= limit:
            stride //= prime
    return stride


def find_step(probe: Probe, strip: Strip, stride: int) -> int:
    """Smallest step of sizes that leaves the grid where it is: a network that pads inside to a multiple moves it.

    Raises
    ------
    NotLocalError
        If the result on a part of the image changes with every size of the image.
    """
    unit = math.lcm(strip.rule.step, stride)
    length = _long_enough(strip, 0)
    for step in (unit * count for count in _STEPS):
        image = probe.noise(strip.sizes(length + 3 * step))
        inner = strip.inner(length)
        wanted = _along(probe.run(strip.part(image, 0, length)), strip, inner)
        longer = (strip.part(image, 0, length + count * step) for count in (1, 2, 3))
        if all(_difference(wanted, _along(probe.run(part), strip, inner)) <= _ROUNDING[probe.dtype] for part in longer):
            return step
    raise NotLocalError(
        f"its result on a part of the image changes with the image's size along axis {strip.axis}, at every step up to "
        f"{unit * _STEPS[-1]} px."
    )


def _difference_of_shift(probe: Probe, strip: Strip, shift: int) -> float:
    """How much the results of two parts of an image differ where they overlap, in standard deviations."""
    rule = strip.rule
    moved = shift * rule.scale
    if moved.denominator != 1:
        return math.inf
    length = _long_enough(strip, shift)
    worst = 0.0
    for amplitude in _AMPLITUDES:
        image = probe.noise(strip.sizes(length + shift), amplitude)
        first, second = (probe.run(strip.part(image, start, start + length)) for start in (0, shift))
        inner = strip.inner(length)
        here = slice(inner.start + int(moved), inner.stop)
        there = slice(inner.start, inner.stop - int(moved))
        worst = max(worst, _difference(_along(first, strip, here), _along(second, strip, there)))
    return worst


def _long_enough(strip: Strip, shift: int) -> int:
    """Length of a strip with outputs that no end reaches, even after a shift.

    The size's remainder is kept, because a network may pad inside to a multiple.
    """
    rule, length = strip.rule, strip.rule.round_up(strip.length)
    while (inner := strip.inner(length)).stop - inner.start < (shift + _SEEN_PX) * rule.scale:
        length += math.lcm(rule.step, 64)
    return length


def _along(answer: np.ndarray, strip: Strip, part: slice) -> np.ndarray:
    return answer[(slice(None),) * (2 + strip.axis) + (part,)]


def _difference(wanted: np.ndarray, found: np.ndarray) -> float:
    """Largest difference in standard deviations of a channel, so that a channel of small values counts as others do."""
    axes = (0, *range(2, wanted.ndim))
    spread = np.maximum(wanted.std(axis=axes, dtype=np.float64), np.finfo(np.float64).tiny)
    return float((np.abs(wanted.astype(np.float64) - found).max(axis=axes) / spread).max())
