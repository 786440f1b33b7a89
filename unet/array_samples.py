"""Samples of images in memory as `unet.sample.Samples`: drawn when they are asked for, nothing is stored."""

from collections.abc import Sequence

from segment_slide.unet.annotated import AnnotatedPixels
from segment_slide.unet.draw import SampleSettings, check_sources, cut_plain, draw_sample, plain_places
from segment_slide.unet.sample import Sample


class ArraySamples:
    """Samples drawn when they are asked for, as `unet.sample.Samples`.

    Parameters
    ----------
    sources : sequence of AnnotatedPixels
        For example `unet.annotated.ArrayPixels`.
    settings : SampleSettings
        What samples are like.
    count : int
        How many there are.

    Raises
    ------
    TrainingDataError
        See `check_sources`.
    """

    def __init__(self, sources: Sequence[AnnotatedPixels], settings: SampleSettings, count: int) -> None:
        check_sources(sources, settings)
        self._sources, self._settings, self._count = sources, settings, count

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def __getitem__(self, number: int, /) -> Sample:
        """The sample of a number, drawn anew at each call.

        Raises
        ------
        IndexError
            If there is none.
        """
        if not 0 <= number < self._count:
            raise IndexError(f"sample {number} of {self._count}")
        return draw_sample(self._sources, self._settings, number)[0]


class PlainSamples:
    """All annotated pixels of some images, once, as they are: for validation; as `unet.sample.Samples`.

    Parameters
    ----------
    sources, settings
        As for `ArraySamples`; nothing is drawn and nothing varied.
    """

    def __init__(self, sources: Sequence[AnnotatedPixels], settings: SampleSettings) -> None:
        check_sources(sources, settings)
        self._sources, self._settings = sources, settings
        self._places = list(plain_places(sources, settings.tile_px))

    def __len__(self) -> int:
        """How many tiles."""
        return len(self._places)

    def __getitem__(self, number: int, /) -> Sample:
        """The tile of a number, in raster order."""
        return cut_plain(self._sources, self._settings, self._places[number])
