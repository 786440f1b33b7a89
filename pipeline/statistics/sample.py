"""A sample of an image's pixels: small boxes at fixed places all over it, whatever the run's blocks and workers.

The sample gives what a histogram of the whole image cannot give, its noise. It also gives percentiles of an image that
is not measured as a whole, because the network has constants. Such percentiles are compared with the training images';
they are never recorded and never scale an image.
"""

import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.blocks.tasks import run_all
from segment_slide.pipeline.errors import ChunkAccessError, UnreadableChunkError
from segment_slide.pipeline.storage.source import ImageSource
from segment_slide.unet.boxes import Box

if TYPE_CHECKING:
    from distributed import Client

# Threads of this process that took too long. While one still waits, no other begins: each would hold one of the few
# threads that zarr reads with.
_late: list[threading.Thread] = []

PATIENCE_S = 6.0  # for one box, where a sample only helps: no run hangs for it
_BOX_PX = {2: (128, 128), 3: (16, 64, 64)}
_MOST_BOXES = 48
# Of the differences of pixels, the smaller three quarters count: edges of objects are among the others.
_KEPT = 0.75
_SIDES = 1, 2, 4
_MEAN_OF_KEPT = 0.5148  # of the absolute values of a normal distribution with standard deviation 1


@dataclass(frozen=True)
class Sample:
    """Pixels of some boxes of an image.

    Attributes
    ----------
    values : tuple of ndarray
        Intensities of each channel, in one dimension, in the image's dtype.
    noise : tuple of float
        Standard deviation of the noise in each channel: the median over the boxes.
    coarse_noise : tuple of float
        The same, with what is left of noise that was smoothed: the largest at 1, 2 and 4 px.
    n_boxes : int
        Number of boxes that could be read.
    """

    values: tuple[np.ndarray, ...]
    noise: tuple[float, ...]
    coarse_noise: tuple[float, ...]
    n_boxes: int


def sample_image(
    source: ImageSource, client: "Client | None" = None, patience_s: float | None = None, most: int = _MOST_BOXES
) -> Sample | None:
    """Read a sample of an image; None if no box can be read.

    Boxes that cannot be read are left out: the run itself names damaged chunks.

    Parameters
    ----------
    source : ImageSource
        The image.
    client : Client, optional
        Where to read; None reads in this process. If reading hangs there, nothing ends it.
    patience_s : float, optional
        Time in s for one box. If any takes longer, the answer is None: a file server may hang, and nothing that only
        helps may hang with it.
    most : int
        Number of boxes at most.

    Raises
    ------
    IncompleteError
        If workers died while they read.
    """
    places = list(sample_boxes(source, most))
    read = functools.partial(_read_box, source, places, patience_s)
    found = dict(run_all(client, read, range(len(places)), lambda number: f"sample {number}"))
    boxes = [pixels for number in range(len(places)) if (pixels := found[number][0]) is not None]
    if not boxes or any(is_late for _, is_late in found.values()):
        return None
    channel_axis = len(source.plane_axes)
    by_channel = [[box.take(channel, axis=channel_axis) for box in boxes] for channel in range(len(source.channels))]
    values = tuple(np.concatenate([part.ravel() for part in parts]) for parts in by_channel)
    noise, coarse_noise = (
        tuple(float(np.median([estimate(part) for part in parts])) for parts in by_channel)
        for estimate in (estimate_noise, estimate_coarse_noise)
    )
    return Sample(values, noise, coarse_noise, len(boxes))


def _read_box(
    source: ImageSource, places: Sequence[Box], patience_s: float | None, number: int
) -> tuple[np.ndarray | None, bool]:
    """Pixels of a box, None if it cannot be read, and whether reading it took too long."""
    found: list[np.ndarray] = []

    def read() -> None:
        with contextlib.suppress(ChunkAccessError, UnreadableChunkError):
            found.append(source.read(places[number]))

    if patience_s is None:
        read()
        return (found[0] if found else None), False
    if any(thread.is_alive() for thread in _late):
        return None, True
    thread = threading.Thread(target=read, name="sample", daemon=True)
    thread.start()
    thread.join(patience_s)
    if thread.is_alive():
        _late.append(thread)
    return (found[0] if found else None), thread.is_alive()


def sample_boxes(source: ImageSource, most: int = _MOST_BOXES) -> Iterator[Box]:
    """Boxes that cover all of a small image, or lie evenly over a large one."""
    size_px = (*(1 for _ in source.plane_axes), *_BOX_PX[source.n_spatial])
    steps = [min(size, step) for size, step in zip(source.shape, size_px, strict=True)]
    counts = [-(-size // step) for size, step in zip(source.shape, steps, strict=True)]
    shares: Iterable[tuple[float, ...]]
    if math.prod(counts) <= most:
        shares = itertools.product(*([number / max(1, count - 1) for number in range(count)] for count in counts))
        ends = [size - step for size, step in zip(source.shape, steps, strict=True)]
    else:
        shares = spread_evenly(most, len(steps))
        ends = [size - step + 1 for size, step in zip(source.shape, steps, strict=True)]
    places = {tuple(int(share * end) for share, end in zip(row, ends, strict=True)) for row in shares}
    for place in sorted(places):
        yield tuple(slice(start, start + step) for start, step in zip(place, steps, strict=True))


def spread_evenly(count: int, ndim: int) -> list[tuple[float, ...]]:
    """Points of the unit cube, spread evenly without lying on lines: multiples of powers of a generalised golden ratio.

    >>> spread_evenly(3, 1)
    [(0.5,), (0.118...,), (0.736...,)]
    """
    ratio = 2.0
    for _ in range(50):
        ratio = (1 + ratio) ** (1 / (ndim + 1))
    return [tuple((0.5 + number * ratio ** -(axis + 1)) % 1 for axis in range(ndim)) for number in range(count)]


def estimate_noise(pixels: np.ndarray) -> float:
    """Standard deviation of white noise in a picture or a stack (last two axes: y, x); 0 if it is too small to tell.

    Second differences along both axes do not see slopes and straight edges (Immerkaer 1996,
    doi:10.1006/cviu.1996.0060).

    >>> noisy = np.random.default_rng(0).normal(100, 7, (64, 64)) + np.linspace(0, 500, 64)
    >>> round(estimate_noise(noisy))
    7
    """
    if min(pixels.shape[-2:]) < 3:
        return 0.0
    values = pixels.astype(np.float64)
    for _ in range(2):  # along x, then along y
        values = np.moveaxis(values[..., :-2] - 2 * values[..., 1:-1] + values[..., 2:], -1, -2)
    differences = np.abs(values).ravel()
    count = max(1, round(_KEPT * differences.size))
    smaller = np.partition(differences, count - 1)[:count]
    return float(smaller.mean()) / (6 * _MEAN_OF_KEPT)


def estimate_coarse_noise(pixels: np.ndarray) -> float:
    """The largest noise of a picture and of its means over 2 x 2 and 4 x 4 pixels.

    Of white noise this is the noise itself. Noise that was smoothed (a lens, JPEG, a picture that was enlarged) is
    seen in the means only. Fine structure counts as noise, too.
    """
    height, width = pixels.shape[-2:]
    found = []
    for side in _SIDES:
        whole = pixels[..., : height // side * side, : width // side * side].astype(np.float64)
        parts = whole.reshape(*pixels.shape[:-2], height // side, side, width // side, side)
        found.append(estimate_noise(parts.mean(axis=(-3, -1))))
    return max(found)
