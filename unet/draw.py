"""Choose which part of which image a sample shows, and draw it: a pure function of (seed, number, sources).

First an annotated pixel is chosen, then its position within the tile, then the deformation. The tile's place follows
from these. So each sample holds annotated pixels, however sparse the annotation is::

    image   |--------------------x-------------------|      x  the drawn pixel
    read             |hhhh|TTTTTTxT|hhhh|                   anywhere in the tile, T
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from segment_slide.unet.annotated import AnnotatedPixels, is_drawn
from segment_slide.unet.augment import draw_deformation
from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.boxes import Box
from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.geometry import Geometry
from segment_slide.unet.resample import REACH_PX, find_ends, interpolate, pick_nearest
from segment_slide.unet.sample import Sample


@dataclass(frozen=True)
class SampleSettings:
    """Size of samples and how they are varied. A sample depends on these settings, its number and the sources only.

    Parameters
    ----------
    tile_px : tuple of int
        Size of the tile whose classes are compared, per spatial axis; multiples of the stride.
    depth : int
        Depth of the network; it determines the halo.
    seed : int
        Seed of the random numbers, at least 0.
    foreground_share : float
        Probability (0 to 1) that a sample is drawn around a pixel of a class above 0; the others are drawn around any
        annotated pixel. Without it, rare cells would hardly ever be seen.
    augment : AugmentSettings
        How samples are varied.

    Raises
    ------
    TrainingDataError, GeometryError
        If a value is out of range, or the tile is not a multiple of the stride.
    """

    tile_px: tuple[int, ...]
    depth: int = 4
    seed: int = 0
    foreground_share: float = 0.5
    augment: AugmentSettings = AugmentSettings()

    def __post_init__(self) -> None:
        if len(self.tile_px) not in (2, 3):
            raise TrainingDataError(f"tile_px={self.tile_px}, expected sizes on (y, x) or (z, y, x).")
        for size in self.tile_px:
            self.geometry.check_multiple(size, "tile")
        if self.seed < 0 or not 0 <= self.foreground_share <= 1:
            raise TrainingDataError(
                f"seed={self.seed}, foreground_share={self.foreground_share}: expected at least 0, and 0 to 1."
            )

    @property
    def geometry(self) -> Geometry:
        """Stride and halo of the network."""
        return Geometry(self.depth)

    @property
    def read_px(self) -> tuple[int, ...]:
        """Pixels per spatial axis of a sample's image: the tile and its halo."""
        return tuple(self.geometry.read_size(size) for size in self.tile_px)

    @property
    def inner(self) -> Box:
        """The tile within the pixels that are read."""
        return tuple(slice(self.geometry.halo, self.geometry.halo + size) for size in self.tile_px)


@dataclass(frozen=True)
class Place:
    """Where a sample comes from.

    Attributes
    ----------
    image : int
        Number of the source.
    plane : tuple of int
        Index on its plane axes.
    centre_px : tuple of float
        Middle of the tile in the image, on spatial axes. Tiles have even sizes, so it lies between two pixels.
    """

    image: int
    plane: tuple[int, ...]
    centre_px: tuple[float, ...]


def draw_sample(sources: Sequence[AnnotatedPixels], settings: SampleSettings, number: int) -> tuple[Sample, Place]:
    """Draw the sample with a number: the same for equal (seed, number, sources), in any order and any process.

    Parameters
    ----------
    sources : sequence of AnnotatedPixels
        Annotated images. Each is chosen with a probability proportional to its number of annotated pixels.
    settings : SampleSettings
        Size of samples, and how they are varied.
    number : int
        Number of the sample, from 0.

    Returns
    -------
    Sample, Place
        The sample has at least one annotated pixel. Pixels without annotation, and beyond the image, have class 255 and
        weight 0; their intensities are the image's, or its mirror image's (Sec. 2).

    Raises
    ------
    TrainingDataError
        If no source has an annotated pixel.

    Notes
    -----
    A tile that would reach beyond the image is moved into it, as long as pixels like the drawn one (annotated, or
    foreground) stay in the tile. An image smaller than the tile lies in the tile's middle.
    """
    random = np.random.default_rng([settings.seed, number])
    image, pixel, foreground = _draw_pixel(sources, settings, random)
    source = sources[image]
    planes = len(source.planes)
    plane, spatial = pixel[:planes], np.array(pixel[planes:])
    wanted = [
        int(halo.start + random.integers(size)) for halo, size in zip(settings.inner, settings.tile_px, strict=True)
    ]
    between = random.uniform(-0.49, 0.49, len(spatial))  # below 1/2, so that the drawn pixel stays the nearest
    deformation = draw_deformation(random, settings.augment, len(spatial), source.n_channels)
    coordinates = deformation.coordinates(settings.read_px)
    inner = coordinates[(slice(None), *settings.inner)]
    if settings.augment.interpolates:
        spatial = spatial + between
    centre = spatial - coordinates.reshape(len(wanted), -1)[:, np.ravel_multi_index(wanted, settings.read_px)]
    moved = _move_inside(centre, source.spatial, settings.tile_px)
    classes, weights = _warp_annotation(source, plane, inner, moved)
    if not is_drawn(classes, foreground=foreground).any():
        moved = centre
        classes, weights = _warp_annotation(source, plane, inner, moved)
    pixels = deformation.vary_grey(_warp_image(source, plane, coordinates, moved))
    return Sample(pixels, classes, weights), Place(image, plane, tuple(moved.tolist()))


