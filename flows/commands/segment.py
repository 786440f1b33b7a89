"""The commands segment, which segments an image, and plan, which only says what that would take."""

from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, Group, with_options
from segment_slide.flows.commands.instances import number
from segment_slide.flows.commands.measure import measure_all
from segment_slide.flows.requests import SegmentRequest
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.objects.options import InstanceOptions

commands = typer.Typer()


Input = Annotated[
    str,
    typer.Argument(metavar="INPUT", help="Image: OME-Zarr (0.1 to 0.5) or a Zarr array, also zipped; path or URL."),
]
Model = Annotated[str, typer.Option("--model", "-m", metavar="CKPT", help="Trained network (.safetensors).")]
# block and axes of the objects are those of the segmentation
OBJECTS = Group("Objects, with --instances or --measure", without=("block", "ndim"))


@commands.command()
@with_options
def segment(
    input: Input,
    model: Model,
    chosen: Chosen[SegmentRequest],
    objects: Annotated[Chosen[InstanceOptions], OBJECTS],
    instances: Annotated[
        bool, typer.Option("--instances", help="Also number the objects, as `segment-slide instances` does.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also number and measure the objects, as `segment-slide measure` does.")
    ] = False,
) -> None:
    """Segment an image into an OME-Zarr of labels.

    If it is interrupted, run the same command again. It resumes where it stopped.
    """
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.requests import InstancesRequest, MeasureRequest
    from segment_slide.flows.segment import segment_image
    from segment_slide.flows.show.info import show_report
    from segment_slide.flows.workers import sharing_workers

    if objects.given and not (instances or measure):
        raise InputError(
            f"{', '.join(objects.given)} was given without --instances or --measure; expected one of them too."
        )
    request = chosen.make(input=input, model=model)
    kinds, name, workers = objects.make(), request.options.name, request.workers
    with sharing_workers():
        report = segment_image(request, RichStages(console))
        show_report(console, report)
        if instances or measure:
            number(InstancesRequest(report.location, name, options=kinds, workers=workers))
        if measure:
            measure_all(MeasureRequest(report.location, name, workers=workers))


@commands.command()
@with_options
def plan(
    input: Input,
    model: Model,
    chosen: Annotated[
        Chosen[SegmentRequest],
        Group(
            without=(
                "output",
                "in_place",
                "input_repaired",
                "accept_processor",
                "full_fingerprint",
                "name",
                "block_time_limit",
            )
        ),
    ],
) -> None:
    """Print what segmenting an image would take: blocks, files, memory per worker, operations. Change nothing."""
    from segment_slide.flows.segment_request import plan_request
    from segment_slide.flows.show.info import show_plan

    show_plan(console, *plan_request(chosen.make(input=input, model=model)))
