"""Forms: as the command line by default, described in full, bounded; and the deployments fit them."""

import inspect
import subprocess
import sys
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.states import Failed
from prefect.task_engine import TaskRunTimeoutError
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from segment_slide.cluster.errors import ClusterError
from segment_slide.flows.deployed.generate_training_data import generate_training_data
from segment_slide.flows.deployed.operate import is_worth_a_retry
from segment_slide.flows.deployed.parameters import (
    ConversionParameters,
    ObjectParameters,
    SegmentParameters,
    WatchParameters,
)
from segment_slide.flows.deployed.prepare_weight_maps import prepare_weight_maps
from segment_slide.flows.deployed.segment_new_acquisitions import segment_new_acquisitions
from segment_slide.flows.deployed.segment_slide import make_request, segment_slide
from segment_slide.flows.deployed.train_unet import train_unet
from segment_slide.flows.deployed.training_parameters import (
    AnnotationParameters,
    SampleParameters,
    TrainingParameters,
    WeightParameters,
)
from segment_slide.flows.nights.plan import NightRequest
from segment_slide.flows.segment_request import SegmentRequest
from segment_slide.flows.slide import SlideRequest
from segment_slide.flows.training_request import TrainingDataRequest
from segment_slide.pipeline.errors import IncompleteError, InputError, OutputMismatchError, PlanError
from segment_slide.pipeline.ingest.run import IngestOptions
from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.training.annotation import AnnotationInput
from segment_slide.pipeline.training.weights_plan import WeightOptions
from segment_slide.unet.augment import AugmentSettings
from segment_slide.unet.train_settings import TrainSettings
from tests.flows.deployed.support import REPOSITORY

FLOWS = {
    flow.name: flow
    for flow in (
        segment_slide,
        segment_new_acquisitions,
        prepare_weight_maps,
        generate_training_data,
        train_unet,
    )
}
MODELS = (
    SegmentParameters,
    ObjectParameters,
    ConversionParameters,
    WatchParameters,
    AnnotationParameters,
    WeightParameters,
    SampleParameters,
    TrainingParameters,
)


def test_what_is_not_chosen_is_what_the_command_line_would_choose() -> None:
    assert SegmentParameters().options() == SegmentOptions()
    assert SegmentParameters().ranges() == {}
    assert ObjectParameters().options() == InstanceOptions()
    assert ConversionParameters().options() == IngestOptions()
    assert WeightParameters().options(AnnotationParameters()) == WeightOptions()
    assert AnnotationParameters().annotation(["a"], []) == AnnotationInput(("a",))
    assert TrainingParameters().settings() == TrainSettings()
    assert SampleParameters().augment() == AugmentSettings()
    samples, request = SampleParameters(), TrainingDataRequest("a", "b")
    assert (samples.tile_px(), samples.depth, samples.seed) == (request.tile_px, request.depth, request.seed)
    assert (samples.validation, samples.validation_tiles) == (request.validation_share, request.validation_tiles)
    template = SlideRequest(SegmentRequest("a", "m", "b"))
    assert NightRequest("a", "b", template, **WatchParameters().model_dump()) == NightRequest("a", "b", template)
    made = make_request("a", "m", "b", "local", None, SegmentParameters(), ObjectParameters(), ConversionParameters())
    assert made == template


