"""What the values of a label image mean: objects, classes, or a mask; and the objects that a class map implies."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.unet.sample import IGNORE

Kind = Literal["instances", "classes", "binary"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_PLANE_PX = 1 << 28  # one plane's values, mask and components are in memory at once: about 10 GiB
_CLASS_BITS = 8  # of a coded object: its class below, its number above


@dataclass(frozen=True)
class LabelRule:
    """How label values are to be read.

    Parameters
    ----------
    kind : {"instances", "classes", "binary"}
        "instances": 0 is background, every other value an object; class 1. "classes": values are classes, 0 is
        background. "binary": whatever is not 0 is class 1.
    ignore : int, optional
        Value of pixels that nobody annotated.
    needs_objects : bool
        Whether a class map or a mask is to be split into its connected components: ridges and the border term need
        objects.

    Raises
    ------
    InputError
        If there is no such kind, or background (0) is to be ignored.

    Examples
    --------
    >>> LabelRule("binary", ignore=0)
    Traceback (most recent call last):
    segment_slide.pipeline.errors.InputError: ignore=0, expected another value: 0 is background, ...
    """

    kind: Kind = "instances"
    ignore: int | None = None
    needs_objects: bool = True

    def __post_init__(self) -> None:
        as_kind(self.kind)
        if self.ignore == 0:
            raise InputError(
                "ignore=0, expected another value: 0 is background, and without background there is nothing to tell "
                "objects from. Give the pixels that nobody annotated a value of their own, for example 255."
            )

    @property
    def is_coded(self) -> bool:
        """Whether blocks are read from stored objects (`code_objects`) and not from the annotation itself."""
        return self.kind != "instances" and self.needs_objects

    @property
    def cuts_within_classes(self) -> bool:
        """Whether ridges lie between objects of one class only: a nucleus in its cytoplasm needs no gap around it."""
        return self.kind == "classes"

    def check_dtype(self, dtype: str, name: str) -> None:
        """Refuse labels that can hold no ids where ids are expected.

        Parameters
        ----------
        dtype : str
            Of the labels, as they were made.
        name : str
            Of the labels.

        Raises
        ------
        InputError
            With the kind to choose.
        """
        if self.kind == "instances" and dtype == "bool":
            raise InputError(
                f"labels {name} have dtype=bool: a mask, in which kind 'instances' would take all that is true for one "
                f"object. The kind is 'binary': objects are what hangs together."
            )

    def decode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Objects and classes of a box.

        Parameters
        ----------
        values : ndarray of integer or bool
            Of the annotation, or of stored objects where `is_coded`.

        Returns
        -------
        ids : ndarray of integer
            0 is background, other values are objects. Class maps that are not split have one object per class.
        classes : ndarray of uint8
            255 where nothing is annotated.

        Raises
        ------
        InputError
            If a value is negative and not the ignored one, or no class.
        """
        if self.is_coded:
            return values >> _CLASS_BITS, (values & IGNORE).astype(np.uint8)
        classes = self.classes(values)
        ids = values if self.kind == "instances" else classes
        return np.where(classes == IGNORE, ids.dtype.type(0), ids), classes

    def classes(self, values: np.ndarray) -> np.ndarray:
        """Class of each pixel of an annotation, uint8; 255 where nothing is annotated.

        Examples
        --------
        >>> LabelRule("instances", ignore=-1).classes(np.array([0, 7, -1]))
        array([  0,   1, 255], dtype=uint8)
        """
        ignored = np.zeros(values.shape, np.bool_) if self.ignore is None else values == self.ignore
        self._check(values[~ignored] if ignored.any() else values)
        classes = values.astype(np.uint8) if self.kind == "classes" else (values != 0).astype(np.uint8)
        return np.where(ignored, np.uint8(IGNORE), classes)

    def _check(self, values: np.ndarray) -> None:
        if values.size == 0:
            return
        lowest, highest = int(values.min()), int(values.max())
        if lowest < 0:
            raise InputError(
                f"the labels hold the value {lowest}; ids and classes are 0 or more. If it marks pixels that nobody "
                f"annotated, name it as the value to ignore."
            )
        if self.kind == "classes" and highest >= IGNORE:
            raise InputError(
                f"the labels hold the value {highest}, classes are 0 to {IGNORE - 1}. If it marks pixels that nobody "
                f"annotated, name it as the value to ignore; if values are objects, the kind is 'instances'; if they "
                f"are a mask (0 and {highest}), 'binary'."
            )


def as_kind(word: str) -> Kind:
    """A word for a kind of annotation.

    Raises
    ------
    InputError
        If there is no such kind.
    """
    for kind in KINDS:
        if word == kind:
            return kind
    raise InputError(f"kind={word!r} of annotation, expected one of: {', '.join(KINDS)}.")


def check_plane(shape: tuple[int, ...], name: str) -> None:
    """Refuse planes that cannot be split into components in memory.

    Parameters
    ----------
    shape : tuple of int
        Spatial axes (px).
    name : str
        Of the image.

    Raises
    ------
    InputError
        With what to do.
    """
    if math.prod(shape) > MAX_PLANE_PX:
        raise InputError(
            f"{name}: shape={shape} has {math.prod(shape)} pixels, and objects of class maps and masks are found in "
            f"memory, in up to {MAX_PLANE_PX}. Annotate with one id per object (kind 'instances'), or leave both "
            f"the border term (w0=0) and ridges (ridge=0) out."
        )


def code_objects(classes: np.ndarray) -> np.ndarray:
    """Connected components of each class, with their class: what `LabelRule.decode` reads.

    Parameters
    ----------
    classes : ndarray of uint8
        A whole plane or volume; 0 is background, 255 ignored.

    Returns
    -------
    ndarray of uint64
        Number of the component (4-connected, 6-connected in volumes) times 256, plus its class.

    Examples
    --------
    >>> code_objects(np.array([[1, 1, 0, 1, 2, 255]], np.uint8)).tolist()
    [[257, 257, 0, 513, 770, 255]]
    """
    from scipy.ndimage import label

    coded = classes.astype(np.uint64)
    found = 0  # objects of earlier classes
    for value in np.unique(classes):
        if value in (0, IGNORE):
            continue
        components, count = label(classes == value)
        numbers = components.astype(np.uint64)  # and on in place: planes are large
        numbers += np.uint64(found)
        numbers <<= np.uint64(_CLASS_BITS)
        numbers |= np.uint64(value)
        np.copyto(coded, numbers, where=components > 0)
        found += count
    return coded
