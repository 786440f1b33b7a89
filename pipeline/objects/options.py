"""What a user may choose about instances."""

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from segment_slide.pipeline.errors import PlanError

Unit = Literal["px", "um2", "um3"]

_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*(px|um2|um3)?\s*")
_MOST_PIXELS = 2.0**63
_GREEK_MU = "\u03bc"  # what the micro sign is normalised to


@dataclass(frozen=True)
class ObjectSize:
    """A size of objects, in pixels or in um2 (um3 of volumes).

    Examples
    --------
    >>> ObjectSize.parse("50"), ObjectSize.parse("12.5 um2")
    (ObjectSize(value=50.0, unit='px'), ObjectSize(value=12.5, unit='um2'))
    >>> ObjectSize.parse("12.5 um2").to_pixels(0.25, 2, "min_size")
    50
    """

    value: float
    unit: Unit = "px"

    @classmethod
    def parse(cls, text: str, name: str = "size") -> "ObjectSize":
        """Read "50", "50px", "12.5um2" or "80 um3".

        Raises
        ------
        PlanError
            If it is none of these.
        """
        plain = unicodedata.normalize("NFKC", text).lower().replace(_GREEK_MU, "u")
        found = _SIZE.fullmatch(plain)
        if not found or math.isinf(float(found[1])):
            raise PlanError(
                f"{name}={text!r}, expected a number of pixels (50), or an area or volume (12.5um2, 80um3)."
            )
        unit: Unit = "um2" if found[2] == "um2" else "um3" if found[2] == "um3" else "px"
        return cls(float(found[1]), unit)

    def to_pixels(self, pixel_um: float | None, ndim: int, name: str) -> int:
        """Pixels of an object of this size, rounded up.

        Parameters
        ----------
        pixel_um : float or None
            Area (um2) or volume (um3) of a pixel; None if it is unknown.
        ndim : int
            Spatial axes: 2 or 3.
        name : str
            Of the option.

        Raises
        ------
        PlanError
            If the unit does not fit the axes, or the pixel size is unknown.
        """
        if self.unit == "px":
            return ObjectSize(self.value, "um2" if ndim == 2 else "um3").to_pixels(1.0, ndim, name)
        if self.unit != f"um{ndim}":
            raise PlanError(
                f"{name}={self.value:g}{self.unit}, but objects have {ndim} axes: expected um{ndim}, or px."
            )
        if pixel_um is None:
            raise PlanError(
                f"{name}={self.value:g}{self.unit}, but the labels do not say how large a pixel is; give it in px."
            )
        pixels = self.value / pixel_um * (1 - 1e-12)  # 50.000000000000007 pixels are 50
        if not pixels < _MOST_PIXELS:
            raise PlanError(f"{name}={self.value:g}{self.unit} are {pixels:g} pixels, expected fewer than 2^63.")
        return math.ceil(pixels)


@dataclass(frozen=True)
class InstanceOptions:
    """What becomes an object; None leaves a step out, or lets the plan decide.

    Parameters
    ----------
    connectivity : int
        Pixels hang together if they differ by one along at most so many axes: 1 (4 neighbours in 2D, 6 in 3D) to the
        number of axes.
    fill_holes : ObjectSize, optional
        Holes in objects that are smaller are filled.
    min_size : ObjectSize, optional
        Objects that are smaller are dropped; of split objects, pieces.
    split : float, optional
        Split touching objects where the neck between two cores is narrower, by so many pixels of radius, than the
        smaller core.
    split_halo : int, optional
        Context (px) of a block when objects are split: what is smaller is split as in the whole image.
    regrow : bool
        Give the narrow ridges between objects, which training inserts, back to them.
    block : int, optional
        Pixels per spatial axis of one task and one file.
    ndim : int, optional
        2: each plane has its own objects; 3: objects are volumes.
    """

    connectivity: int = 1
    fill_holes: ObjectSize | None = None
    min_size: ObjectSize | None = None
    split: float | None = None
    split_halo: int | None = None
    regrow: bool = False
    block: int | None = None
    ndim: int | None = None
