"""The command that describes what is stored at a path: info."""

from typing import Annotated

import typer

from segment_slide.flows.commands.console import console

commands = typer.Typer()


@commands.command()
def info(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="An image, a segmentation, a table, a checkpoint, training data, a night's outputs."
        ),
    ],
) -> None:
    """Describe what is stored at a path and how much of it is there: images, tables, checkpoints, training data."""
    from segment_slide.flows.show.info import show_info

    show_info(console, path)
