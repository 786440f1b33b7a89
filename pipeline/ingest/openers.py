"""Functions that open a file by its format; each imports the reader's module itself, so that the table stays light."""

from collections.abc import Callable

from segment_slide.pipeline.readers.reader import Reader, SegmentCache

Open = Callable[[str, SegmentCache, int | None, str | None], Reader]


def open_tiff_file(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    """A TIFF, or a slide that is a TIFF and that OpenSlide has to read."""
    from segment_slide.pipeline.ingest.tiff import TiffReader
    from segment_slide.pipeline.readers.tiff_vendors import OtherReaderError

    try:
        return TiffReader(path, cache, series=series, axes=axes).as_meant(axes)
    except OtherReaderError as error:
        return open_by_openslide(str(error))(path, cache, series, axes)


def open_companion_file(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    """The TIFF files that an OME-XML file beside them describes."""
    from segment_slide.pipeline.ingest.ome_files import first_file_of
    from segment_slide.pipeline.ingest.tiff import TiffReader

    return TiffReader(first_file_of(path), cache, series=series, axes=axes, companion=path).as_meant(axes)


def open_png_file(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    """A PNG."""
    from segment_slide.pipeline.readers.png import open_png

    return open_png(path, cache, series=series, axes=axes)


def open_jpeg_file(path: str, cache: SegmentCache, series: int | None, axes: str | None) -> Reader:
    """A JPEG."""
    from segment_slide.pipeline.readers.jpeg import open_jpeg

    return open_jpeg(path, cache, series=series, axes=axes)


def open_by_openslide(why: str) -> Open:
    """A function that opens a slide by OpenSlide; `why` is the reason, for the error where it is not installed."""

    def open_slide(path: str, _: SegmentCache, series: int | None, axes: str | None) -> Reader:
        from segment_slide.pipeline.readers.openslide import OpenSlideReader

        return OpenSlideReader(path, why, series=series, axes=axes)

    return open_slide
