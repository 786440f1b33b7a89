"""The command that writes a report about a segmentation: report."""

from typing import Annotated

import typer
from rich.markup import escape

from segment_slide.flows.commands.console import console

commands = typer.Typer()


@commands.command()
def report(
    location: Annotated[str, typer.Argument(metavar="OUT.ome.zarr", help="Output of a segmentation, finished or not.")],
    name: Annotated[
        str | None, typer.Option(help="Label image of the output (by default the one that the output shows).")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html",
            help="File to write (by default OUT.report.html beside the output; OUT.NAME.report.html for other label "
            "images, and for label images in the image's own store).",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Image to show below the labels (by default the one that was segmented).")
    ] = None,
) -> None:
    """Write one HTML file about a segmentation: pictures, counts, histograms, times, and provenance."""
    from segment_slide.pipeline.blocks.memory import format_bytes
    from segment_slide.pipeline.report.run import write_report

    made = write_report(location, name, output, image=image)
    console.print(f"[bold green]Done:[/] {format_bytes(made.n_bytes)}, everything in one file", highlight=False)
    console.print(f"Report: {escape(made.path)}", highlight=False, soft_wrap=True)
