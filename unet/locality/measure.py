"""Measure how local a network is, and prove the result on a random image.

Nothing is looked up inside the network. Order of work: sizes that run; the reach along each axis; the stride; a step of
sizes that leaves the grid where it is; the halo. At the end tiles of three sizes are compared with the whole image.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from segment_slide.unet.errors import NotLocalError
from segment_slide.unet.geometry import round_up
from segment_slide.unet.locality.probe import Function, Probe
from segment_slide.unet.locality.reach import find_strip, reach_on_grid
from segment_slide.unet.locality.record import AxisLocality, MeasuredLocality
from segment_slide.unet.locality.sizes import SizeRule, find_base, find_rule
from segment_slide.unet.locality.stride import find_step, find_stride
from segment_slide.unet.locality.tiles import Axes, run_tiled, run_whole

PROBE_VERSION = 1

_TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-4}  # of the output's standard deviation
_TILES = 1, 2, 3  # in steps, but at least _TILE_PX
_TILE_PX = {2: 48, 3: 16}
_MOST_PX = 1 << 20  # of one pass of the self-test


def measure(
    function: Function,
    in_channels: int,
    ndim: int,
    *,
    randomised: Function | None = None,
    dtype: np.dtype | type = np.float32,
    report: Callable[[int], None] | None = None,
    explain: Callable[[], str] | None = None,
) -> MeasuredLocality:
    """Measure stride, reach, halo, sizes, crop and scale of any network.

    Parameters
    ----------
    function : callable
        The network: (1, in_channels, *spatial) in, (1, k, *spatial) out, as numpy arrays; it raises for a size that it
        cannot run on.
    in_channels, ndim : int
        Channels and spatial axes (2 or 3) of its input.
    randomised : callable, optional
        The same network with random weights. Trained weights may hide a branch whose grid is coarse.
    dtype : numpy dtype
        Floating-point type of the input.
    report : callable, optional
        Called with the number of passes so far.
    explain : callable, optional
        Says in a few words what in the network looks at the whole image.

    Returns
    -------
    MeasuredLocality
        Tiled results are those of the whole mirrored image, as the self-test at the end has shown.

    Raises
    ------
    NotLocalError
        If the network is not local, or if tiles give another result than the whole image.
    """
    probe = Probe(function, in_channels, ndim, dtype=dtype, report=report, explain=explain)
    random = probe if randomised is None else Probe(randomised, in_channels, ndim, dtype=dtype, explain=explain)
    base = [find_base(probe)] * ndim
    rules = [find_rule(probe, axis, base) for axis in range(ndim)]
    base = [rule.round_up(size) for rule, size in zip(rules, base, strict=True)]
    image = probe.noise(base)
    answer = probe.run(image)
    if not np.isfinite(answer).all():
        raise NotLocalError("it gives NaN or infinity for random numbers around 0: its weights are damaged.")
    if not np.array_equal(answer, probe.run(image)):
        raise NotLocalError(
            "two passes over the same image differ: dropout is left on, or batch normalisation is in training mode. "
            "Export the network in evaluation mode."
        )
    axes = tuple(_measure_axis(probe, random, axis, base, rule) for axis, rule in enumerate(rules))
    found = MeasuredLocality(axes, in_channels, answer.shape[1])
    are_equal = [check(network, found, base) for network in _both(probe, random)]
    return dataclasses.replace(found, is_bit_equal=all(are_equal))


def _both(probe: Probe, random: Probe) -> list[Probe]:
    """The network, and the one with random weights if there is another."""
    return [probe] if probe is random else [probe, random]


def _measure_axis(probe: Probe, random: Probe, axis: int, base: Sequence[int], rule: SizeRule) -> AxisLocality:
    networks = _both(probe, random)
    strips = [find_strip(network, axis, base, rule) for network in networks]
    longest = max(strip.length for strip in strips)
    strip = dataclasses.replace(
        strips[0],
        length=longest,
        before=max(strip.before for strip in strips),
        after=max(strip.after for strip in strips),
    )
    stride = find_stride(random, strip)
    step = find_step(random, strip, stride)
    # tiles will have sizes like this one: where a network pads inside, its reach may be another at other sizes
    rest = 0 if _takes_multiples(rule) else rule.smallest
    strip = dataclasses.replace(strip, length=longest + (rest - longest) % step)
    reaches = [reach_on_grid(network, strip, stride) for network in networks]
    before, after = max(first for first, _ in reaches), max(last for _, last in reaches)
    halo = find_halo(max(before, after), step, rule)
    scale = rule.scale.numerator, rule.scale.denominator
    return AxisLocality(stride, before, after, halo, step, rule.smallest, rule.crop, scale)


def find_halo(reach: int, step: int, rule: SizeRule) -> int:
    """Smallest symmetric context that is at least the reach, for tiles of whole steps.

    A network that runs on multiples of its step gets whole steps, so that its grid begins where the image does.

    >>> from fractions import Fraction
    >>> find_halo(92, 16, SizeRule(188, 16, Fraction(1), 92)), find_halo(53, 8, SizeRule(8, 8, Fraction(1), 0))
    (94, 56)
    """
    if _takes_multiples(rule):
        return round_up(reach, step)
    first = max(reach, rule.crop)
    for halo in range(first, first + 4 * step + 1):
        if (2 * halo - rule.smallest) % step == 0 and ((halo - rule.crop) * rule.scale).denominator == 1:
            return halo
    raise NotLocalError(f"no context of the same width on both sides gives a size that it runs on ({rule}).")


def _takes_multiples(rule: SizeRule) -> bool:
    """Whether a network cuts nothing and runs on multiples of its step."""
    return rule.crop == 0 and rule.smallest % rule.step == 0


def check(probe: Probe, found: MeasuredLocality, base: Sequence[int]) -> bool:
    """Compare tiles with the whole mirrored image, at three tile sizes, whose tiles begin at different phases.

    All axes are cut at once if the image that this needs is small, as in 2D; else one after the other, while the other
    axes are left at the size `base`.

    Returns
    -------
    bool
        Whether all tiles gave the bits of the whole image; if not, they differed by rounding alone.

    Raises
    ------
    NotLocalError
        If a difference is more than rounding.
    """
    sizes = [2 * _least_tile(axis, probe.ndim) + axis.step + 1 for axis in found.axes]
    together = math.prod(size + 2 * axis.halo + axis.step for size, axis in zip(sizes, found.axes, strict=True))
    if together <= _MOST_PX:
        return _check(probe, found.axes, sizes)
    is_equal = True
    for number, size in enumerate(sizes):
        alone = [axis if number == other else None for other, axis in enumerate(found.axes)]
        is_equal &= _check(probe, alone, [*base[:number], size, *base[number + 1 :]])
    return is_equal


def _least_tile(axis: AxisLocality, ndim: int) -> int:
    return max(axis.step, round_up(_TILE_PX[ndim], axis.step))


def _check(probe: Probe, axes: Axes, sizes: Sequence[int]) -> bool:
    image = probe.noise(sizes)[0]
    whole = run_whole(probe.run, image, axes)
    spread = max(float(whole.std(dtype=np.float64)), np.finfo(np.float64).tiny)
    is_equal = True
    for count in _TILES:
        tile = [1 if axis is None else _least_tile(axis, probe.ndim) + (count - 1) * axis.step for axis in axes]
        try:
            tiled = run_tiled(probe.run, image, axes, tile)
        except NotLocalError:
            raise
        except Exception as error:
            raise NotLocalError(f"tiles of {tile} px cannot be run: {error!s:.300}") from error
        difference = np.abs(tiled.astype(np.float64) - whole)
        is_equal = is_equal and not difference.any()
        if not float(difference.max()) <= _TOLERANCE[probe.dtype] * spread:
            cut = [(axis, side) for axis, side in zip(axes, tile, strict=True) if axis is not None]
            raise NotLocalError(
                f"tiles of {' x '.join(str(side) for _, side in cut)} px give another result than the whole image "
                f"(up to {difference.max() / spread:.1e} of its standard deviation), although it looked local: "
                f"{', '.join(f'stride {axis.stride}, halo {axis.halo}' for axis, _ in cut)}."
            )
    return is_equal
