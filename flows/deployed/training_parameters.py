"""Parameters of the training flows as pydantic models; see `flows.deployed.parameters`."""

from typing import Annotated, Literal

from pydantic import Field

from segment_slide.flows.deployed.parameters import Parameters
from segment_slide.flows.parsing import numbers, sizes
from segment_slide.pipeline.training.annotation import AnnotationInput
from segment_slide.pipeline.training.weights_plan import WeightOptions
from segment_slide.unet.augment import AugmentSettings
from segment_slide.unet.train_settings import TrainSettings
from segment_slide.unet.weight_settings import WeightSettings

Paths = Annotated[list[str], Field(min_length=1)]

IMAGES = Field(description="Images: OME-Zarr, Zarr array, TIFF, PNG …, or folders of them.")
LABELS: list[str] = Field([], description="Their annotation, paired by name; by default the label image inside each.")
SET = Field(description="Training set: what prepare-weight-maps makes, by convention NAME.zarr.")
SAMPLES = Field(description="Training samples: what generate-training-data makes, NAME.zarr.")
CHECKPOINT = Field(description="Checkpoint to write, NAME.safetensors.")
N_SAMPLES = Field(1000, description="Samples to learn from.")


class AnnotationParameters(Parameters):
    """What is learnt from."""

    label_name: str | None = Field(None, description="Which label image inside, if there are several.")
    kind: Literal["instances", "classes", "binary"] = Field("instances", description="What label values are.")
    ignore: int | None = Field(None, description="Label value of pixels that nobody annotated.")
    class_names: list[str] = Field([], description="Names of the classes, background first.")
    volumes: bool = Field(False, description="Learn from volumes (z, y, x), not plane by plane.")
    channels: list[str] = Field([], description="Channels to learn from: names or numbers.")
    level: int = Field(0, description="Resolution of OME-Zarr images and labels, 0 the finest.", ge=0)
    axes: str | None = Field(None, description="Axes of bare Zarr arrays, or TIFFs that do not say them.")
    label_axes: str | None = Field(None, description="Likewise, of the labels.")

    def annotation(self, images: list[str], labels: list[str]) -> AnnotationInput:
        """With the places of images and labels."""
        return AnnotationInput(
            images=tuple(images),
            labels=tuple(labels),
            label_name=self.label_name,
            n_spatial=3 if self.volumes else 2,
            channels=tuple(self.channels),
            level=self.level,
            axes=self.axes,
            label_axes=self.label_axes,
        )


class WeightParameters(Parameters):
    """The weight of each pixel (Ronneberger 2015, Eq. 2)."""

    w0: float = Field(10.0, description="Weight of a gap of no width between two objects.", ge=0)
    sigma: float = Field(5.0, description="How fast it falls with the gap's width (px).", gt=0)
    ridge: int = Field(1, description="Background cut between objects that touch (px).", ge=0)
    balance: bool = Field(True, description="Weigh classes by their inverse frequency.")
    spacing: str | None = Field(None, description="Distances of pixels per axis, as 5,1,1.")
    block: int | None = Field(None, description="Pixels per side of one task and one file.", gt=0)

    def options(self, annotation: AnnotationParameters) -> WeightOptions:
        """For the stage that weighs."""
        settings = WeightSettings(
            w0=self.w0,
            sigma_px=self.sigma,
            ridge_px=self.ridge,
            balance=self.balance,
            spacing=numbers(self.spacing, "spacing"),
        )
        return WeightOptions(
            kind=annotation.kind,
            ignore=annotation.ignore,
            settings=settings,
            class_names=tuple(annotation.class_names),
            block=self.block,
        )


class SampleParameters(Parameters):
    """How samples are drawn and varied (Ronneberger 2015, Sec. 3.1)."""

    tile: str | None = Field(None, description="Pixels per side of a sample: 256, or per axis 32,128,128.")
    depth: int | None = Field(None, description="Poolings of the network (4; 3 in 3D).", ge=1)
    seed: int = Field(0, description="Chooses everything that is random.", ge=0)
    foreground_share: float = Field(0.5, description="Share drawn around a pixel of a class above 0.", ge=0, le=1)
    elastic_std: float = Field(10.0, description="Elastic deformation: deviation at control points (px).", ge=0)
    elastic_grid: int = Field(3, description="Control points per axis.", ge=2)
    rotation: Literal["any", "quarter", "none"] = Field("any", description="By which angles.")
    flip: bool = Field(True, description="Mirror samples at random.")
    grey: float = Field(0.1, description="Strength of the grey-value curve.", ge=0, lt=1)
    anisotropy: float | None = Field(None, description="Height of a voxel in its widths (3D).", gt=0)
    normalise: Literal["constants", "mean-std", "percentiles"] = Field(
        "constants", description="Constants of all training images, or each image by its own."
    )
    validation: float = Field(0.2, description="Share of the images that are kept for validation.", ge=0, lt=1)
    validation_images: list[str] = Field([], description="Validate with these images instead.")
    validation_tiles: int = Field(256, description="Tiles of validation images at most.", ge=1)

    def tile_px(self) -> tuple[int, ...]:
        """Pixels per spatial axis."""
        return sizes(self.tile, "tile")

    def augment(self) -> AugmentSettings:
        """How samples are varied."""
        return AugmentSettings(
            elastic_std_px=self.elastic_std,
            elastic_grid=self.elastic_grid,
            rotation=self.rotation,
            flip=self.flip,
            grey=self.grey,
        )


class TrainingParameters(Parameters):
    """How the network is trained, as in the paper unless told otherwise."""

    base_channels: int = Field(64, description="Channels of the first level; the paper has 64.", ge=1)
    dropout: float = Field(0.5, description="At the end of the contracting path.", ge=0, lt=1)
    steps: int = Field(5000, description="Updates of the weights.", ge=1)
    batch: int = Field(1, description="Samples per update and GPU; the paper has 1.", ge=1)
    optimiser: Literal["sgd", "adamw"] = Field("sgd", description="sgd (the paper's) or adamw (sooner good).")
    learning_rate: float | None = Field(None, description="Highest rate, by default what suits the optimiser.", gt=0)
    momentum: float = Field(0.99, description="Of sgd; the paper has 0.99.", ge=0, lt=1)
    weight_decay: float = Field(0.0, description="Of either.", ge=0)
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="After a rise.")
    clip_norm: float = Field(0.0, description="Largest norm of a gradient; 0 for any.", ge=0)
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16 where hardware has it.")
    validate_every: int = Field(250, description="Steps between validations; 0 for one at the end.", ge=0)
    patience: int = Field(0, description="Validations without a better one before stopping; 0 never.", ge=0)
    monitor: Literal["loss", "iou"] = Field("loss", description="Which validation is better.")
    save_every: int = Field(250, description="Steps between states to go on from after a crash.", ge=0)
    seed: int = Field(0, description="Chooses everything that is random.", ge=0)

    def settings(self) -> TrainSettings:
        """For the stage that trains."""
        return TrainSettings(**self.model_dump(exclude={"base_channels", "dropout"}))
