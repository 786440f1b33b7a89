"""A low-resolution tissue mask that tells which blocks are glass.

Most of a slide is empty. The mask is made from the coarsest useful level: Otsu's threshold (scikit-image) on how far
a pixel is from the background's colour. It decides whole blocks only, and keeps a block if in doubt. It is off by
default, because the network never sees the blocks that are skipped.
"""

import math

import numpy as np

from segment_slide.pipeline.blocks.grid import BlockGrid, Index, ceil_divide
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import ImageSource

MASK_PX = 1024  # the mask's longer side: enough for single cells' neighbourhoods, read in one piece
_GROW_PX = 2  # mask pixels around tissue that count as tissue
_LOOK_BUDGET_BYTES = 256 << 20  # of one plane or volume at low resolution; as float32 it is up to 8 times that


def coarse_source(source: ImageSource) -> ImageSource:
    """The coarsest stored level whose longer side is at least `MASK_PX` and that has all planes.

    Raises
    ------
    InputError
        If that level is too large to be looked at in one piece.
    """
    image, planes = source.image, len(source.plane_axes)
    best = source
    n_levels = len(image.multiscale.levels) if image.is_ome else 0
    for level in range(image.level + 1, n_levels):
        coarser_image = describe_image(image.location, level=level)
        coarser = ImageSource(coarser_image, source.n_spatial, source.channels, source.ranges)
        has_all_planes = all(coarser_image.size(axis) == image.size(axis) for axis in source.plane_axes)
        if max(coarser.shape[-2:]) < MASK_PX or not has_all_planes:
            break
        best = coarser
    if math.prod(best.shape[planes:]) * best.pixel_bytes > _LOOK_BUDGET_BYTES:
        raise InputError(
            f"`skip_background` needs a low-resolution level of {image.location}, whose coarsest is "
            f"{best.shape[planes:]} px; make a pyramid first: segment-slide ingest."
        )
    return best


def tissue_mask(pixels: np.ndarray) -> np.ndarray:
    """Where a plane, or any plane of a volume, differs from its background.

    Parameters
    ----------
    pixels : ndarray, (c, y, x) or (c, z, y, x)
        Intensities at low resolution.

    Returns
    -------
    ndarray of bool, (y, x)
        True on tissue and within 2 px of it; all True if there is only one value.
    """
    from scipy.ndimage import binary_dilation

    distance = np.zeros(pixels.shape[1:], np.float32)
    for channel in pixels:
        values = channel.astype(np.float32)
        np.maximum(distance, np.abs(values - _background(values)), out=distance)
    if distance.ndim == 3:
        distance = distance.max(axis=0)  # a volume is glass where all its planes are
    if distance.min() == distance.max():
        return np.ones(distance.shape, bool)
    return binary_dilation(distance > _threshold(distance), iterations=_GROW_PX)


def _threshold(distance: np.ndarray) -> float:
    """Distance from the background above which a pixel is tissue: half of Otsu's, to keep pale tissue, but above noise.

    If no values lie between glass and tissue, Otsu's threshold is the largest distance on glass. Half of it would count
    noise as tissue, and no block would be skipped.
    """
    from skimage.filters import threshold_otsu

    otsu = float(threshold_otsu(distance) + np.ptp(distance) / 512)  # from the middle to the end of one of 256 bins
    noise = 8 * float(np.median(distance[distance <= otsu]))  # a normal distribution's five sigma
    return min(otsu, max(otsu / 2, noise))


def _background(values: np.ndarray) -> np.float32:
    """The most frequent grey value of a channel: glass is the commonest colour.

    Found in two rounds of 64 steps, so that a few saturated pixels do not make the steps too wide to tell glass from
    dim cells.
    """
    ends = np.float64(values.min()), np.float64(values.max())  # float32 steps could be too narrow to be told apart
    for _ in range(2):
        counts, edges = np.histogram(values, bins=64, range=ends)
        peak = int(counts.argmax())
        ends = edges[peak], edges[peak + 1]
    return np.float32((ends[0] + ends[1]) / 2)


def background_blocks(source: ImageSource, grid: BlockGrid) -> list[Index]:
    """Blocks whose own pixels hold no tissue according to the mask, in raster order."""
    coarse = coarse_source(source)
    planes = grid.n_planes_axes
    spatial = tuple(slice(0, size) for size in coarse.shape[planes:])
    empty: list[Index] = []
    for plane in np.ndindex(*grid.counts[:planes]):
        pixels = coarse.read((*(slice(p, p + 1) for p in plane), *spatial))
        mask = tissue_mask(pixels.reshape(pixels.shape[planes:]))
        empty += [(*plane, *index) for index in _empty_blocks(mask, grid)]
    return empty


def _empty_blocks(mask: np.ndarray, grid: BlockGrid) -> list[Index]:
    """Spatial indices of the blocks that touch no True pixel of a mask stretched over the image."""
    planes = grid.n_planes_axes
    empty = []
    for index in np.ndindex(*grid.counts[planes:]):
        owned = grid.write_box((0,) * planes + index)[-2:]
        window = tuple(
            slice(box.start * coarse // size, ceil_divide(box.stop * coarse, size))
            for box, coarse, size in zip(owned, mask.shape, grid.shape[-2:], strict=True)
        )
        if not mask[window].any():
            empty.append(index)
    return empty
