"""Parameters of the flows as pydantic models: Prefect shows them as a form, and refuses what is out of bounds."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from segment_slide.flows.parsing import parse_ranges
from segment_slide.pipeline.ingest.run import IngestOptions
from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize
from segment_slide.pipeline.segmentation.options import SegmentOptions

# Of a flow's own parameters Prefect takes bounds from the annotation, and what the form says from the default.
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(gt=0)]
Hours = Annotated[float, Field(gt=0)]

INPUT = Field(description="Image: an OME-Zarr, or a file that ingest can read (TIFF, SVS, NDPI …).")
MODEL = Field(description="Trained network (.safetensors).")
OUTPUT = Field(description="Result, by convention NAME.ome.zarr; the same again goes on where it stopped.")
CLUSTER = Field(
    "local", description="Where to work: local, cuda, slurm, tcp://HOST:PORT, or a YAML file (docs/how-to/cluster.md)."
)
WORKERS = Field(None, description="Worker processes on this machine, or jobs; by default what suits.")
STAGE_HOURS = Field(None, description="Longest time of one stage (h); what is done by then is kept.")


class Parameters(BaseModel):
    """A group of parameters; a name that is not known is refused instead of ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SegmentParameters(Parameters):
    """Which pixels are segmented, and how."""

    name: str = Field("segmentation", description="Name of the label image in the output.")
    block: int | None = Field(None, description="Pixels per side of one task and one file (2048; 256 in 3D).", gt=0)
    tile: int | None = Field(None, description="Pixels per side of one pass of the network.", gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="bfloat16 where hardware has it.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="A GPU if there is one, or which.")
    tta: Literal["none", "flips"] = Field("none", description="Average over mirrored versions: 4 times the work.")
    probabilities: Literal["none", "uint8", "float32"] = Field("none", description="Store class probabilities too.")
    skip_background: bool = Field(False, description="Leave out blocks that hold only glass.")
    level: int = Field(0, description="Resolution level of the input, 0 is the finest.", ge=0)
    axes: str | None = Field(None, description="Axes of a bare Zarr array: yx, cyx, zyx …")
    channels: list[str] = Field([], description="Channels for the network, in its order: names or numbers.")
    t: str | None = Field(None, description="Time points: 3 (one), or 2:10 (from 2 up to, not including, 10).")
    z: str | None = Field(None, description="Planes, for a 2D network: 3 or 2:10.")
    input_repaired: bool = Field(False, description="Go on after damaged chunks of the input were replaced.")

    def options(self) -> SegmentOptions:
        """What does not depend on the input."""
        return SegmentOptions(
            name=self.name,
            block=self.block,
            tile=self.tile,
            precision=None if self.precision == "auto" else self.precision,
            tta=self.tta,
            probabilities=self.probabilities,
            skip_background=self.skip_background,
        )

    def ranges(self) -> dict[str, tuple[int, int]]:
        """Start and stop per axis."""
        return parse_ranges(t=self.t, z=self.z)


class ObjectParameters(Parameters):
    """What becomes an object, and whether objects are measured."""

    connectivity: int = Field(1, description="Axes along which neighbours may differ: 1 (sides) to 3.", ge=1, le=3)
    fill_holes: str | None = Field(None, description="Fill holes smaller than this: 50 (px), 12.5um2, 80um3.")
    min_size: str | None = Field(None, description="Drop objects smaller than this: 50 (px), 12.5um2, 80um3.")
    split: float | None = Field(None, description="Split touching objects: 1 (px) splits most, 3 what is clear.", gt=0)
    split_halo: int | None = Field(None, description="Context of a block (px) when splitting.", gt=0)
    regrow: bool = Field(False, description="Give the ridges between objects, which training cuts, back to them.")
    measure: bool = Field(True, description="Measure the objects: a table and a page.")

    def options(self) -> InstanceOptions:
        """For the stage that numbers objects."""
        return InstanceOptions(
            connectivity=self.connectivity,
            fill_holes=None if self.fill_holes is None else ObjectSize.parse(self.fill_holes, "fill_holes"),
            min_size=None if self.min_size is None else ObjectSize.parse(self.min_size, "min_size"),
            split=self.split,
            split_halo=self.split_halo,
            regrow=self.regrow,
        )


class ConversionParameters(Parameters):
    """How a microscope's file becomes OME-Zarr; only for inputs that are none."""

    image: str = Field("", description="OME-Zarr to make; by default beside the output, NAME.image.ome.zarr.")
    series: int | None = Field(None, description="Which image of a file with several; else the largest.", ge=0)
    axes: str | None = Field(None, description="Axes of a TIFF that does not say them: zyx, czyx …")
    pixel_size: float | None = Field(None, description="Pixel size in y and x (um), if the file is wrong.", gt=0)
    z_step: float | None = Field(None, description="Distance of planes (um), likewise.", gt=0)

    def options(self) -> IngestOptions:
        """For the stage that converts."""
        sizes = {"y": self.pixel_size, "x": self.pixel_size, "z": self.z_step}
        given = {axis: size for axis, size in sizes.items() if size is not None}
        return IngestOptions(series=self.series, axes=self.axes, pixel_size=given)


class WatchParameters(Parameters):
    """Which acquisitions are complete, and how often a bad one is tried."""

    patterns: tuple[str, ...] = Field((), description="Only names that match one of these: *.svs, 2026-*/*.ome.zarr …")
    stable_minutes: float = Field(10.0, description="Complete is what has not changed for so long.", ge=0)
    marker: str | None = Field(None, description="File that says so instead: {name}.done, or a name inside a folder.")
    max_tries: int = Field(3, description="Failures after which an acquisition is set aside.", ge=1)
    max_age_days: float | None = Field(None, description="Leave alone what is older and was never begun.", gt=0)
