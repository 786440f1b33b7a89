"""What the commands and flows that make a network are asked to do."""

from dataclasses import dataclass
from typing import Annotated

from segment_slide.flows.requests import Workers
from segment_slide.pipeline.training.options import AnnotationInput, WeightOptions
from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.checkpoint import Normalisation
from segment_slide.unet.options import Option, read_sizes
from segment_slide.unet.train_settings import TrainSettings


@dataclass(frozen=True)
class WeightMapsRequest:
    """What to make weight maps of, and into what.

    Parameters
    ----------
    output : str
        The training set, by convention ``NAME.zarr``.
    annotation : AnnotationInput
        Images and labels.
    options : WeightOptions
        What labels mean, Eq. 2, sizes.
    workers : Workers
        Where to work.
    """

    output: str
    annotation: AnnotationInput
    options: WeightOptions = WeightOptions()
    workers: Workers = Workers()


@dataclass(frozen=True)
class TrainingDataRequest:
    """Which samples to make of which training set.

    Parameters
    ----------
    training_set, output : str
        Where `weight-maps` wrote, and where samples shall be.
    n : int
        Training samples.
    tile_px : tuple of int
        Pixels per spatial axis whose classes are compared, or one for all; 256 in 2D and 64 in 3D by default.
    depth : int, optional
        Of the network, which fixes the halo; by default 4 in 2D, as in the paper, and 3 in 3D.
    seed : int
        Chooses everything.
    foreground_share : float
        Of the samples, drawn around a pixel of a class above 0; the others around any annotated pixel.
    augment : AugmentSettings
        How samples are varied.
    anisotropy : float, optional
        Height of a voxel in its widths, 3D only; by default from the pixel size, where it is known.
    normalisation : Normalisation
        "constants" without values: measured on all training images.
    validation_share : float
        Of the images.
    validation_names : tuple of str
        Validate with these images instead.
    validation_tiles : int
        Tiles of validation images at most, spread evenly: a whole slide would take longer to judge by than to train.
    workers : Workers
        Where to work.
    """

    training_set: str
    output: str
    n: Annotated[int, Option("Samples to learn from.", above=0, flags=("--n", "-n"))] = 1000
    tile_px: Annotated[
        tuple[int, ...],
        Option(
            "Pixels per side of a sample, or of each axis: 32,128,128 (by default 256; 64 in 3D).",
            name="tile",
            read=read_sizes,
        ),
    ] = ()
    depth: Annotated[
        int | None, Option("Poolings of the network (by default 4, as in the paper; 3 in 3D).", at_least=1)
    ] = None
    seed: Annotated[int, Option("Chooses everything that is random.", at_least=0)] = 0
    foreground_share: Annotated[
        float, Option("Share of the samples that are drawn around a pixel of a class above 0.", at_least=0, at_most=1)
    ] = 0.5
    augment: AugmentSettings = AugmentSettings()
    anisotropy: Annotated[
        float | None, Option("Height of a voxel in its widths (3D; by default from the pixel size).", above=0)
    ] = None
    normalisation: Normalisation = Normalisation()
    validation_share: Annotated[
        float, Option("Share of the images that are kept for validation.", at_least=0, below=1, name="validation")
    ] = 0.2
    validation_names: Annotated[
        tuple[str, ...],
        Option(
            "Validate with this image instead.",
            metavar="NAME",
            name="validation_images",
            flags=("--validation-image",),
            is_repeated=True,
        ),
    ] = ()
    validation_tiles: Annotated[
        int, Option("Tiles of validation images at most, spread evenly over them.", at_least=1)
    ] = 256
    workers: Workers = Workers()


@dataclass(frozen=True)
class TrainRequest:
    """What to train, on what, into what.

    Parameters
    ----------
    samples : str
        Training samples, as `flows.training_data` makes them.
    output : str
        Checkpoint to write, by convention ``NAME.safetensors``; ``NAME.training/`` beside it holds curves and the
        state that a killed training goes on from.
    base_channels : int
        Channels of the first level; the paper has 64.
    dropout : float
        At the end of the contracting path (Ronneberger 2015, Sec. 3.1).
    settings : TrainSettings
        How.
    device : str
        "auto", "cpu" or "cuda".
    processes : int, optional
        That train together, one per GPU; by default all GPUs.
    """

    samples: str
    output: str
    base_channels: Annotated[int, Option("Channels of the first level; the paper has 64.", at_least=1)] = 64
    dropout: Annotated[float, Option("At the end of the contracting path.", at_least=0, below=1)] = 0.5
    settings: TrainSettings = TrainSettings()
    device: Annotated[str, Option("auto (a GPU if there is one), cpu or cuda.", choices=("auto", "cpu", "cuda"))] = (
        "auto"
    )
    processes: Annotated[
        int | None, Option("Processes that train together, one per GPU (by default all GPUs).", above=0)
    ] = None
