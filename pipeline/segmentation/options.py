"""What a user may choose about a segmentation."""

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class SegmentOptions:
    """What a user may choose; None means "decide for me", or "as before" when a run is resumed.

    Parameters
    ----------
    name : str
        Name of the label image in the output.
    block, tile, chunk : int, optional
        Sizes (px) on every spatial axis: one task and one file, one forward pass, one fetch of a viewer.
    precision : str, optional
        "float32" or "bfloat16".
    tta : str
        "none" or "flips".
    probabilities : str
        "none", "uint8" or "float32": store class probabilities too.
    skip_background : bool
        Segment only blocks that a low-resolution tissue mask touches.
    """

    name: str = "segmentation"
    block: int | None = None
    tile: int | None = None
    chunk: int | None = None
    precision: str | None = None
    tta: str = "none"
    probabilities: str = "none"
    skip_background: bool = False

    def adopt(self, recorded: dict[str, Any]) -> "SegmentOptions":
        """These options with what was left open taken from a begun run's record."""
        open_fields = [item.name for item in fields(self) if getattr(self, item.name) is None]
        return replace(self, **{name: recorded[name] for name in open_fields if name in recorded})
