"""The command that makes objects of classes: instances."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from segment_slide.flows.commands.options import BlockTimeLimit, Cluster

if TYPE_CHECKING:
    from segment_slide.flows.instances import InstancesRequest

commands = typer.Typer()
console = Console(width=None if sys.stdout.isatty() else 200)


@commands.command()
def instances(
    input: Annotated[
        str, typer.Argument(metavar="INPUT", help="A segmentation (OUT.ome.zarr), or any OME-Zarr or Zarr of classes.")
    ],
    name: Annotated[
        str, typer.Option(help="Label image of classes; the instances' is NAME-instances.")
    ] = "segmentation",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="Another store for the ids (by default INPUT itself).")
    ] = "",
    connectivity: Annotated[
        int,
        typer.Option(help="Axes along which neighbours may differ: 1 (sides only) to 2, or 3 in volumes (corners)."),
    ] = 1,
    fill_holes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Fill holes smaller than this: 50 (px) or 12.5um2, 80um3.")
    ] = None,
    min_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Drop objects (after splitting: pieces) smaller than this.")
    ] = None,
    split: Annotated[
        float | None,
        typer.Option(
            metavar="PX",
            help="Split touching objects by a distance-transform watershed, where the neck between two cores is "
            "narrower by PX of radius than the smaller core; 1 splits most, 3 only what is clearly two.",
        ),
    ] = None,
    split_halo: Annotated[
        int | None,
        typer.Option(
            help="Context of a block (px) when splitting: smaller objects are split exactly as in the whole image (by "
            "default 128; 32 in 3D)."
        ),
    ] = None,
    regrow: Annotated[
        bool, typer.Option("--regrow", help="Give the 1 px ridges between objects, which training cuts, back to them.")
    ] = False,
    ndim: Annotated[
        int | None, typer.Option(help="2: each plane has its own objects; 3: volumes (by default as segmented).")
    ] = None,
    block: Annotated[
        int | None, typer.Option(help="Pixels per side of one task and file (by default as INPUT's files); same ids.")
    ] = None,
    level: Annotated[int, typer.Option(help="Resolution level of INPUT.")] = 0,
    axes: Annotated[str | None, typer.Option(help="Axes of a bare Zarr array, one letter per dimension.")] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write into INPUT's labels/ although segment-slide did not make it.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes on this machine (by default one per core).")
    ] = None,
    cluster: Cluster = "local",
    block_time_limit: BlockTimeLimit = None,
) -> None:
    """Number the objects of a segmentation: the same ids as if the whole slide were labelled at once.

    Interrupted or killed? Run the same command again: it goes on where it stopped.
    """
    from segment_slide.flows.instances import InstancesRequest
    from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize

    request = InstancesRequest(
        input=input,
        name=name,
        output=output,
        options=InstanceOptions(
            connectivity=connectivity,
            fill_holes=None if fill_holes is None else ObjectSize.parse(fill_holes, "fill_holes"),
            min_size=None if min_size is None else ObjectSize.parse(min_size, "min_size"),
            split=split,
            split_halo=split_halo,
            regrow=regrow,
            block=block,
            ndim=ndim,
        ),
        level=level,
        axes=axes,
        workers=workers,
        cluster=cluster,
        in_place=in_place,
        block_time_limit_s=block_time_limit,
    )
    number(request)


def number(request: "InstancesRequest") -> None:
    """Number the objects, and say how many there are."""
    from segment_slide.flows.instances import label_objects
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.objects import show_instances

    show_instances(console, label_objects(request, RichStages(console)))
