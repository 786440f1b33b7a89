"""Meaning of the values of a label image (objects, classes or a mask), and the objects in a class map."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from segment_slide.pipeline.errors import InputError
from segment_slide.unet.sample import IGNORE

Kind = Literal["instances", "classes", "binary"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_PLANE_PX = 1 << 28  # values, mask and components of one plane are in memory together: about 10 GiB
_CLASS_BITS = 8  # a coded object holds its class in these low bits, its number above them


@dataclass(frozen=True)
class LabelRule:
    """How label values are to be read.

    Parameters
    ----------
    kind : {"instances", "classes", "binary"}
        "instances": 0 is background, every other value is an object of class 1. "classes": values are classes, 0 is
        background. "binary": every value except 0 is class 1.
    ignore : int, optional
        Value of pixels that nobody annotated.
    needs_objects : bool
        Whether to split a class map or a mask into its connected components. Ridges and the border term need objects.

    Raises
    ------
    InputError
        If there is no such kind, or if `ignore` is 0, the background.

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
        """Whether only objects of the same class get ridges: a nucleus in its cytoplasm needs no gap around it."""
        return self.kind == "classes"

    def check_dtype(self, dtype: str, name: str) -> None:
        """Refuse labels that cannot hold ids if ids are expected.

        Parameters
        ----------
        dtype : str
            Original dtype of the labels.
        name : str
            Name of the labels.

        Raises
        ------
        InputError
            The message names the kind to choose.
        """
        if self.kind == "instances" and dtype == "bool":
            raise InputError(
                f"labels {name} have dtype=bool: they are a mask, and kind 'instances' would read all true pixels as "
                f"one object. Choose kind 'binary': each connected component is an object."
            )

    def decode(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Objects and classes of a box.

        Parameters
        ----------
        values : ndarray of integer or bool
            Values of the annotation; values of stored objects if `is_coded`.

        Returns
        -------
        ids : ndarray of integer
            0 is background, other values are objects. Class maps that are not split have one object per class.
        classes : ndarray of uint8
            255 where nothing is annotated.

        Raises
        ------
        InputError
            If a value is negative and not the ignored one, or is no class.
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
    """Check the name of a kind of annotation.

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
    """Refuse planes that are too large to be split into components in memory.

    Parameters
    ----------
    shape : tuple of int
        Size on spatial axes (px).
    name : str
        Name of the image.

    Raises
    ------
    InputError
        The message says what to do.
    """
    if math.prod(shape) > MAX_PLANE_PX:
        raise InputError(
            f"{name}: shape={shape} has {math.prod(shape)} pixels, and objects of class maps and masks are found in "
            f"memory, in up to {MAX_PLANE_PX}. Annotate with one id per object (kind 'instances'), or leave both "
            f"the border term (w0=0) and ridges (ridge=0) out."
        )


def code_objects(classes: np.ndarray) -> np.ndarray:
    """Connected components of each class, coded with their class, for `LabelRule.decode`.

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
    found = 0  # number of objects in earlier classes
    for value in np.unique(classes):
        if value in (0, IGNORE):
            continue
        components, count = label(classes == value)
        numbers = components.astype(np.uint64)  # from here on in place, because planes are large
        numbers += np.uint64(found)
        numbers <<= np.uint64(_CLASS_BITS)
        numbers |= np.uint64(value)
        np.copyto(coded, numbers, where=components > 0)
        found += count
    return coded
