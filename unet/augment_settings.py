"""Settings for the variation of training samples: plain numbers; this file imports nothing compiled."""

import math
from dataclasses import dataclass
from typing import Annotated

from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.options import Option

ROTATIONS = ("any", "quarter", "none")


@dataclass(frozen=True)
class AugmentSettings:
    """How strongly samples are varied; "none" and 0 switch a variation off.

    Parameters
    ----------
    elastic_std_px : float
        Standard deviation (px, per axis) of the displacement at a control point; 10 in Sec. 3.1.
    elastic_grid : int
        Control points per axis; 3 in Sec. 3.1.
    anisotropy : float
        Height of a voxel divided by its width: displacements along z are divided by it. 3D only.
    rotation : {"any", "quarter", "none"}
        In the plane (y, x): by any angle, or by multiples of 90 degrees.
    flip : bool
        Mirror along each axis with probability 1/2.
    grey : float
        Strength of the grey-value curve (`GreyCurve`), 0 to below 1; the paper does not give its own.

    Raises
    ------
    TrainingDataError
        If a value is out of range.

    Notes
    -----
    Without elastic deformation and without rotation by any angle, nothing is interpolated: samples hold the image's own
    pixels in another order.
    """

    elastic_std_px: Annotated[
        float,
        Option(
            "Elastic deformation: standard deviation of displacements at control points (px); 0 for none.",
            at_least=0,
            name="elastic_std",
        ),
    ] = 10.0
    elastic_grid: Annotated[int, Option("Elastic deformation: number of control points per axis.", at_least=2)] = 3
    anisotropy: float = 1.0
    rotation: Annotated[
        str, Option("Rotation of samples: any (angle), quarter (turns) or none.", choices=ROTATIONS)
    ] = "any"
    flip: Annotated[bool, Option("Mirror samples at random.")] = True
    grey: Annotated[float, Option("Strength of the grey-value curve, 0 to below 1.", at_least=0, below=1)] = 0.1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.elastic_std_px) and self.elastic_std_px >= 0 and 2 <= self.elastic_grid <= 64):
            raise TrainingDataError(
                f"elastic_std_px={self.elastic_std_px} px, elastic_grid={self.elastic_grid}: expected at least 0, and "
                f"2 to 64 control points per axis; the paper has 10 px and 3."
            )
        if self.rotation not in ROTATIONS:
            raise TrainingDataError(f"rotation={self.rotation!r}, expected one of {ROTATIONS}.")
        if not (math.isfinite(self.anisotropy) and self.anisotropy > 0 and 0 <= self.grey < 1):
            raise TrainingDataError(
                f"anisotropy={self.anisotropy}, grey={self.grey}: expected above 0, and 0 to below 1; a grey-value "
                f"curve of strength 1 would not rise everywhere."
            )

    @property
    def interpolates(self) -> bool:
        """Whether samples need intensities between the image's pixels."""
        return self.elastic_std_px > 0 or self.rotation == "any"

    def stds_px(self, ndim: int) -> tuple[float, ...]:
        """Standard deviation (px) of displacements along each axis.

        >>> AugmentSettings(anisotropy=4).stds_px(3)
        (2.5, 10.0, 10.0)
        """
        return (float(self.elastic_std_px / self.anisotropy),) * (ndim - 2) + (float(self.elastic_std_px),) * 2

    def spacing_px(self, size_px: int) -> float:
        """Distance (px) of control points along an axis; below about 5 standard deviations, deformations may fold.

        >>> AugmentSettings().spacing_px(444)
        221.5
        """
        return (size_px - 1) / (self.elastic_grid - 1)
