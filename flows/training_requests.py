"""The requests of the commands and flows that make a network."""

from dataclasses import dataclass
from typing import Annotated

from segment_slide.flows.requests import Workers
from segment_slide.pipeline.training.options import AnnotationInput, WeightOptions
from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.normalisation import WantedNormalisation
from segment_slide.unet.object_defaults import ObjectDefaults
from segment_slide.unet.options import Option, read_sizes
from segment_slide.unet.train_settings import TrainSettings


@dataclass(frozen=True)
class WeightMapsRequest:
    """For which images to make weight maps, and into which training set.

    Parameters
    ----------
    output : str
        The training set, by convention ``NAME.zarr``.
    annotation : AnnotationInput
        Images and labels.
    options : WeightOptions
        Meaning of labels, constants of Eq. 2, sizes.
    workers : Workers
        Where to work.
    """

    output: str
    annotation: AnnotationInput
    options: WeightOptions = WeightOptions()
    workers: Workers = Workers()


@dataclass(frozen=True)
class TrainingDataRequest:
    """Which samples to make from which training set.

    Parameters
    ----------
    training_set, output : str
        Training set that `weight-maps` wrote, and location for the samples.
    n : int
        Number of training samples.
    tile_px : tuple of int
        Pixels per spatial axis whose classes are compared, or one number for all axes; by default 256 in 2D and 64 in
        3D.
    depth : int, optional
        Depth of the network, which determines the halo; by default 4 in 2D, as in the paper, and 3 in 3D.
    seed : int
        Determines everything that is random.
    foreground_share : float
        Share of the samples that are drawn around a pixel of a class above 0; the others around any annotated pixel.
    augment : AugmentSettings
        How samples are varied.
    anisotropy : float, optional
        Height of a voxel divided by its width, 3D only; by default from the pixel size, where that is known.
    normalisation : WantedNormalisation
        "auto": chosen by the spread between the images. "constants" without values: they are measured on all training
        images.
    images_at : str
        Address (URL) of images that the training set names. Others are opened only if they have the training set's
        own origin (`pipeline.recorded`).
    validation_share : float
        Share of the images that validate.
    validation_names : tuple of str
        Validate with these images instead of a share.
    validation_tiles : int
        Greatest number of tiles from validation images, spread evenly. Validating on a whole slide would take longer
        than training.
    workers : Workers
        Where to work.
    """

    training_set: str
    output: str
    n: Annotated[int, Option("Number of training samples.", above=0, flags=("--n", "-n"))] = 1000
    tile_px: Annotated[
        tuple[int, ...],
        Option(
            "Pixels per side of a sample, or one size per axis like 32,128,128 (by default 256; 64 in 3D).",
            name="tile",
            read=read_sizes,
        ),
    ] = ()
    depth: Annotated[
        int | None,
        Option("Number of poolings of the network (by default 4, as in the paper; 3 in 3D).", at_least=1),
    ] = None
    seed: Annotated[int, Option("Seed of all random choices.", at_least=0)] = 0
    foreground_share: Annotated[
        float, Option("Share of the samples that are drawn around a pixel of a class above 0.", at_least=0, at_most=1)
    ] = 0.5
    augment: AugmentSettings = AugmentSettings()
    anisotropy: Annotated[
        float | None,
        Option("3D: height of a voxel divided by its width (by default from the pixel size).", above=0),
    ] = None
    normalisation: WantedNormalisation = WantedNormalisation()
    images_at: Annotated[
        str, Option("Address of images that the training set names; other addresses are not opened.", metavar="URL")
    ] = ""
    validation_share: Annotated[
        float, Option("Share of the images that are kept for validation.", at_least=0, below=1, name="validation")
    ] = 0.2
    validation_names: Annotated[
        tuple[str, ...],
        Option(
            "Validate with this image instead of a share.",
            metavar="NAME",
            name="validation_images",
            flags=("--validation-image",),
            is_repeated=True,
        ),
    ] = ()
    validation_tiles: Annotated[
        int, Option("Greatest number of tiles from validation images, spread evenly over them.", at_least=1)
    ] = 256
    workers: Workers = Workers()


@dataclass(frozen=True)
class TrainRequest:
    """Which network to train, on which samples, into which checkpoint.

    Parameters
    ----------
    samples : str
        Training samples, as `flows.training_data` makes them.
    output : str
        Checkpoint to write, by convention ``NAME.safetensors``. The folder ``NAME.training/`` beside it holds curves,
        and the state from which a killed training resumes.
    base_channels : int
        Channels of the first level; the paper has 64.
    dropout : float
        Dropout probability at the end of the contracting path (Ronneberger 2015, Sec. 3.1).
    settings : TrainSettings
        Steps, optimiser, validation.
    device : str
        "auto", "cpu" or "cuda".
    processes : int, optional
        Number of processes that train together, one per GPU; by default one for each GPU.
    objects : ObjectDefaults
        What the checkpoint recommends for objects.
    accept_processor : bool
        Resume although another device or another version of torch began the training.
    """

    samples: str
    output: str
    base_channels: Annotated[int, Option("Channels of the first level; the paper has 64.", at_least=1)] = 64
    dropout: Annotated[
        float, Option("Dropout probability at the end of the contracting path.", at_least=0, below=1)
    ] = 0.5
    settings: TrainSettings = TrainSettings()
    device: Annotated[
        str,
        Option("Device of the network: auto (a GPU if there is one), cpu or cuda.", choices=("auto", "cpu", "cuda")),
    ] = "auto"
    processes: Annotated[
        int | None, Option("Number of processes that train together, one per GPU (by default all GPUs).", above=0)
    ] = None
    objects: ObjectDefaults = ObjectDefaults()
    accept_processor: Annotated[
        bool,
        Option(
            "Resume a training that another device or another torch began. The checkpoint lists from which step on it "
            "was trained on which."
        ),
    ] = False
