"""The command that scores a segmentation: evaluate."""

from pathlib import Path
from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, with_options
from segment_slide.flows.requests import EvaluateRequest

commands = typer.Typer()


@commands.command()
@with_options
def evaluate(
    predicted: Annotated[
        str, typer.Argument(metavar="PREDICTED", help="Segmentation to score: Zarr, TIFF or PNG, or a folder of files.")
    ],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="Annotation to compare with, in the same formats.")],
    chosen: Chosen[EvaluateRequest],
    json: Annotated[Path | None, typer.Option(help="File to write the scores to, as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="File to write the scores to, as CSV.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of worker processes on this machine (by default one per four cores).")
    ] = None,
) -> None:
    """Score a segmentation against the truth: IoU, Dice, SEG, F1, Rand, warping error."""
    from segment_slide.flows.evaluate import evaluate_locally
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.scores import show_scores, write_csv, write_json

    request = chosen.make(predicted=predicted, truth=truth)
    report = evaluate_locally(request, workers, RichStages(console))
    show_scores(console, report)
    if json is not None:
        write_json(report, json)
    if csv is not None:
        write_csv(report, csv)
