"""Commands that make a network: weight-maps, training-data, train; in the order of their use."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from segment_slide.flows.commands.options import BlockTimeLimit, Cluster
from segment_slide.flows.parsing import numbers, sizes, split

commands = typer.Typer()
console = Console(width=None if sys.stdout.isatty() else 200)

Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes on this machine (by default one per four cores).")]
Output = Annotated[str, typer.Option("--output", "-o", metavar="OUT", help="Where to write.")]
Seed = Annotated[int, typer.Option(help="Chooses everything that is random.")]


@commands.command("weight-maps")
def weight_maps(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="OME-Zarr, Zarr array, TIFF, PNG …; or folders of them.")
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="SET", help="Training set to make, NAME.zarr.")],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABELS",
            help="Annotation of the images: files or a folder, paired by name; may be repeated. By default the label "
            "image inside each OME-Zarr (as ome-zarr-py writes it).",
        ),
    ] = None,
    label_name: Annotated[str | None, typer.Option(help="Which label image inside, if there are several.")] = None,
    kind: Annotated[
        str,
        typer.Option(help="What label values are: instances (ids), classes, or binary (above 0 is foreground)."),
    ] = "instances",
    ignore: Annotated[
        int | None, typer.Option(help="Label value of pixels that nobody annotated; they teach nothing.")
    ] = None,
    class_name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Names of the classes, background first; repeat.")
    ] = None,
    w0: Annotated[float, typer.Option(help="Weight of a gap of no width between two objects (Eq. 2).")] = 10.0,
    sigma: Annotated[float, typer.Option(help="How fast it falls with the gap's width (px).")] = 5.0,
    ridge: Annotated[int, typer.Option(help="Background cut between objects that touch (px).")] = 1,
    balance: Annotated[bool, typer.Option(help="Weigh classes by their inverse frequency.")] = True,
    spacing: Annotated[
        str | None, typer.Option(help="Distances of pixels per axis, as 5,1,1 for planes 5 times as far apart.")
    ] = None,
    volumes: Annotated[bool, typer.Option("--3d", help="Learn from volumes (z, y, x), not plane by plane.")] = False,
    channels: Annotated[str | None, typer.Option(help="Channels to learn from: names or numbers, as DAPI,2.")] = None,
    level: Annotated[int, typer.Option(help="Resolution of OME-Zarr images and labels, 0 the finest.")] = 0,
    axes: Annotated[str | None, typer.Option(help="Axes of bare Zarr arrays, or TIFFs that do not say them.")] = None,
    label_axes: Annotated[str | None, typer.Option(help="Likewise, of the labels.")] = None,
    block: Annotated[int | None, typer.Option(help="Pixels per side of one task and one file.")] = None,
    workers: Workers = None,
    cluster: Cluster = "local",
    block_time_limit: BlockTimeLimit = None,
) -> None:
    """Make a training set of annotated images: classes and the weight of each pixel (Ronneberger 2015, Eq. 2).

    Interrupted or killed? Run the same command again: it goes on where it stopped.
    """
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.training import show_weight_maps
    from segment_slide.flows.weight_maps import WeightMapsRequest, make_weight_maps
    from segment_slide.pipeline.training.annotation import AnnotationInput
    from segment_slide.pipeline.training.weights_plan import WeightOptions
    from segment_slide.unet.weight_settings import WeightSettings

    annotation = AnnotationInput(
        images=tuple(images),
        labels=tuple(labels or ()),
        label_name=label_name,
        n_spatial=3 if volumes else 2,
        channels=split(channels),
        level=level,
        axes=axes,
        label_axes=label_axes,
    )
    settings = WeightSettings(
        w0=w0, sigma_px=sigma, ridge_px=ridge, balance=balance, spacing=numbers(spacing, "spacing")
    )
    options = WeightOptions(
        kind=kind, ignore=ignore, settings=settings, class_names=tuple(class_name or ()), block=block
    )
    request = WeightMapsRequest(output, annotation, options, workers, cluster, block_time_limit)
    show_weight_maps(console, make_weight_maps(request, RichStages(console)))


@commands.command("training-data")
def training_data(
    training_set: Annotated[str, typer.Argument(metavar="SET", help="What `weight-maps` made.")],
    output: Output,
    n: Annotated[int, typer.Option("--n", "-n", help="Samples to learn from.")] = 1000,
    tile: Annotated[
        str | None,
        typer.Option(help="Pixels per side of a sample, or of each axis: 32,128,128 (by default 256; 64 in 3D)."),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Poolings of the network (by default 4, as in the paper; 3 in 3D).")
    ] = None,
    seed: Seed = 0,
    foreground_share: Annotated[
        float, typer.Option(help="Share of the samples that are drawn around a pixel of a class above 0.")
    ] = 0.5,
    elastic_std: Annotated[
        float, typer.Option(help="Elastic deformation: standard deviation at control points (px); 0 for none.")
    ] = 10.0,
    elastic_grid: Annotated[int, typer.Option(help="Control points per axis.")] = 3,
    rotation: Annotated[str, typer.Option(help="any (angle), quarter (turns) or none.")] = "any",
    flip: Annotated[bool, typer.Option(help="Mirror samples at random.")] = True,
    grey: Annotated[float, typer.Option(help="Strength of the grey-value curve, 0 to below 1.")] = 0.1,
    anisotropy: Annotated[
        float | None, typer.Option(help="Height of a voxel in its widths (3D; by default from the pixel size).")
    ] = None,
    normalise: Annotated[
        str, typer.Option(help="constants (of all training images), or mean-std or percentiles of each image.")
    ] = "constants",
    validation: Annotated[float, typer.Option(help="Share of the images that are kept for validation.")] = 0.2,
    validation_image: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Validate with this image instead; may be repeated.")
    ] = None,
    validation_tiles: Annotated[
        int, typer.Option(help="Tiles of validation images at most, spread evenly over them.")
    ] = 256,
    workers: Workers = None,
    cluster: Cluster = "local",
    block_time_limit: BlockTimeLimit = None,
) -> None:
    """Draw augmented training samples from a training set, on all workers.

    Interrupted or killed? Run the same command again: it goes on where it stopped.
    """
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.training import show_training_data
    from segment_slide.flows.training_data import TrainingDataRequest, make_training_data
    from segment_slide.unet.augment import AugmentSettings
    from segment_slide.unet.checkpoint import Normalisation

    request = TrainingDataRequest(
        training_set=training_set,
        output=output,
        n=n,
        tile_px=sizes(tile, "tile"),
        depth=depth,
        seed=seed,
        foreground_share=foreground_share,
        augment=AugmentSettings(
            elastic_std_px=elastic_std, elastic_grid=elastic_grid, rotation=rotation, flip=flip, grey=grey
        ),
        anisotropy=anisotropy,
        normalisation=Normalisation(kind=normalise),
        validation_share=validation,
        validation_names=tuple(validation_image or ()),
        validation_tiles=validation_tiles,
        workers=workers,
        cluster=cluster,
        block_time_limit_s=block_time_limit,
    )
    show_training_data(console, make_training_data(request, RichStages(console)))


@commands.command()
def train(
    samples: Annotated[str, typer.Argument(metavar="SAMPLES", help="What `training-data` made.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="CKPT", help="Checkpoint to write, NAME.safetensors.")
    ],
    base_channels: Annotated[int, typer.Option(help="Channels of the first level; the paper has 64.")] = 64,
    dropout: Annotated[float, typer.Option(help="At the end of the contracting path.")] = 0.5,
    steps: Annotated[int, typer.Option(help="Updates of the weights.")] = 5000,
    batch: Annotated[int, typer.Option(help="Samples per update and GPU; the paper has 1.")] = 1,
    optimiser: Annotated[str, typer.Option(help="sgd (the paper's) or adamw (sooner good).")] = "sgd",
    learning_rate: Annotated[float | None, typer.Option(help="Highest rate (by default what suits it).")] = None,
    momentum: Annotated[float, typer.Option(help="Of sgd; the paper has 0.99.")] = 0.99,
    weight_decay: Annotated[float, typer.Option(help="Of either.")] = 0.0,
    schedule: Annotated[str, typer.Option(help="After a rise: constant, linear or cosine.")] = "linear",
    clip_norm: Annotated[float, typer.Option(help="Largest norm of a gradient; 0 for any.")] = 0.0,
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16 (mixed; several times faster where hardware has it).")
    ] = "float32",
    validate_every: Annotated[int, typer.Option(help="Steps between validations; 0 for one at the end.")] = 250,
    patience: Annotated[int, typer.Option(help="Validations without a better one before stopping; 0 never.")] = 0,
    monitor: Annotated[str, typer.Option(help="Which validation is better: by loss or iou.")] = "loss",
    save_every: Annotated[int, typer.Option(help="Steps between states to go on from after a crash.")] = 250,
    seed: Seed = 0,
    device: Device = "auto",
    processes: Annotated[
        int | None, typer.Option(help="Processes that train together, one per GPU (by default all GPUs).")
    ] = None,
) -> None:
    """Train a U-Net on samples, as the paper did unless told otherwise.

    Interrupted or killed? Run the same command again: it goes on where it stopped, to the same weights.
    """
    from segment_slide.flows.progress import RichStages
    from segment_slide.flows.show.training import show_train
    from segment_slide.flows.train import TrainRequest, train_network
    from segment_slide.unet.train_settings import TrainSettings

    settings = TrainSettings(
        steps=steps,
        batch=batch,
        optimiser=optimiser,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        clip_norm=clip_norm,
        precision=precision,
        validate_every=validate_every,
        patience=patience,
        monitor=monitor,
        save_every=save_every,
        seed=seed,
    )
    request = TrainRequest(samples, output, base_channels, dropout, settings, device, processes)
    show_train(console, train_network(request, RichStages(console)))
