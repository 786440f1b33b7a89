"""Parameters of the flows as pydantic models. Prefect shows them as a form, and refuses values out of bounds."""

from typing import Annotated

from pydantic import Field

from segment_slide.flows.deployed.form import Form, form_of, option_named
from segment_slide.flows.requests import NightRequest, SegmentRequest, Workers
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.objects.options import InstanceOptions

# For a flow's own parameters, Prefect takes the bounds from the annotation and the description from the default.
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
Hours = Annotated[float, Field(gt=0)]

INPUT = Field(description="Image: an OME-Zarr, or a file that ingest can read (TIFF, SVS, NDPI …).")
MODEL = Field(description="Trained network (.safetensors).")
OUTPUT = Field(
    description="Output to write, by convention NAME.ome.zarr. Name the same output again to resume an interrupted run."
)
CLUSTER = option_named(Workers, "cluster")
WORKERS = option_named(Workers, "workers")
ALLOW_UNENCRYPTED = option_named(Workers, "allow_unencrypted")
BLOCK_TIME_LIMIT = option_named(Workers, "block_time_limit")
STAGE_HOURS = Field(None, description="Time limit of one stage (hours); what is done by then is kept.")


@form_of(SegmentRequest, without=("output", "in_place", "workers"))
class SegmentParameters(Form):
    """Which pixels are segmented, and how."""


@form_of(InstanceOptions, without=("block", "ndim"))
class ObjectParameters(Form):
    """Which pixels become an object, and whether objects are measured."""

    measure: bool = Field(True, description="Measure the objects, and write a table and a summary page.")


@form_of(IngestOptions, without=("stack", "name"))
class ConversionParameters(Form):
    """How a microscope's file is converted to OME-Zarr; not used for OME-Zarr inputs."""

    image: str = Field("", description="OME-Zarr to write; by default beside the output, NAME.image.ome.zarr.")


@form_of(NightRequest)
class WatchParameters(Form):
    """Which acquisitions are complete, and how often a bad one is tried."""
