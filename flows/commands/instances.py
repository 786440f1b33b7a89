"""The command that makes objects of classes: instances."""

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
        str, typer.Argument(metavar="INPUT", help="A segmentation (OUT.ome.zarr), or any OME-Zarr or Zarr of classes.")
    ],
    chosen: Chosen[InstancesRequest],
) -> None:
    """Number the objects of a segmentation: the same ids as if the whole slide were labelled at once.

    Interrupted or killed? Run the same command again: it goes on where it stopped.
    """
    number(chosen.make(input=input))


def number(request: InstancesRequest) -> None:
    """Number the objects, and say how many there are."""
    from segment_slide.flows.instances import label_objects
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.objects import show_instances

    show_instances(console, label_objects(request, RichStages(console)))
