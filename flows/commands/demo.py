"""The command that shows all steps on a synthetic slide: demo."""

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()


@commands.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the demo's files.")] = Path("demo-output"),
) -> None:
    """Draw a synthetic slide, train a small network on a few patches, segment the slide, and score it."""
    from segment_slide.flows.demo.run import run_demo

    run_demo(output)
