"""Which part of which image a sample shows, and the sample itself: a pure function of (seed, number, sources).

A sample is drawn from one pixel outwards. An annotated pixel is chosen, then where in the tile it shall lie, then the
deformation; the tile's place follows. So each sample holds annotated pixels, however sparse the annotation is::

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
    """What samples are like; with the sources, all that they depend on.

    Parameters
    ----------
    tile_px : tuple of int
        Pixels per spatial axis whose classes are compared, multiples of the stride.
    depth : int
        Of the network; fixes the halo.
    seed : int
        At least 0.
    foreground_share : float
        Probability (0 to 1) that a sample is drawn around a pixel of a class above 0; the others are drawn around any
        annotated pixel. Rare cells would hardly ever be seen otherwise.
    augment : AugmentSettings
        How samples are varied.

    Raises
    ------
    TrainingDataError, GeometryError
        If a value is out of range, or the tile not a multiple of the stride.
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
        """Stride and halo."""
        return Geometry(self.depth)

    @property
    def read_px(self) -> tuple[int, ...]:
        """Pixels per spatial axis of a sample's image: the tile and its halo."""
        return tuple(self.geometry.read_size(size) for size in self.tile_px)

    @property
    def inner(self) -> Box:
        """The tile within what is read."""
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
        Middle of the tile in the image, on spatial axes: between two pixels where the tile is even, as it is.
    """

    image: int
    plane: tuple[int, ...]
    centre_px: tuple[float, ...]


def draw_sample(sources: Sequence[AnnotatedPixels], settings: SampleSettings, number: int) -> tuple[Sample, Place]:
    """The sample of a number: equal for equal (seed, number, sources), in whatever order and process.

    Parameters
    ----------
    sources : sequence of AnnotatedPixels
        Annotated images; one is chosen in proportion to its annotated pixels.
    settings : SampleSettings
        What samples are like.
    number : int
        0 the first.

    Returns
    -------
    Sample, Place
        At least one pixel is annotated. Pixels without annotation, and what lies beyond the image, have class 255 and
        weight 0; the intensities there are the image's, or its mirror image (Sec. 2).

    Raises
    ------
    TrainingDataError
        If no source has an annotated pixel.

    Notes
    -----
    A tile that would leave the image is moved into it as long as pixels like the drawn one (annotated, or foreground)
    stay in the tile; an image smaller than the tile lies in its middle.
    """
    random = np.random.default_rng([settings.seed, number])
    image, pixel, foreground = _draw_pixel(sources, settings, random)
    source = sources[image]
    planes = len(source.planes)
    plane, spatial = pixel[:planes], np.array(pixel[planes:])
    wanted = [
        int(halo.start + random.integers(size)) for halo, size in zip(settings.inner, settings.tile_px, strict=True)
    ]
    between = random.uniform(-0.49, 0.49, len(spatial))  # below 1/2: the drawn pixel stays the nearest
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
    """Number of a source, index of one of its pixels, and whether only foreground was drawn from, evenly."""
    foreground = bool(random.random() < settings.foreground_share)
    ends = np.cumsum([source.count(foreground=foreground) for source in sources])
    if foreground and not ends[-1]:  # nothing but background is annotated: that is learnt from, then
        foreground = False
        ends = np.cumsum([source.count(foreground=False) for source in sources])
    if not len(ends) or not ends[-1]:
        raise TrainingDataError("no pixel of any image is annotated: there is nothing to learn from.")
    rank = int(random.integers(ends[-1]))
    image = int(np.searchsorted(ends, rank, side="right"))
    pixel = sources[image].locate(rank - int(ends[image - 1] if image else 0), foreground=foreground)
    return image, pixel, foreground


def _move_inside(centre: np.ndarray, spatial: tuple[int, ...], tile_px: tuple[int, ...]) -> np.ndarray:
    """The nearest centre whose tile, were it not turned, lies in the image; the image's where the tile is larger.

    >>> _move_inside(np.array([1.5, 50.5]), (100, 5), (16, 16)).tolist()
    [7.5, 1.5]
    """
    reach = (np.array(tile_px) - 1) / 2
    size = np.array(spatial)
    inside = np.clip(centre, reach, np.maximum(size - 1 - reach, reach))
    return np.where(size >= tile_px, inside, size // 2 - 0.5)  # a half, like all centres: nothing is interpolated


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
    """Tiles on a grid from each image's origin that cover all annotated pixels once; those without any are left out.

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
    """The sample at a place as the image is: what validation compares.

    Returns
    -------
    Sample
        Mirrored beyond the image; 255 and weight 0 there, so that no pixel counts twice.
    """
    origin = [int(centre - (tile - 1) / 2) for centre, tile in zip(place.centre_px, settings.tile_px, strict=True)]
    halo, source = settings.geometry.halo, sources[place.image]
    tile = tuple(slice(start, start + size) for start, size in zip(origin, settings.tile_px, strict=True))
    read = tuple(slice(part.start - halo, part.stop + halo) for part in tile)
    image, (classes, weights) = source.read_image(place.plane, read), source.read_annotation(place.plane, tile)
    return Sample(*map(np.ascontiguousarray, (image, classes, weights)))


def check_sources(sources: Sequence[AnnotatedPixels], settings: SampleSettings) -> None:
    """Refuse images that do not fit the tile or each other, or in which nothing is annotated.

    Raises
    ------
    TrainingDataError
        Naming the image by its position.
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