def _draw_pixel(
    sources: Sequence[AnnotatedPixels], settings: SampleSettings, random: np.random.Generator
) -> tuple[int, tuple[int, ...], bool]:
    """Draw a source, one of its pixels, and whether the choice was among foreground pixels only."""
    foreground = bool(random.random() < settings.foreground_share)
    ends = np.cumsum([source.count(foreground=foreground) for source in sources])
    if foreground and not ends[-1]:  # only background is annotated, so learn from that
        foreground = False
        ends = np.cumsum([source.count(foreground=False) for source in sources])
    if not len(ends) or not ends[-1]:
        raise TrainingDataError("no pixel of any image is annotated: there is nothing to learn from.")
    rank = int(random.integers(ends[-1]))
    image = int(np.searchsorted(ends, rank, side="right"))
    pixel = sources[image].locate(rank - int(ends[image - 1] if image else 0), foreground=foreground)
    return image, pixel, foreground


def _move_inside(centre: np.ndarray, spatial: tuple[int, ...], tile_px: tuple[int, ...]) -> np.ndarray:
    """Move a centre so that the unrotated tile lies in the image; a tile larger than the image is centred on it.

    >>> _move_inside(np.array([1.5, 50.5]), (100, 5), (16, 16)).tolist()
    [7.5, 1.5]
    """
    reach = (np.array(tile_px) - 1) / 2
    size = np.array(spatial)
    inside = np.clip(centre, reach, np.maximum(size - 1 - reach, reach))
    return np.where(size >= tile_px, inside, size // 2 - 0.5)  # .5 like all centres: nothing is interpolated


def _warp_annotation(
    source: AnnotatedPixels, plane: tuple[int, ...], coordinates: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    first, last = find_ends(coordinates, centre + 0.5)
    box = tuple(slice(int(start), int(stop) + 1) for start, stop in zip(first, last, strict=True))
    return pick_nearest(*source.read_annotation(plane, box), coordinates, centre - first)


def _warp_image(
    source: AnnotatedPixels, plane: tuple[int, ...], coordinates: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    first, last = find_ends(coordinates, centre)
    first, last = first - (REACH_PX - 1), last + REACH_PX
    box = tuple(slice(int(start), int(stop) + 1) for start, stop in zip(first, last, strict=True))
    return interpolate(source.read_image(plane, box), coordinates, centre - first)


def plain_places(sources: Sequence[AnnotatedPixels], tile_px: tuple[int, ...]) -> Iterator[Place]:
    """Tiles on a grid from each image's origin that cover each annotated pixel once; tiles without any are left out.

    >>> from segment_slide.unet.annotated import ArrayPixels
    >>> classes = np.full((16, 40), 255, np.uint8)
    >>> classes[0, 20] = 1
    >>> list(plain_places([ArrayPixels(np.zeros((1, 16, 40), np.float32), classes)], (16, 16)))
    [Place(image=0, plane=(), centre_px=(7.5, 23.5))]
    """
    for number, source in enumerate(sources):
        grid = [range(0, size, tile) for size, tile in zip(source.spatial, tile_px, strict=True)]
        for plane in np.ndindex(*source.planes):
            for origin in product(*grid):
                box = tuple(slice(start, start + tile) for start, tile in zip(origin, tile_px, strict=True))
                if source.has_annotation(plane, box):
                    centre = tuple(start + (tile - 1) / 2 for start, tile in zip(origin, tile_px, strict=True))
                    yield Place(number, plane, centre)


def cut_plain(sources: Sequence[AnnotatedPixels], settings: SampleSettings, place: Place) -> Sample:
    """Cut the unchanged sample at a place, for validation.

    Returns
    -------
    Sample
        Mirrored beyond the image; class 255 and weight 0 there, so that no pixel counts twice.
    """
    origin = [int(centre - (tile - 1) / 2) for centre, tile in zip(place.centre_px, settings.tile_px, strict=True)]
    halo, source = settings.geometry.halo, sources[place.image]
    tile = tuple(slice(start, start + size) for start, size in zip(origin, settings.tile_px, strict=True))
    read = tuple(slice(part.start - halo, part.stop + halo) for part in tile)
    image, (classes, weights) = source.read_image(place.plane, read), source.read_annotation(place.plane, tile)
    return Sample(*map(np.ascontiguousarray, (image, classes, weights)))


def check_sources(sources: Sequence[AnnotatedPixels], settings: SampleSettings) -> None:
    """Refuse images that do not fit the tile or each other, and sources without any annotated pixel.

    Raises
    ------
    TrainingDataError
        The message names the image by its position.
    """
    for number, source in enumerate(sources):
        if len(source.spatial) != len(settings.tile_px):
            raise TrainingDataError(
                f"image {number}: {len(source.spatial)} spatial axes, but tile_px={settings.tile_px} has "
                f"{len(settings.tile_px)}."
            )
        if source.n_channels != sources[0].n_channels:
            raise TrainingDataError(
                f"image {number}: {source.n_channels} channel(s), but image 0 has {sources[0].n_channels}; "
                f"a network takes one number of channels."
            )
    if not any(source.count(foreground=False) for source in sources):
        raise TrainingDataError("no pixel of any image is annotated: there is nothing to learn from.")
