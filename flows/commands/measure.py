"""The command that measures objects: measure."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from segment_slide.flows.commands.options import BlockTimeLimit, Cluster
from segment_slide.pipeline.errors import InputError

if TYPE_CHECKING:
    from segment_slide.flows.measure import MeasureRequest

commands = typer.Typer()
console = Console(width=None if sys.stdout.isatty() else 200)


@commands.command()
def measure(
    output: Annotated[str, typer.Argument(metavar="OUT.ome.zarr", help="Output of a segmentation, with instances.")],
    name: Annotated[str, typer.Option(help="Its label image; the objects are NAME-instances.")] = "segmentation",
    image: Annotated[
        str | None, typer.Option(help="Image to measure intensities in (by default the one that was segmented).")
    ] = None,
    level: Annotated[
        int | None, typer.Option(help="Resolution of the image (by default the one that was segmented).")
    ] = None,
    no_image: Annotated[bool, typer.Option("--no-image", help="Measure shapes only.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes on this machine (by default one per core).")
    ] = None,
    cluster: Cluster = "local",
    block_time_limit: BlockTimeLimit = None,
) -> None:
    """Measure each object: size, shape, place, intensities; into tables/NAME-instances.parquet, with a summary page.

    Interrupted or killed? Run the same command again: it goes on where it stopped.
    """
    from segment_slide.flows.measure import MeasureRequest
    from segment_slide.pipeline.measurement.open import ImageChoice

    if no_image and (image is not None or level is not None):
        raise InputError("--no-image was given together with --image or --level; expected one or the other.")
    request = MeasureRequest(
        output,
        name,
        ImageChoice(image, level, no_image),
        workers=workers,
        cluster=cluster,
        block_time_limit_s=block_time_limit,
    )
    measure_all(request)


def measure_all(request: "MeasureRequest") -> None:
    """Measure the objects, and sum them up."""
    from segment_slide.flows.measure import measure_objects
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.objects import show_measure
    from segment_slide.pipeline.report.commands import command

    show_measure(console, measure_objects(request, RichStages(console)))
    line = command("segment-slide", "report", request.location, "--name", request.name)
    console.print(f"All of it in one page: {escape(line)}", highlight=False, soft_wrap=True)
