"""The command that converts files of microscopes to OME-Zarr: ingest."""

from pathlib import Path
from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, with_options
from segment_slide.pipeline.ingest.options import IngestOptions

commands = typer.Typer()


@commands.command()
@with_options
def ingest(
    input: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="TIFF, OME-TIFF, SVS, NDPI, PNG …; a folder or list of pages."),
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="OME-Zarr to make, by convention NAME.ome.zarr.")],
    chosen: Chosen[IngestOptions],
) -> None:
    """Convert a slide, an image or a stack of pages to OME-Zarr with a pyramid.

    Interrupted or killed? Run the same command again: it goes on where it stopped.
    """
    from segment_slide.flows.ingest import ingest_image
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.info import show_ingest

    show_ingest(console, ingest_image(input, output, chosen.make(), RichStages(console)))
