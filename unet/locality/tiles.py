"""A network on a whole mirrored image, and on the same image tile by tile: an oracle and what it judges.

An axis may be left as it is (None): then neither is it mirrored nor cut, and whole image and tiles have it in common.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from segment_slide.unet.geometry import round_up
from segment_slide.unet.locality.probe import Function
from segment_slide.unet.locality.record import AxisLocality

Axes = Sequence[AxisLocality | None]


def run_whole(function: Function, image: np.ndarray, axes: Axes) -> np.ndarray:
    """The network on the whole mirrored image, in one pass.

    Parameters
    ----------
    function : callable
        The network.
    image : ndarray, (c, *spatial)
        Its input.
    axes : sequence of AxisLocality or None
        One per spatial axis.

    Returns
    -------
    ndarray, (k, *spatial)
        At the output's scale.
    """
    sizes = image.shape[1:]
    kept = (slice(None) if axis is None else axis.kept(size) for axis, size in zip(axes, sizes, strict=True))
    return function(_mirror(image, axes)[None])[0][(slice(None), *kept)]


def run_tiled(function: Function, image: np.ndarray, axes: Axes, tile: Sequence[int]) -> np.ndarray:
    """The same, tile by tile; `tile` are owned pixels, multiples of the steps."""
    mirrored = _mirror(image, axes)
    cuts = [_cut(*each) for each in zip(axes, image.shape[1:], tile, strict=True)]
    parts = {}
    for place in itertools.product(*(range(len(cut)) for cut in cuts)):
        read, kept = zip(*(cut[number] for cut, number in zip(cuts, place, strict=True)), strict=True)
        answer = function(np.ascontiguousarray(mirrored[(slice(None), *read)])[None])
        parts[place] = answer[0][(slice(None), *kept)]
    return _join(parts, [len(cut) for cut in cuts])


def _cut(axis: AxisLocality | None, size: int, tile: int) -> list[tuple[slice, slice]]:
    """Read box and what is kept of the answer, for each tile of an axis."""
    if axis is None:
        return [(slice(None), slice(None))]
    boxes = []
    for start in range(0, size, tile):
        owned = min(tile, size - start)
        boxes.append((slice(start, start + round_up(owned, axis.step) + 2 * axis.halo), axis.kept(owned)))
    return boxes


def _join(parts: dict[tuple[int, ...], np.ndarray], counts: Sequence[int]) -> np.ndarray:
    """Put tiles together, the last axis first."""
    for axis in reversed(range(len(counts))):
        places = itertools.product(*map(range, counts[:axis]))
        parts = {
            place: np.concatenate([parts[(*place, number)] for number in range(counts[axis])], axis=1 + axis)
            for place in places
        }
    return parts[()]


def _mirror(image: np.ndarray, axes: Axes) -> np.ndarray:
    """The image with its halos; the far end is rounded up to a size that runs."""
    widths = [(0, 0)]
    for axis, size in zip(axes, image.shape[1:], strict=True):
        widths.append((0, 0) if axis is None else (axis.halo, axis.halo + round_up(size, axis.step) - size))
    return np.pad(image, widths, mode="reflect")
