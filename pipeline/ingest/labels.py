"""Masks: files whose values are numbers of classes or objects, and have to be exact."""

from collections.abc import Sequence

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.ingest.formats import open_reader
from segment_slide.pipeline.readers.reader import Reader


def open_labels(files: Sequence[str], axes: str | None = None) -> Reader:
    """Open what `list_files` found as a mask: numbers of classes or objects.

    Of a TIFF or PNG with a palette, the numbers of its colours are read: programs store ids so, to show each in a
    colour.

    Raises
    ------
    InputError
        As for `open_reader`, or if the files are JPEG.
    """
    reader = open_reader(files, axes=axes)
    if axes is None and reader.info.has_numbers:
        reader.close()
        reader = open_reader(files, axes=reader.info.axes.replace("c", ""))
    try:
        reader.info.check_mask(files[0])
    except InputError:
        reader.close()
        raise
    return reader
