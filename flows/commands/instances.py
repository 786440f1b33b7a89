"""The command that numbers the objects of a class map: instances."""

from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, with_options
from segment_slide.flows.requests import InstancesRequest

commands = typer.Typer()


@commands.command()
@with_options
def instances(
    input: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="A segmentation (OUT.ome.zarr), or any OME-Zarr or Zarr class map."),
    ],
    chosen: Chosen[InstancesRequest],
) -> None:
    """Number the objects of a segmentation. The ids are the same as if the whole slide were labelled at once.

    If it is interrupted, run the same command again. It resumes where it stopped.
    """
    number(chosen.make(input=input))


def number(request: InstancesRequest) -> None:
    """Number the objects and print how many there are."""
    from segment_slide.flows.instances import label_objects
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.objects import show_instances

    show_instances(console, label_objects(request, RichStages(console)))
