"""The command that says what lies at a path: info."""

from typing import Annotated

import typer

from segment_slide.flows.commands.console import console

commands = typer.Typer()


@commands.command()
def info(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="An image, a segmentation, a checkpoint, a training set or samples.")
    ],
) -> None:
    """Say what lies at a path: an image, a segmentation and how far it is, a checkpoint, training data."""
    from segment_slide.flows.show.info import show_info

    show_info(console, path)
