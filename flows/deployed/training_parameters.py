"""Parameters of the training flows as pydantic models; see `flows.deployed.parameters`."""

from typing import Annotated

from pydantic import Field

from segment_slide.flows.deployed.form import Form, form_of, option_named
from segment_slide.flows.training_requests import TrainingDataRequest, TrainRequest
from segment_slide.pipeline.training.options import AnnotationInput, WeightOptions

Paths = Annotated[list[str], Field(min_length=1)]

IMAGES = Field(description="Images: OME-Zarr, Zarr array, TIFF, PNG …, or folders of them.")
LABELS: list[str] = Field(
    [], description="Annotation of the images, paired by name; by default the label image inside each OME-Zarr."
)
SET = Field(description="Training set: what prepare-weight-maps makes, by convention NAME.zarr.")
SAMPLES = Field(description="Training samples: what generate-training-data makes, NAME.zarr.")
CHECKPOINT = Field(description="Checkpoint to write, NAME.safetensors.")
N_SAMPLES = option_named(TrainingDataRequest, "n")
DEVICE = option_named(TrainRequest, "device")
PROCESSES = option_named(TrainRequest, "processes")

_OF_ANNOTATION = ("kind", "ignore", "class_names")


@form_of(AnnotationInput)
@form_of(WeightOptions, only=_OF_ANNOTATION)
class AnnotationParameters(Form):
    """Which annotation the network learns from."""


@form_of(WeightOptions, without=_OF_ANNOTATION)
class WeightParameters(Form):
    """The weight of each pixel (Ronneberger 2015, Eq. 2)."""


@form_of(TrainingDataRequest, without=("n", "workers"))
class SampleParameters(Form):
    """How samples are drawn and varied (Ronneberger 2015, Sec. 3.1)."""


@form_of(TrainRequest, without=("device", "processes"))
class TrainingParameters(Form):
    """How the network is trained; by default as in the paper."""
