"""Options of the instance segmentation."""

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Literal

from segment_slide.pipeline.errors import PlanError
from segment_slide.pipeline.metadata.numbers import parse_number
from segment_slide.unet.options import Option

Unit = Literal["px", "um2", "um3"]

_SIZE = re.compile(r"\s*([0-9][0-9.,]*(?:e[+-]?[0-9]+)?|[.,][0-9]+)\s*(px|um\^?2|um\^?3)?\s*")
_MOST_PIXELS = 2.0**63
_GREEK_MU = "\u03bc"  # Unicode normalisation turns the micro sign into this letter


@dataclass(frozen=True)
class ObjectSize:
    """A size of objects, in pixels or in um2 (um3 in volumes).

    Examples
    --------
    >>> ObjectSize.parse("50"), ObjectSize.parse("12.5 um2"), ObjectSize.parse("12,5um^2")
    (ObjectSize(value=50.0, unit='px'), ObjectSize(value=12.5, unit='um2'), ObjectSize(value=12.5, unit='um2'))
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
            If the text is none of these.
        """
        plain = unicodedata.normalize("NFKC", text).lower().replace(_GREEK_MU, "u")
        found = _SIZE.fullmatch(plain)
        value = parse_number(found[1]) if found else None
        if not found or value is None:
            raise PlanError(
                f"{name}={text!r}, expected a number of pixels (50), or an area or volume (12.5um2, 80um3)."
            )
        end = (found[2] or "px")[-1]
        unit: Unit = "um2" if end == "2" else "um3" if end == "3" else "px"
        return cls(value, unit)

    def to_pixels(self, pixel_um: float | None, ndim: int, name: str) -> int:
        """Number of pixels of an object of this size, rounded up.

        Parameters
        ----------
        pixel_um : float or None
            Area (um2) or volume (um3) of a pixel; None if it is unknown.
        ndim : int
            Spatial axes: 2 or 3.
        name : str
            Name of the option.

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
        pixels = self.value / pixel_um * (1 - 1e-12)  # a result of 50.000000000000007 pixels counts as 50
        if not pixels < _MOST_PIXELS:
            raise PlanError(f"{name}={self.value:g}{self.unit} are {pixels:g} pixels, expected fewer than 2^63.")
        return math.ceil(pixels)


@dataclass(frozen=True)
class InstanceOptions:
    """Which pixels become an object. None leaves a step out, or lets the model or the plan decide."""

    connectivity: Annotated[
        int,
        Option(
            "Number of axes along which neighbours may differ: 1 (only sides) to 2, or to 3 in volumes (also corners).",
            at_least=1,
            at_most=3,
        ),
    ] = 1
    fill_holes: Annotated[
        ObjectSize | None,
        Option("Fill holes smaller than this, like 50 (px), 12.5um2 or 80um3.", metavar="SIZE", read=ObjectSize.parse),
    ] = None
    min_size: Annotated[
        ObjectSize | None,
        Option(
            "Drop objects smaller than this; of objects that are split, drop smaller pieces.",
            metavar="SIZE",
            read=ObjectSize.parse,
        ),
    ] = None
    split: Annotated[
        float | None,
        Option(
            "Split touching objects by a watershed of the distance transform. A neck is cut if its radius is at least "
            "PX smaller than that of the smaller core. 1 splits most objects, 3 only clear cases.",
            above=0,
            metavar="PX",
        ),
    ] = None
    split_halo: Annotated[
        int | None,
        Option(
            "Context of a block (px) for splitting. Objects smaller than this are split exactly as in the whole image "
            "(by default 128; 32 in 3D).",
            above=0,
        ),
    ] = None
    regrow: Annotated[bool, Option("Give objects back the 1 px ridges that training cuts between them.")] = False
    block: Annotated[
        int | None,
        Option(
            "Pixels per side of one task and one file (by default as in the class map). It does not change the ids.",
            above=0,
        ),
    ] = None
    ignores_model: Annotated[
        bool,
        Option(
            "Use neither the smallest size nor the splitting that the network recommends.",
            name="ignore_model_objects",
        ),
    ] = False
    ndim: Annotated[
        int | None,
        Option(
            "2: each plane has its own objects; 3: objects extend along z (by default as segmented).",
            at_least=2,
            at_most=3,
        ),
    ] = None
