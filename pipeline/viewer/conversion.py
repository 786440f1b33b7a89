"""Which data type a browser gets of an array: the stored one, or one that it can show, converted by our server."""

import json
from dataclasses import dataclass

import numpy as np

from segment_slide.pipeline.storage.files import read_file
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.store import join
from segment_slide.pipeline.viewer.layers import ID_TYPES, SHOWN_TYPES, plain_type, unsupported_codecs


@dataclass(frozen=True)
class Shown:
    """How an array is shown.

    Attributes
    ----------
    dtype : str
        Data type that the browser gets; "" if it cannot be shown.
    is_converted : bool
        Whether the server converts it, because of its data type, its codecs or the names of its chunks.
    note : str
        What is lost, or why it cannot be shown; "" if nothing is lost.
    """

    dtype: str
    is_converted: bool = False
    note: str = ""


def choose_type(what: str, image: StoredImage, *, are_ids: bool) -> Shown:
    """Decide how an array is shown, from its metadata.

    Ids keep their value: int64 becomes uint64, bool becomes uint8. Intensities of 64 bits become float32, as do those
    of 16 bits that are real numbers.

    Parameters
    ----------
    what : str
        Its name in notes.
    image : StoredImage
        The array.
    are_ids : bool
        Whether its values are ids or classes, and not intensities.
    """
    stored = plain_type(image.dtype)
    wanted = convert_type(stored, are_ids=are_ids)
    if wanted is None:
        return Shown("", note=f"{what} is left out: labels have dtype {stored}, expected integers or bool.")
    note = ""
    if stored != wanted and np.dtype(stored).itemsize == 8 and not are_ids:
        note = f"{what} has dtype {stored} and is shown as float32: values have about 7 digits."
    return Shown(wanted, stored != wanted or not _is_readable(image), note)


def _is_readable(image: StoredImage) -> bool:
    """Whether the viewer knows the codecs of an array, and finds its chunks by what the metadata say."""
    metadata = dict(image.array().metadata.to_dict())
    if unsupported_codecs(metadata):
        return False
    if image.zarr_format == 3 or metadata.get("dimension_separator") != "/":
        return True
    return "dimension_separator" in json.loads(read_file(join(image.location, image.array_path, ".zarray")))


def convert_type(dtype: str, *, are_ids: bool) -> str | None:
    """Data type that the viewer gets for a stored one; None if it can show nothing of it.

    >>> [convert_type(name, are_ids=True) for name in ("uint16", "int64", "bool", "float32")]
    ['uint16', 'uint64', 'uint8', None]
    >>> [convert_type(name, are_ids=False) for name in ("uint16", "int64", "float64", "float16")]
    ['uint16', 'float32', 'float32', 'float32']
    """
    if dtype in (ID_TYPES if are_ids else SHOWN_TYPES):
        return dtype
    kind = np.dtype(dtype).kind
    if kind == "b":
        return "uint8"
    if are_ids:
        return "uint64" if kind == "i" else None
    return "float32"
