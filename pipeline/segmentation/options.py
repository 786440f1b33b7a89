"""What a user may choose about a segmentation."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

from segment_slide.pipeline.errors import PlanError
from segment_slide.unet.options import Option, option_fields

if TYPE_CHECKING:  # the command line reads the options at each start, and needs no store for that
    from segment_slide.pipeline.storage.label_records import SegmentParameters


@dataclass(frozen=True)
class SegmentOptions:
    """What a user may choose; None means "decide for me", or "as before" when a run is resumed.

    All options but the name are recorded in the output, because they decide its bytes. A run with another value does
    not go on with that output.
    """

    name: Annotated[str, Option("Name of the label image in the output.")] = "segmentation"
    block: Annotated[
        int | None,
        Option("Pixels per side of one task and one output file (by default 2048; 256 in 3D).", above=0),
    ] = None
    tile: Annotated[
        int | None,
        Option("Pixels per side of one pass of the network (by default chosen to fit the memory).", above=0),
    ] = None
    chunk: Annotated[
        int | None,
        Option(
            "Pixels per side of one chunk, which a viewer fetches at once; a divisor of the block (by default 512; 64 "
            "in 3D).",
            above=0,
        ),
    ] = None
    precision: Annotated[
        str | None,
        Option(
            "Precision of the network: auto, float32, or bfloat16 (several times faster where hardware supports it).",
            choices=("auto", "float32", "bfloat16"),
            none="auto",
        ),
    ] = None
    tta: Annotated[
        str,
        Option(
            "Test-time augmentation: none, or flips (average of mirrored versions; better borders, 4 times the work).",
            choices=("none", "flips"),
        ),
    ] = "none"
    probabilities: Annotated[
        str,
        Option("Also store class probabilities: none, uint8 (0-255) or float32.", choices=("none", "uint8", "float32")),
    ] = "none"
    skip_background: Annotated[bool, Option("Skip blocks that show only glass, without tissue.")] = False

    def adopt(self, recorded: "SegmentParameters") -> "SegmentOptions":
        """These options, with those left open (None) filled from the record of a begun run, if it has them."""
        from segment_slide.pipeline.storage.sections import write_section

        open_fields = [item.name for item in fields(self) if getattr(self, item.name) is None]
        said = write_section(recorded)
        return replace(self, **{name: said[name] for name in open_fields if name in said})

    def check(self) -> None:
        """Refuse a value that is not one of an option's choices.

        Raises
        ------
        PlanError
            Naming the choices.
        """
        for field in option_fields(type(self)):
            value = getattr(self, field.name)
            allowed = tuple(choice for choice in field.option.choices if choice != field.option.none)
            if allowed and value is not None and value not in allowed:
                raise PlanError(f"{field.name}={value!r}, expected one of {allowed}.")

    def record(self) -> "SegmentParameters":
        """These options as the output records them: all that decide its bytes; none may be left open (None)."""
        from segment_slide.pipeline.storage.label_records import SegmentParameters
        from segment_slide.pipeline.storage.sections import read_section

        chosen = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "name"}
        return read_section(SegmentParameters, chosen, "options")
