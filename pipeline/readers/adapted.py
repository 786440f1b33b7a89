"""Readers around a reader, which turn what is stored into what is meant: upright, large where bright, in colour.

Each maps a box to the box of the reader inside it, so any box costs what it cost before. Their results are exact.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from segment_slide.pipeline.readers.reader import ImageInfo, Reader
from segment_slide.pipeline.storage.ome import AXIS_ORDER
from segment_slide.unet.boxes import Box

# EXIF and TIFF `Orientation`: (y and x are exchanged, rows run upwards, columns run to the left), after the exchange
_TURNS = {
    2: (False, False, True, "mirrored from left to right"),
    3: (False, True, True, "turned by 180 degrees"),
    4: (False, True, False, "mirrored from top to bottom"),
    5: (True, False, False, "mirrored along the diagonal from top left"),
    6: (True, False, True, "turned by 90 degrees clockwise"),
    7: (True, True, True, "mirrored along the diagonal from top right"),
    8: (True, True, False, "turned by 90 degrees counter-clockwise"),
}


def turn_upright(reader: Reader, orientation: int) -> Reader:
    """The image as it is meant to be seen, by the tag `Orientation` of TIFF and EXIF (1: as it is stored)."""
    if orientation == 1:
        return reader
    if orientation not in _TURNS:
        return add_note(reader, f"Orientation {orientation} is none of 1 to 8: rows and columns are kept as stored")
    return TurnedReader(reader, orientation)


class TurnedReader:
    """Rows and columns as the tag `Orientation` says that they are to be seen.

    Parameters
    ----------
    reader : Reader
        The image as it is stored; y and x are its last axes.
    orientation : int
        2 to 8.
    """

    def __init__(self, reader: Reader, orientation: int) -> None:
        self._reader = reader
        self._is_exchanged, self._is_upwards, self._is_leftwards, how = _TURNS[orientation]
        info = reader.info
        self.info = replace(
            info,
            shape=self._exchange(info.shape),
            pixel_size=self._exchange(info.pixel_size),
            segment=self._exchange(info.segment),
            notes=(*info.notes, f"Orientation {orientation} is applied: the image is {how}, as viewers show it"),
            decoding=_add(info.decoding, f"orientation {orientation}"),
        )

    def _exchange(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*values[:-2], values[-1], values[-2]) if self._is_exchanged else values

    def read(self, box: Box) -> np.ndarray:
        """See `pipeline.readers.reader.Reader`."""
        *lead, rows, columns = box
        height, width = self.info.shape[-2:]
        rows = _mirror(rows, height) if self._is_upwards else rows
        columns = _mirror(columns, width) if self._is_leftwards else columns
        values = self._reader.read(self._exchange((*lead, rows, columns)))
        values = values.swapaxes(-1, -2) if self._is_exchanged else values
        return values[..., :: -1 if self._is_upwards else 1, :: -1 if self._is_leftwards else 1]

    def close(self) -> None:
        """Close the reader inside."""
        self._reader.close()


def _mirror(part: slice, size: int) -> slice:
    """The same pixels, counted from the other end.

    >>> _mirror(slice(0, 3), 10)
    slice(7, 10, None)
    """
    return slice(size - part.stop, size - part.start)


class InvertedReader:
    """Values of a file in which zero is white, turned so that large is bright.

    Parameters
    ----------
    reader : Reader
        The image as it is stored, of unsigned integers or bool.
    largest : int
        The value that is black, 2^bits - 1.
    """

    def __init__(self, reader: Reader, largest: int) -> None:
        self._reader, self._largest = reader, largest
        note = f"the file counts from white (MinIsWhite): values are inverted, {largest} minus what is stored"
        self.info = replace(
            reader.info,
            notes=(*reader.info.notes, note),
            decoding=_add(reader.info.decoding, "inverted"),
        )

    def read(self, box: Box) -> np.ndarray:
        """See `pipeline.readers.reader.Reader`."""
        values = self._reader.read(box)
        return ~values if values.dtype == bool else values.dtype.type(self._largest) - values

    def close(self) -> None:
        """Close the reader inside."""
        self._reader.close()


class PaletteReader:
    """Colours of a file that stores numbers of colours.

    Parameters
    ----------
    reader : Reader
        The numbers, without a c axis.
    colours : ndarray
        (number of the colour, 3), uint8.
    """

    def __init__(self, reader: Reader, colours: np.ndarray) -> None:
        self._reader, self._colours = reader, colours
        info = reader.info
        axes = "".join(sorted(f"c{info.axes}", key=AXIS_ORDER.index))
        self._at = axes.index("c")
        self.info = self._describe(info, axes)

    def _describe(self, info: ImageInfo, axes: str) -> ImageInfo:
        at = self._at
        note = f"the palette's colours are read; `axes={info.axes}` keeps its numbers"
        return replace(
            info,
            axes=axes,
            shape=(*info.shape[:at], 3, *info.shape[at:]),
            dtype="uint8",
            pixel_size=(*info.pixel_size[:at], None, *info.pixel_size[at:]),
            channel_names=("R", "G", "B"),
            is_rgb=True,
            segment_bytes=3 * info.segment_bytes,  # the numbers, and the colours that are made of them
            notes=(*info.notes, note),
            decoding=_add(info.decoding, "palette"),
            has_numbers=are_labels(self._colours),
        )

    def read(self, box: Box) -> np.ndarray:
        """See `pipeline.readers.reader.Reader`."""
        numbers = self._reader.read((*box[: self._at], *box[self._at + 1 :]))
        numbers = numbers.astype(np.uint8, copy=False)  # bool would choose among pixels
        return np.moveaxis(self._colours[:, box[self._at]][numbers], -1, self._at)

    def close(self) -> None:
        """Close the reader inside."""
        self._reader.close()


def are_labels(colours: np.ndarray) -> bool:
    """Whether a palette gives numbers of classes or objects their colours, so that a mask is read as its numbers.

    A palette of greys that does not begin with black is that of a picture: white may have the number 0 in it.

    Parameters
    ----------
    colours : ndarray, (number, 3)
        The colour of each number.

    Examples
    --------
    >>> are_labels(np.array([[0, 0, 0], [255, 0, 0]])), are_labels(np.array([[255, 255, 255], [0, 0, 0]]))
    (True, False)
    """
    is_grey = bool((colours == colours[:, :1]).all())
    return not is_grey or not colours[:1].any()


def add_note(reader: Reader, note: str) -> Reader:
    """The same reader, with one note more."""
    reader.info = replace(reader.info, notes=(*reader.info.notes, note))
    return reader


def _add(decoding: str, step: str) -> str:
    return f"{decoding}, {step}" if decoding else step
