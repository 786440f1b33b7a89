"""The command that measures objects: measure."""

from typing import Annotated

import typer
from rich.markup import escape

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, with_options
from segment_slide.flows.requests import MeasureRequest
from segment_slide.pipeline.errors import InputError

commands = typer.Typer()


@commands.command()
@with_options
def measure(
    location: Annotated[
        str,
        typer.Argument(
            metavar="OUT.ome.zarr", help="Output of a segmentation with instances, or an image with labels."
        ),
    ],
    chosen: Chosen[MeasureRequest],
) -> None:
    """Measure size, shape, place and intensities of each object, into tables/NAME-instances.parquet and a summary page.

    With --labels the objects are those of another tool's label image, with their own ids, in tables/NAME.parquet.

    If it is interrupted, run the same command again. It resumes where it stopped.
    """
    request = chosen.make(location=location)
    if request.image.no_image and (request.image.image is not None or request.image.level is not None):
        raise InputError("--no-image was given together with --image or --level; expected one or the other.")
    measure_all(request)


def measure_all(request: MeasureRequest) -> None:
    """Measure the objects and print a summary."""
    from segment_slide.flows.measure import measure_objects
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.objects import show_measure
    from segment_slide.pipeline.report.commands import command

    show_measure(console, measure_objects(request, RichStages(console)))
    if any((request.labels.labels, request.labels.table, request.labels.output)):
        return  # the report shows our own objects and their first table
    line = command("segment-slide", "report", request.location, "--name", request.name)
    console.print(f"All of it in one page: {escape(line)}", highlight=False, soft_wrap=True)
