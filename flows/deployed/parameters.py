"""Parameters of the flows as pydantic models: Prefect shows them as a form, and refuses what is out of bounds."""

from typing import Annotated

from pydantic import Field

from segment_slide.flows.deployed.form import Form, form_of, option_named
from segment_slide.flows.requests import NightRequest, SegmentRequest, Workers
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.objects.options import InstanceOptions

# Of a flow's own parameters Prefect takes bounds from the annotation, and what the form says from the default.
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
Hours = Annotated[float, Field(gt=0)]

INPUT = Field(description="Image: an OME-Zarr, or a file that ingest can read (TIFF, SVS, NDPI …).")
MODEL = Field(description="Trained network (.safetensors).")
OUTPUT = Field(description="Result, by convention NAME.ome.zarr; the same again goes on where it stopped.")
CLUSTER = option_named(Workers, "cluster")
WORKERS = option_named(Workers, "workers")
BLOCK_TIME_LIMIT = option_named(Workers, "block_time_limit")
STAGE_HOURS = Field(None, description="Longest time of one stage (h); what is done by then is kept.")


@form_of(SegmentRequest, without=("output", "in_place", "workers"))
class SegmentParameters(Form):
    """Which pixels are segmented, and how."""


@form_of(InstanceOptions, without=("block", "ndim"))
class ObjectParameters(Form):
    """What becomes an object, and whether objects are measured."""

    measure: bool = Field(True, description="Measure the objects: a table and a page.")


@form_of(IngestOptions, without=("stack", "name"))
class ConversionParameters(Form):
    """How a microscope's file becomes OME-Zarr; only for inputs that are none."""

    image: str = Field("", description="OME-Zarr to make; by default beside the output, NAME.image.ome.zarr.")


@form_of(NightRequest)
class WatchParameters(Form):
    """Which acquisitions are complete, and how often a bad one is tried."""
