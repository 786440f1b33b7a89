"""Samples of images in memory, as `unet.sample.Samples`: each is drawn when it is requested, none is stored."""

from collections.abc import Sequence

from segment_slide.unet.annotated import AnnotatedPixels
from segment_slide.unet.draw import SampleSettings, check_sources, cut_plain, draw_sample, plain_places
from segment_slide.unet.sample import Sample


class ArraySamples:
    """Samples that are drawn when they are requested, as `unet.sample.Samples`.

    Parameters
    ----------
    sources : sequence of AnnotatedPixels
        For example `unet.annotated.ArrayPixels`.
    settings : SampleSettings
        Size of samples, and how they are varied.
    count : int
        Number of samples.

    Raises
    ------
    TrainingDataError
        See `check_sources`.
    """

    def __init__(self, sources: Sequence[AnnotatedPixels], settings: SampleSettings, count: int) -> None:
        check_sources(sources, settings)
        self._sources, self._settings, self._count = sources, settings, count

    def __len__(self) -> int:
        """Number of samples."""
        return self._count

    def __getitem__(self, number: int, /) -> Sample:
        """The sample with a number, drawn again at each call.

        Raises
        ------
        IndexError
            If there is no such sample.
        """
        if not 0 <= number < self._count:
            raise IndexError(f"sample {number} of {self._count}")
        return draw_sample(self._sources, self._settings, number)[0]


class PlainSamples:
    """Tiles that show each annotated pixel of some images once, unchanged: for validation; as `unet.sample.Samples`.

    Parameters
    ----------
    sources, settings
        As for `ArraySamples`, but without random choices and variation.
    """

    def __init__(self, sources: Sequence[AnnotatedPixels], settings: SampleSettings) -> None:
        check_sources(sources, settings)
        self._sources, self._settings = sources, settings
        self._places = list(plain_places(sources, settings.tile_px))

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self._places)

    def __getitem__(self, number: int, /) -> Sample:
        """The tile with a number, in raster order."""
        return cut_plain(self._sources, self._settings, self._places[number])