def test_what_is_chosen_reaches_the_stages() -> None:
    segmentation = SegmentParameters(
        name="n", block=64, tile=32, precision="float32", tta="flips", probabilities="uint8", skip_background=True,
        level=1, axes="cyx", channels=["DAPI"], t="3", z="2:10", device="cpu",
        input_repaired=True,
    )  # fmt: skip
    objects = ObjectParameters(
        connectivity=2, fill_holes="9", min_size="12.5um2", split=1.5, split_halo=64, regrow=True, measure=False
    )
    conversion = ConversionParameters(image="i", series=2, axes="zyx", pixel_size=0.5, z_step=2.0)
    made = make_request("a", "m", "b", "slurm", 3, segmentation, objects, conversion)
    assert made == SlideRequest(
        SegmentRequest(
            "a",
            "m",
            "b",
            SegmentOptions("n", 64, 32, None, "float32", "flips", "uint8", skip_background=True),
            level=1,
            axes="cyx",
            channels=("DAPI",),
            ranges={"t": (3, 4), "z": (2, 10)},
            device="cpu",
            workers=3,
            cluster="slurm",
            input_repaired=True,
        ),
        image="i",
        ingest=IngestOptions(series=2, axes="zyx", pixel_size={"y": 0.5, "x": 0.5, "z": 2.0}),
        objects=InstanceOptions(2, ObjectSize(9.0), ObjectSize(12.5, "um2"), 1.5, 64, regrow=True),
        measure=False,
    )


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_says_what_it_is_and_a_misspelt_one_is_refused(model: Any) -> None:
    assert model.__doc__
    assert not [name for name, field in model.model_fields.items() if not field.description]
    with pytest.raises(ValidationError, match="misspelt"):
        model(misspelt=1)


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_the_form_of_a_flow_says_what_each_parameter_is(flow: Flow[..., Any]) -> None:
    fields = parameter_schema(flow.fn).properties
    assert list(fields) == list(inspect.signature(flow.fn).parameters)
    models = {model.__name__ for model in MODELS}
    for name, content in fields.items():
        described = "description" in content or any(model in str(content) for model in models)
        assert described, f"{name} of {flow.name}"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"input": ""}, "input"),
        ({"model": ""}, "model"),
        ({"output": ""}, "output"),
        ({"workers": 0}, "workers"),
        ({"stage_hours": -1.0}, "stage_hours"),
        ({"segmentation": {"block": 0}}, "block"),
        ({"segmentation": {"precision": "int8"}}, "precision"),
        ({"objects": {"connectivity": 4}}, "connectivity"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(bad: dict[str, Any], says: str) -> None:
    good = {"input": "a", "model": "m", "output": "b"}
    assert segment_slide.validate_parameters({**good})
    with pytest.raises(ParameterTypeError, match=says):
        segment_slide.validate_parameters({**good, **bad})


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_no_flow_takes_an_empty_place_or_no_workers(flow: Flow[..., Any]) -> None:
    fields = parameter_schema(flow.fn).properties
    places = {"input", "output", "outputs", "model", "watch", "training_set", "samples", "cluster", "images"}
    for name, content in fields.items():
        if name in places and "$ref" not in str(content):  # `samples` of one flow is a place, of another a group
            assert content.get("minLength") == 1 or content.get("minItems") == 1, f"{name} of {flow.name}"
        if name in ("workers", "processes", "stage_hours"):
            assert content["anyOf"][0]["exclusiveMinimum"] == 0, f"{name} of {flow.name}"


def test_sizes_and_ranges_are_read_as_on_the_command_line() -> None:
    with pytest.raises(InputError, match="2:10"):
        SegmentParameters(t="early").ranges()
    with pytest.raises(PlanError, match="12.5um2"):
        ObjectParameters(min_size="large").options()


def test_every_deployment_names_a_flow_and_parameters_that_it_takes() -> None:
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    assert {tuple(item["entrypoint"].split(":")) for item in deployments} == {
        (flow.fn.__module__, flow.fn.__name__) for flow in FLOWS.values()
    }
    for item in deployments:
        flow = FLOWS[item["entrypoint"].rpartition(":")[2].replace("_", "-")]
        required = {
            name: "x"
            for name, content in parameter_schema(flow.fn).properties.items()
            if name in (parameter_schema(flow.fn).required or ())
        }
        required = {name: ["x"] if name == "images" else value for name, value in required.items()}
        assert flow.validate_parameters({**required, **item.get("parameters", {})}), item["name"]
    names = [(item["entrypoint"].rpartition(":")[2], item["name"]) for item in deployments]
    assert len(set(names)) == len(names)
    assert {("segment_slide", "slurm"), ("segment_slide", "gpu"), ("segment_new_acquisitions", "nightly")} <= set(names)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (IncompleteError("3 blocks"), True),
        (ClusterError("no worker came"), True),
        (ConnectionResetError("by the file server"), True),
        (TimeoutError("of the file server"), True),
        (TaskRunTimeoutError("of the stage"), False),
        (InputError("a folder"), False),
        (OutputMismatchError("another model"), False),
        (ZeroDivisionError("a bug"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_what_a_second_try_may_mend_is_tried_again(error: Exception, again: bool) -> None:
    assert is_worth_a_retry(None, None, Failed(data=error)) is again


def test_a_flow_called_from_python_without_what_it_needs_says_what() -> None:
    assert segment_slide.fn.__defaults__ is not None
    with pytest.raises(InputError, match="model, output: missing"):
        segment_slide.fn("slide.ome.zarr")


def test_the_command_line_starts_without_prefect() -> None:
    code = "import sys, segment_slide.flows.commands.main; assert 'prefect' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
