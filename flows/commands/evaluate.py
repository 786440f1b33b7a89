"""The command that judges a segmentation: evaluate."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from segment_slide.flows.parsing import numbers

commands = typer.Typer()
console = Console(width=None if sys.stdout.isatty() else 200)


@commands.command()
def evaluate(
    predicted: Annotated[str, typer.Argument(metavar="PREDICTED", help="Zarr, TIFF or PNG, or a folder of files.")],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="Likewise.")],
    kind: Annotated[
        str,
        typer.Option(
            help="classes (pixel by pixel), instances (object by object), or membranes (a probability map of cells, "
            "with the errors of the EM challenge 2012)."
        ),
    ] = "classes",
    predicted_objects: Annotated[
        str, typer.Option(help="Instances: the prediction holds ids, or classes whose components are objects; auto.")
    ] = "auto",
    truth_objects: Annotated[str, typer.Option(help="Likewise, of the truth.")] = "ids",
    value: Annotated[int, typer.Option(help="Class whose components are objects.")] = 1,
    iou: Annotated[str | None, typer.Option(help="Thresholds of precision and recall, as 0.5,0.75.")] = None,
    ignore: Annotated[
        int | None, typer.Option(help="Value of the truth that is left out (by default 255 for classes).")
    ] = None,
    ignore_nothing: Annotated[bool, typer.Option("--ignore-nothing", help="Every value of the truth counts.")] = False,
    binary: Annotated[bool, typer.Option("--binary", help="Classes: all above 0 is class 1.")] = False,
    level: Annotated[int, typer.Option(help="Resolution of an OME-Zarr prediction.")] = 0,
    truth_level: Annotated[int, typer.Option(help="Resolution of an OME-Zarr truth.")] = 0,
    axes: Annotated[str | None, typer.Option(help="Axes of a prediction that does not say them.")] = None,
    truth_axes: Annotated[str | None, typer.Option(help="Axes of a truth that does not say them.")] = None,
    channel: Annotated[int | None, typer.Option(help="Channel of a prediction that has several.")] = None,
    volumes: Annotated[bool, typer.Option("--3d", help="Objects extend along z; else planes stand alone.")] = False,
    json: Annotated[Path | None, typer.Option(help="File to write the scores to, as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="File to write the scores to, as CSV.")] = None,
    block: Annotated[int, typer.Option(help="Pixels per side of what one task reads.")] = 2048,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes on this machine (by default one per four cores).")
    ] = None,
) -> None:
    """Score a segmentation against the truth: IoU, Dice, SEG, F1, Rand, warping error."""
    from segment_slide.flows.evaluate import EvaluateRequest, as_kind, evaluate_locally
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.scores import show_scores, write_csv, write_json
    from segment_slide.pipeline.scoring.object_scores import IOU_THRESHOLDS
    from segment_slide.pipeline.scoring.run import EvaluateOptions

    request = EvaluateRequest(
        predicted=predicted,
        truth=truth,
        kind=as_kind(kind),
        predicted_objects=predicted_objects,
        truth_objects=truth_objects,
        value=value,
        ious=numbers(iou, "iou") or IOU_THRESHOLDS,
        options=EvaluateOptions(block, ignore, ignore_nothing, binary),
        predicted_level=level,
        truth_level=truth_level,
        predicted_axes=axes,
        truth_axes=truth_axes,
        channel=channel,
        n_spatial=3 if volumes else 2,
    )
    report = evaluate_locally(request, workers, RichStages(console))
    show_scores(console, report)
    if json is not None:
        write_json(report, json)
    if csv is not None:
        write_csv(report, csv)
