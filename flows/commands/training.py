"""The commands that make a network, in the order of their use: weight-maps, training-data, train."""

from typing import Annotated

import typer

from segment_slide.flows.commands.console import console
from segment_slide.flows.commands.derive import Chosen, with_options
from segment_slide.flows.training_requests import TrainingDataRequest, TrainRequest, WeightMapsRequest
from segment_slide.pipeline.training.options import AnnotationInput

commands = typer.Typer()


@commands.command("weight-maps")
@with_options
def weight_maps(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Images: OME-Zarr, Zarr array, TIFF, PNG …, or folders of them."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="SET", help="Training set to write, NAME.zarr.")],
    annotation: Chosen[AnnotationInput],
    chosen: Chosen[WeightMapsRequest],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABELS",
            help="Annotation of the images: files or a folder, paired with the images by name; may be repeated. By "
            "default the label image inside each OME-Zarr (as ome-zarr-py writes it).",
        ),
    ] = None,
) -> None:
    """Make a training set of annotated images: classes and the weight of each pixel (Ronneberger 2015, Eq. 2).

    If it is interrupted, run the same command again. It resumes where it stopped.
    """
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.training import show_weight_maps
    from segment_slide.flows.weight_maps import make_weight_maps

    found = annotation.make(images=tuple(images), labels=tuple(labels or ()))
    show_weight_maps(console, make_weight_maps(chosen.make(output=output, annotation=found), RichStages(console)))


@commands.command("training-data")
@with_options
def training_data(
    training_set: Annotated[str, typer.Argument(metavar="SET", help="Training set that `weight-maps` made.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT", help="Location for the samples.")],
    chosen: Chosen[TrainingDataRequest],
) -> None:
    """Draw augmented training samples from a training set, on all workers.

    If it is interrupted, run the same command again. It resumes where it stopped.
    """
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.training import show_training_data
    from segment_slide.flows.training_data import make_training_data

    request = chosen.make(training_set=training_set, output=output)
    show_training_data(console, make_training_data(request, RichStages(console)))


@commands.command()
@with_options
def train(
    samples: Annotated[str, typer.Argument(metavar="SAMPLES", help="Samples that `training-data` made.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="CKPT", help="Checkpoint to write, NAME.safetensors.")
    ],
    chosen: Chosen[TrainRequest],
) -> None:
    """Train a U-Net on samples, by default as the paper did.

    If it is interrupted, run the same command again. It resumes from the last state and ends with the same weights.
    """
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.training import show_train
    from segment_slide.flows.train import train_network

    show_train(console, train_network(chosen.make(samples=samples, output=output), RichStages(console)))
