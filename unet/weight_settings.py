"""The constants of a weight map, and its reach around a pixel: plain arithmetic; this file imports nothing compiled."""

import math
from dataclasses import dataclass
from typing import Annotated

from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.options import Option, read_numbers

# Half a unit in the last place of a float32 in [0.25, 0.5). With two classes no w_c is below 0.5, so contributions from
# beyond the reach would be rounded away.
_NEGLIGIBLE = 2.0**-26
_MAX_RIDGE_PX = 15  # each object pixel looks at about (ridge + 1)^2 others, in volumes (ridge + 1)^3


@dataclass(frozen=True)
class WeightSettings:
    """The constants of Eq. 2, and how touching objects are separated.

    Parameters
    ----------
    w0 : float
        Weight added in a gap of width 0; 0 leaves the second term out.
    sigma_px : float
        How fast the weight falls with the width of the gap; in pixels of the last axis.
    ridge_px : int
        Width of the background cut between touching objects, see `cut_ridges`; 1 is the authors' rule, 0 cuts nothing.
    balance : bool
        Weight classes by their inverse frequency (w_c); otherwise w_c is 1.
    spacing : tuple of float
        Distance of neighbouring pixels per spatial axis, in pixels of the last axis: (5, 1, 1) for planes that are five
        times as far apart. If empty, 1 on each axis.

    Raises
    ------
    TrainingDataError
        If a value is out of range.

    Examples
    --------
    >>> WeightSettings().reach_px
    32
    """

    w0: Annotated[float, Option("w0 of Eq. 2: extra weight of a gap of width 0 between two objects.", at_least=0)] = (
        10.0
    )
    sigma_px: Annotated[
        float,
        Option("sigma of Eq. 2: how slowly the extra weight falls with the gap's width (px).", above=0, name="sigma"),
    ] = 5.0
    ridge_px: Annotated[
        int, Option("Width (px) of the background that is cut between touching objects.", at_least=0, name="ridge")
    ] = 1
    balance: Annotated[bool, Option("Weigh classes by their inverse frequency.")] = True
    spacing: Annotated[
        tuple[float, ...],
        Option("Distance between pixels for each axis, like 5,1,1 for planes 5 times as far apart.", read=read_numbers),
    ] = ()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.w0) and self.w0 >= 0 and math.isfinite(self.sigma_px) and self.sigma_px > 0):
            raise TrainingDataError(
                f"w0={self.w0}, sigma_px={self.sigma_px}: expected w0 of at least 0 and sigma above 0; the paper has "
                f"10 and 5 px."
            )
        if not 0 <= self.ridge_px <= _MAX_RIDGE_PX:
            raise TrainingDataError(f"ridge_px={self.ridge_px}, expected 0 to {_MAX_RIDGE_PX} px.")
        if not all(math.isfinite(step) and step > 0 for step in self.spacing):
            raise TrainingDataError(f"spacing={self.spacing}, expected distances above 0, one per spatial axis.")

    @property
    def reach_px(self) -> int:
        """Distance (pixels of the last axis) beyond which a second object adds less than float32 can represent."""
        if self.w0 <= _NEGLIGIBLE:
            return 0
        return math.ceil(self.sigma_px * math.sqrt(2 * math.log(self.w0 / _NEGLIGIBLE)))

    def steps(self, ndim: int) -> tuple[float, ...]:
        """Spacing on each of `ndim` axes.

        Raises
        ------
        TrainingDataError
            If `spacing` has another number of values.
        """
        if self.spacing and len(self.spacing) != ndim:
            raise TrainingDataError(f"spacing={self.spacing}, expected {ndim} distances, one per spatial axis.")
        return self.spacing or (1.0,) * ndim


def ridge_halo(settings: WeightSettings) -> int:
    """Pixels per side that `cut_ridges` reads.

    >>> [ridge_halo(WeightSettings(ridge_px=width)) for width in range(5)]
    [0, 1, 1, 2, 2]
    """
    return -(-settings.ridge_px // 2)


def halo(settings: WeightSettings, ndim: int) -> tuple[int, ...]:
    """Pixels per side and axis that a block reads beyond what it writes: the reach, and the pixels for cutting ridges.

    >>> halo(WeightSettings(), 2), halo(WeightSettings(spacing=(4, 1, 1)), 3)
    ((33, 33), (9, 33, 33))
    """
    return tuple(math.ceil(settings.reach_px / step) + ridge_halo(settings) for step in settings.steps(ndim))
