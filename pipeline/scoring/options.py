"""Options of the scores."""

from dataclasses import dataclass
from typing import Annotated, Literal

from segment_slide.unet.options import Option

Kind = Literal["classes", "instances"]

IOU_THRESHOLDS = tuple(n / 100 for n in range(50, 100, 5))  # Data Science Bowl 2018


@dataclass(frozen=True)
class EvaluateOptions:
    """How files of two folders are paired, and how pixels are read as classes or ids.

    Parameters
    ----------
    block_px : int
        Pixels per side of the block that one task reads. It never changes a score.
    ignore : int, optional
        Pixels whose truth has this value are left out. By default none for instances. For classes, the values of the
        whole image decide (`pipeline.scoring.class_values.resolve`): 255, unless the truth holds only 0 and 255.
    ignores_nothing : bool
        Every value counts, none is ignored.
    is_binary : bool
        For classes: everything above 0 is class 1, as in masks of 0 and 255.
    truth_class, predicted_class : int, optional
        For instances: if given, this side is a class map, and its objects are the components of this class (pixels
        connected by edges), found plane by plane in memory. None: this side holds ids.
    label_suffix : str, optional
        For two folders: how names of the truth's files end beyond the prediction's.
    """

    block_px: Annotated[int, Option("Pixels per side of the block that one task reads.", above=0, name="block")] = 2048
    ignore: Annotated[
        int | None,
        Option(
            "Value of the truth whose pixels are left out (by default 255 for classes, unless the truth holds only 0 "
            "and 255)."
        ),
    ] = None
    ignores_nothing: Annotated[
        bool, Option("Leave out no pixels, whatever the truth's value.", name="ignore_nothing")
    ] = False
    is_binary: Annotated[bool, Option("For classes: take all values above 0 as class 1.", name="binary")] = False
    truth_class: int | None = None
    predicted_class: int | None = None
    label_suffix: Annotated[
        str | None,
        Option("For folders: how names of the truth end beyond the prediction's, if names alone do not pair them."),
    ] = None

    @property
    def has_components(self) -> bool:
        """Whether a class map is split into objects."""
        return self.truth_class is not None or self.predicted_class is not None

    @property
    def reads_by_values(self) -> bool:
        """For classes: whether nothing is said of values, so that those of the whole image decide."""
        return self.ignore is None and not self.ignores_nothing and not self.is_binary

    @property
    def ignored(self) -> int | None:
        """The value of pixels that are left out, or None."""
        return None if self.ignores_nothing else self.ignore
