"""What a user may choose about instances."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import PlanError

_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*(px|um2|um3|µm2|µm3|µm²|µm³|um²|um³)?\s*", re.IGNORECASE)


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
    unit: Literal["px", "um2", "um3"] = "px"

    @classmethod
    def parse(cls, text: str, name: str = "size") -> "ObjectSize":
        """Read "50", "50px", "12.5um2" or "80 um3".

        Raises
        ------
        PlanError
            If it is none of these.
        """
        found = _SIZE.fullmatch(text)
        if not found or math.isinf(float(found[1])):
            raise PlanError(
                f"{name}={text!r}, expected a number of pixels (50), or an area or volume (12.5um2, 80um3)."
            )
        unit = (found[2] or "px").lower().replace("µ", "u").replace("²", "2").replace("³", "3")
        return cls(float(found[1]), "um2" if unit == "um2" else "um3" if unit == "um3" else "px")

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
            return math.ceil(self.value)
        if self.unit != f"um{ndim}":
            raise PlanError(
                f"{name}={self.value:g}{self.unit}, but objects have {ndim} axes: expected um{ndim}, or px."
            )
        if pixel_um is None:
            raise PlanError(
                f"{name}={self.value:g}{self.unit}, but the labels do not say how large a pixel is; give it in px."
            )
        return math.ceil(self.value / pixel_um * (1 - 1e-12))  # 50.000000000000007 pixels are 50


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
