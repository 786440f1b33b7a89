"""What a user may choose about a segmentation."""

from dataclasses import dataclass, fields, replace
from typing import Annotated

from segment_slide.pipeline.errors import PlanError
from segment_slide.pipeline.storage.label_records import SegmentParameters
from segment_slide.pipeline.storage.sections import read_section, write_section
from segment_slide.unet.options import Option, option_fields


@dataclass(frozen=True)
class SegmentOptions:
    """What a user may choose; None means "decide for me", or "as before" when a run is resumed.

    All but the name is recorded in the output: it decides the output's bytes, and a run with another value does not go
    on with it.
    """

    name: Annotated[str, Option("Name of the label image in the output.")] = "segmentation"
    block: Annotated[
        int | None,
        Option("Pixels per side of one task and one output file (by default 2048; 256 in 3D).", above=0),
    ] = None
    tile: Annotated[
        int | None,
        Option("Pixels per side of one pass of the network (by default what memory suits).", above=0),
    ] = None
    chunk: Annotated[
        int | None,
        Option(
            "Pixels per side of what a viewer fetches at once, a divisor of the block (by default 512; 64 in 3D).",
            above=0,
        ),
    ] = None
    precision: Annotated[
        str | None,
        Option(
            "auto, float32, or bfloat16 (several times faster where hardware has it).",
            choices=("auto", "float32", "bfloat16"),
            none="auto",
        ),
    ] = None
    tta: Annotated[
        str,
        Option(
            "none, or flips: average over mirrored versions; better borders, 4 times the work.",
            choices=("none", "flips"),
        ),
    ] = "none"
    probabilities: Annotated[
        str,
        Option("Store class probabilities too: none, uint8 (0-255) or float32.", choices=("none", "uint8", "float32")),
    ] = "none"
    skip_background: Annotated[bool, Option("Leave out blocks that hold only glass.")] = False

    def adopt(self, recorded: SegmentParameters) -> "SegmentOptions":
        """These options with what was left open taken from a begun run's record, as far as that says it."""
        open_fields = [item.name for item in fields(self) if getattr(self, item.name) is None]
        said = write_section(recorded)
        return replace(self, **{name: said[name] for name in open_fields if name in said})

    def check(self) -> None:
        """Refuse a word that is none of an option's choices.

        Raises
        ------
        PlanError
            With those there are.
        """
        for field in option_fields(type(self)):
            value = getattr(self, field.name)
            allowed = tuple(choice for choice in field.option.choices if choice != field.option.none)
            if allowed and value is not None and value not in allowed:
                raise PlanError(f"{field.name}={value!r}, expected one of {allowed}.")

    def record(self) -> SegmentParameters:
        """What an output says of them: all that decides its bytes, once nothing is left open."""
        chosen = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "name"}
        return read_section(SegmentParameters, chosen, "options")
