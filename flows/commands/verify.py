"""The command that checks what is stored: verify."""

from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, with_options
from segment_slide.flows.integrity.options import VerifyRequest

commands = typer.Typer()

EXIT_UNSOUND = 3


@commands.command()
@with_options
def verify(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="An image, a segmentation, a training set, samples, a model, a training's folder, or a folder of "
            "these, such as the outputs of a night.",
        ),
    ],
    chosen: Chosen[VerifyRequest],
) -> None:
    """Check everything that segment-slide wrote at a path: all files, their checksums, and what must agree.

    Exit code 0: sound. 3: something is wrong; it is named, with the command that makes it again. 2: nothing of
    segment-slide is there.
    """
    from segment_slide.flows.integrity.verify import verify_stored
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.verification import show_verified

    verified = verify_stored(chosen.make(path=path), RichStages(console))
    show_verified(console, verified)
    if not verified.report.is_sound:
        raise typer.Exit(EXIT_UNSOUND)
