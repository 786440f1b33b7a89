"""The command that describes what is stored at a path: info."""

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
    """Describe what is stored at a path: an image, a segmentation and its progress, a checkpoint, training data."""
    from segment_slide.flows.show.info import show_info

    show_info(console, path)
