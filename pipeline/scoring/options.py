"""Options of the scores."""

from dataclasses import dataclass
from typing import Annotated, Literal

from segment_slide.unet.options import Option

Kind = Literal["classes", "instances"]

IOU_THRESHOLDS = tuple(n / 100 for n in range(50, 100, 5))  # Data Science Bowl 2018


@dataclass(frozen=True)
class EvaluateOptions:
    """How pixels are read as classes or ids.

    Parameters
    ----------
    block_px : int
        Pixels per side of the block that one task reads. It never changes a score.
    ignore : int, optional
        Pixels whose truth has this value are left out. By default 255 for classes (unless `is_binary`) and none for
        instances.
    ignores_nothing : bool
        Every value counts, none is ignored.
    is_binary : bool
        For classes: everything above 0 is class 1, as in masks of 0 and 255.
    truth_class, predicted_class : int, optional
        For instances: if given, this side is a class map, and its objects are the components of this class (pixels
        connected by edges), found plane by plane in memory. None: this side holds ids.
    """

    block_px: Annotated[int, Option("Pixels per side of the block that one task reads.", above=0, name="block")] = 2048
    ignore: Annotated[
        int | None, Option("Value of the truth whose pixels are left out (by default 255 for classes).")
    ] = None
    ignores_nothing: Annotated[
        bool, Option("Leave out no pixels, whatever the truth's value.", name="ignore_nothing")
    ] = False
    is_binary: Annotated[bool, Option("For classes: take all values above 0 as class 1.", name="binary")] = False
    truth_class: int | None = None
    predicted_class: int | None = None

    @property
    def has_components(self) -> bool:
        """Whether a class map is split into objects."""
        return self.truth_class is not None or self.predicted_class is not None

    def ignored(self, kind: Kind) -> int | None:
        """The value of pixels that are left out, or None."""
        from segment_slide.pipeline.scoring.pixel_scores import IGNORE

        if self.ignores_nothing:
            return None
        if self.ignore is None:
            return IGNORE if kind == "classes" and not self.is_binary else None
        return self.ignore
