"""Forms: as the command line by default, described in full, bounded; and the deployments fit them."""

import inspect
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import typer
import yaml
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.states import Failed
from prefect.task_engine import TaskRunTimeoutError
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError
from typer.main import get_command

from segment_slide.cluster.errors import ClusterError
from segment_slide.flows.commands.derive import Chosen, with_options
from segment_slide.flows.commands.main import app
from segment_slide.flows.deployed.form import Form, form_of
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
from segment_slide.flows.requests import NightRequest, SegmentRequest, SlideRequest, Workers
from segment_slide.flows.training_requests import TrainingDataRequest, TrainRequest
from segment_slide.pipeline.errors import IncompleteError, InputError, OutputMismatchError, PlanError
from segment_slide.pipeline.ingest.options import IngestOptions
from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.training.options import AnnotationInput, WeightOptions
from segment_slide.unet.errors import OptionError
from segment_slide.unet.options import Option, make_options, option_fields, read_range
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
    template = SlideRequest(SegmentRequest("a", "m", "b"))
    made = make_request("a", "m", "b", Workers(), SegmentParameters(), ObjectParameters(), ConversionParameters())
    assert made == template
    places: dict[str, Any] = {"watch": "a", "outputs": "b", "template": template}
    assert make_options(NightRequest, WatchParameters().chosen(), **places) == NightRequest(**places)
    labels = AnnotationParameters().chosen()
    assert make_options(AnnotationInput, labels, images=("a",)) == AnnotationInput(("a",))
    assert make_options(WeightOptions, labels | WeightParameters().chosen()) == WeightOptions()
    samples = {"training_set": "a", "output": "b"}
    made_samples = make_options(TrainingDataRequest, SampleParameters().chosen(), **samples)
    assert made_samples == TrainingDataRequest("a", "b")
    training = {"samples": "a", "output": "b"}
    assert make_options(TrainRequest, TrainingParameters().chosen(), **training) == TrainRequest("a", "b")


def test_what_is_chosen_reaches_the_stages() -> None:
    segmentation = SegmentParameters(
        name="n", block=64, tile=32, chunk=16, precision="float32", tta="flips", probabilities="uint8",
        skip_background=True, level=1, axes="cyx", channels=["DAPI"], t="3", z="2:10", device="cpu",
        input_repaired=True,
    )  # fmt: skip
    objects = ObjectParameters(
        connectivity=2, fill_holes="9", min_size="12.5um2", split=1.5, split_halo=64, regrow=True, measure=False
    )
    conversion = ConversionParameters(image="i", series=2, axes="zyx", pixel_size=0.5, z_step=2.0)
    made = make_request("a", "m", "b", Workers(3, "slurm", 60), segmentation, objects, conversion)
    assert made == SlideRequest(
        SegmentRequest(
            "a",
            "m",
            "b",
            SegmentOptions("n", 64, 32, 16, "float32", "flips", "uint8", skip_background=True),
            level=1,
            axes="cyx",
            channels=("DAPI",),
            t=(3, 4),
            z=(2, 10),
            device="cpu",
            workers=Workers(3, "slurm", 60),
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
    with pytest.raises(OptionError, match="2:10"):
        make_options(SegmentRequest, SegmentParameters(t="early").chosen(), input="a", model="m")
    with pytest.raises(PlanError, match="12.5um2"):
        make_options(InstanceOptions, ObjectParameters(min_size="large").chosen())


def test_an_option_that_is_added_to_its_class_is_in_the_command_and_in_the_form() -> None:
    @dataclass(frozen=True)
    class Options:
        words: Annotated[tuple[str, ...], Option("Words.")] = ()
        kind: Annotated[str | None, Option("Kind.", choices=("auto", "a"), none="auto")] = None
        planes: Annotated[tuple[int, int] | None, Option("Planes.", read=read_range)] = None
        share: Annotated[float, Option("Share.", at_least=0, below=1)] = 0.5
        is_deep: Annotated[bool, Option("Depth.", name="deep")] = False

    @form_of(Options)
    class Parameters(Form):
        """A form."""

    def command(chosen: Chosen[Options]) -> None:
        made.append(chosen.make())

    command.__annotations__["chosen"] = Chosen[Options]
    own, made = typer.Typer(), list[Options]()
    own.command()(with_options(command))
    typed = ["--words", "x,y", "--kind", "a", "--planes", "2:4", "--share", "0.25", "--deep"]
    own(typed, standalone_mode=False)
    own([], standalone_mode=False)
    filled = Parameters(words=["x", "y"], kind="a", planes="2:4", share=0.25, deep=True)  # type: ignore[call-arg]
    expected = Options(("x", "y"), "a", (2, 4), 0.25, True)
    assert made == [expected, Options()]
    assert make_options(Options, filled.chosen()) == expected
    assert make_options(Options, Parameters().chosen()) == Options()
    for bad in ({"share": 1.0}, {"kind": "b"}, {"other": 1}):
        with pytest.raises(ValidationError):
            Parameters(**bad)


def test_commands_and_flows_offer_the_same_options() -> None:
    """What a form leaves out is named; nothing is forgotten."""
    left_out = {"output", "in_place", "workers", "cluster", "block_time_limit", "allow_unencrypted"}
    assert names_of(SegmentRequest) - set(SegmentParameters.model_fields) == left_out
    assert names_of(InstanceOptions) - set(ObjectParameters.model_fields) == {"block", "ndim"}
    for name in ("segment", "segment-new"):
        offered = {parameter.name for parameter in get_command(app).commands[name].params}  # type: ignore[attr-defined]
        assert names_of(InstanceOptions) - offered == {"ndim"}, name
        expected = {"output", "in_place", "input_repaired"} if name == "segment-new" else set()
        assert names_of(SegmentRequest) - offered == expected, name


def names_of(owner: type) -> set[str]:
    return {field.name for field in option_fields(owner)}


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
