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
        typer.Argument(
            metavar="INPUT...", help="File (TIFF, OME-TIFF, SVS, NDPI, PNG …), or a folder or list of pages."
        ),
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="OME-Zarr to write, by convention NAME.ome.zarr.")],
    chosen: Chosen[IngestOptions],
) -> None:
    """Convert a slide, an image or a stack of pages to OME-Zarr with a pyramid.

    If it is interrupted, run the same command again. It resumes where it stopped.
    """
    from segment_slide.flows.ingest import ingest_image
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.info import show_ingest

    show_ingest(console, ingest_image(input, output, chosen.make(), RichStages(console)))
