"""Train a network on stored samples. Steps: open, check, train, save."""

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_slide.flows.training_requests import TrainRequest
from segment_slide.pipeline.blocks.progress import QuietStages, Stages
from segment_slide.pipeline.errors import IncompleteError, OutputError, PipelineError
from segment_slide.pipeline.inputs.watch import InputWatch, explain_changed
from segment_slide.pipeline.manifest.homes import Made
from segment_slide.pipeline.manifest.sealing import sealing
from segment_slide.pipeline.metadata.junk import is_junk
from segment_slide.pipeline.objects.options import ObjectSize
from segment_slide.pipeline.storage.lock import LOCK_NAME, hold
from segment_slide.pipeline.storage.record import Results, code_version
from segment_slide.pipeline.storage.sections import read_section, write_section
from segment_slide.pipeline.training.curves import write_picture, write_tables
from segment_slide.pipeline.training.sample_set import SampleSet, lies_in, read_sample_set
from segment_slide.pipeline.training.stored_samples import StoredSamples, watch_samples
from segment_slide.pipeline.zarr_stores.written import NOTES_NAME
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import Checkpoint, ModelConfig, save_checkpoint
from segment_slide.unet.errors import CheckpointError, DivergedError, RankError
from segment_slide.unet.object_defaults import ObjectDefaults
from segment_slide.unet.train_settings import MEETING_PREFIX, Training

if TYPE_CHECKING:
    from segment_slide.unet.training_state import History

STATE_NAME = "state.safetensors"
PICTURE_NAME = "curves.png"
_OUR_NAMES = (STATE_NAME, PICTURE_NAME, "losses.csv", "scores.csv")
_LOSS_SHARE = 20  # the recorded loss is the mean of the last twentieth of the steps


@dataclass(frozen=True)
class TrainReport:
    """The result of a training.

    Attributes
    ----------
    checkpoint : Checkpoint
        The trained network.
    history : History
        Losses and validations.
    folder : Path
        Folder with curves (``curves.png``, ``losses.csv``, ``scores.csv``) and the state.
    steps_before : int
        Steps that an earlier run had done.
    seconds : float
        Wall time of this run.
    """

    checkpoint: Checkpoint
    history: "History"
    folder: Path
    steps_before: int
    seconds: float


def train_network(request: TrainRequest, progress: Stages | None = None) -> TrainReport:
    """Train a network, or resume a training that was interrupted.

    Raises
    ------
    UnetError, PipelineError
        If the request is bad; found before the first step.
    DivergedError
        If a loss is not finite; the message names the sample and where it was cut.
    IncompleteError
        If the disk is full or a process ended. The same command resumes from the last state.
    """
    from segment_slide.unet.device import resolve_device
    from segment_slide.unet.train import build_model, train
    from segment_slide.unet.train_elsewhere import settle_precision
    from segment_slide.unet.training_state import PROCESSORS, count_steps, read_identity

    began = time.perf_counter()
    path, samples = _output_path(request.output), read_sample_set(request.samples)
    folder = path.with_suffix(".training")
    settings = settle_precision(request.settings, resolve_device(request.device), folder / STATE_NAME)
    request = replace(request, settings=settings)
    code = str(read_identity(folder / STATE_NAME).get("code") or code_version())  # a resumed training keeps its version
    config = _describe(request, samples, code)
    training = Training(
        StoredSamples(samples, "training"),
        settings,
        StoredSamples(samples, "validation"),
        request.device,
        request.processes,
        folder / STATE_NAME,
        {"samples": _identify(samples), "code": code, "results": Results.TRAIN},
        compared_identity,
        request.accept_processor,
    )
    _check_place(path, folder, samples.location)
    watched = watch_samples(samples)
    progress, made = progress or QuietStages(), Made(str(folder), ("",))
    held = hold(str(folder), lambda: _remove_leftovers(folder))
    with held, _saying_how_to_go_on(folder), sealing(made, None, progress):
        done = count_steps(folder / STATE_NAME)
        if path.exists() and not done:
            raise OutputError(f"output={path} exists and is of another training; choose another path, or delete it.")
        model = build_model(config.architecture, settings.seed)
        with progress.stage("train", settings.steps, done, unit="steps") as advance:
            try:
                history = train(
                    model,
                    training,
                    on_step=lambda step, loss: advance(0, f"loss {loss:.3f}"),
                    on_save=lambda history: _write_curves(folder, history),
                )
            except DivergedError as error:
                raise DivergedError(_locate(error, samples), step=error.step, sample=error.sample) from error
        _write_curves(folder, history)
        _check_samples(watched, folder)
        uses = {name: value for name, value in read_identity(folder / STATE_NAME).items() if name == PROCESSORS}
        checkpoint = save_checkpoint(path, model, _add_results(config, history, uses))
    return TrainReport(checkpoint, history, folder, done, time.perf_counter() - began)


def _check_samples(watched: InputWatch, folder: Path) -> None:
    """Refuse to save a network whose samples changed while it learned from them; the state is of no use either."""
    if changed := watched.find_changed():
        (folder / STATE_NAME).unlink(missing_ok=True)
        remedy = f"No network is saved, and the state in {folder} is deleted; run the same command again to begin anew."
        raise IncompleteError(explain_changed(changed, remedy))


def _identify(samples: SampleSet) -> dict[str, Any]:
    """The identity of the samples, without the location of their training set."""
    record = samples.record()
    record.get("training_set", {}).pop("location", None)
    return record


def compared_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Select what decides the weights of a training: the numbers of the results, not the versions of the code.

    Parameters
    ----------
    identity : mapping
        Identity stored in a state. Keys that it lacks, because they did not exist when it was written, stand for their
        defaults: states of version 0.1.0 have no numbers of results, for example, which were 1 at that time.
    """
    samples = asdict(read_section(SampleSet, identity["samples"], STATE_NAME, location=""))
    del samples["settings"]["version"], samples["training_set"]["location"]
    kept = {name: value for name, value in identity.items() if name != "code"}
    return {"results": 1, **kept, "samples": _drop(samples, "read_from")}


def _drop(content: Any, name: str) -> Any:
    """A dictionary without a key, and so for all dictionaries in it; lists and tuples become equal."""
    if isinstance(content, Mapping):
        return {key: _drop(value, name) for key, value in content.items() if key != name}
    return [_drop(value, name) for value in content] if isinstance(content, list | tuple) else content


def _output_path(output: str) -> Path:
    path = Path(output).expanduser().absolute()
    if path.suffix != ".safetensors":
        raise OutputError(f"output={output}: expected the name of a checkpoint, NAME.safetensors.")
    if path.is_dir():
        raise OutputError(f"output={path} is a directory; expected the name of a checkpoint, NAME.safetensors.")
    return path


def _check_place(path: Path, folder: Path, samples_location: str) -> None:
    """Refuse an output inside the samples, and a folder that a training did not make."""
    if lies_in(str(path), samples_location):
        raise OutputError(f"output={path} lies in {samples_location}, which is read-only; choose another path.")
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; the training's state and curves need a folder of that name.")
    if STATE_NAME not in names and not all(map(_is_leftover, names)):
        raise OutputError(f"{folder} holds files that no training made; choose another output, or delete it.")


def _is_leftover(name: str) -> bool:
    """Whether a training may leave a file or folder of that name behind before its first state."""
    ours = {LOCK_NAME, NOTES_NAME, *(f"{name}.partial" for name in _OUR_NAMES)}
    return name in ours or name.startswith(MEETING_PREFIX) or is_junk(name)


@contextlib.contextmanager
def _saying_how_to_go_on(folder: Path) -> Iterator[None]:
    """Turn a full disk, or a process that ended, into an error that says how to resume."""
    try:
        yield
    except (PipelineError, CheckpointError):
        raise
    except RankError as error:
        raise IncompleteError(f"{error}") from error
    except OSError as error:
        raise IncompleteError(f"{folder} cannot be written: {error}. The last state is kept.") from error


def _describe(request: TrainRequest, samples: SampleSet, code: str) -> ModelConfig:
    """Describe the network, without weights and results. `code` is the version of the code that began the training."""
    architecture = Architecture(
        samples.n_channels,
        len(samples.class_names),
        request.base_channels,
        samples.depth,
        ndim=samples.n_spatial,
        dropout=request.dropout,
    )
    names = {"training": samples.training_images, "validation": samples.validation_images}
    drawn = write_section(samples.settings)
    reason = {"normalisation": f"{samples.normalisation.kind}: {samples.reason}"} if samples.reason else {}
    return ModelConfig(
        architecture,
        classes=samples.class_names,
        normalisation=samples.normalisation,
        channel_names=samples.channel_names,
        pixel_size_um=samples.pixel_size_um,
        training={
            "code": code,
            "images": {part: list(listed) for part, listed in names.items()},
            "samples": {"count": samples.n_training, "tile_px": list(samples.tile_px), **drawn},
            "settings": asdict(request.settings),
            **reason,
        },
        objects=_check_objects(request.objects, samples.n_spatial),
        intensities=samples.intensities,
    )


def _check_objects(objects: ObjectDefaults, ndim: int) -> ObjectDefaults | None:
    """What the checkpoint recommends for objects; None if nothing. Refuses a size that no output could use."""
    if objects.min_size:
        ObjectSize.parse(objects.min_size, "min_size").to_pixels(1.0, ndim, "min_size")
    return objects if objects != ObjectDefaults() else None


def _add_results(config: ModelConfig, history: "History", processors: Mapping[str, Any]) -> ModelConfig:
    """Add the results of the training to the configuration, and its processors if it went on with another one."""
    best = asdict(history.best) if history.best else None
    last = history.losses[-max(1, len(history.losses) // _LOSS_SHARE) :]
    results = {"steps": history.steps, "loss": sum(last) / len(last), "best": best, "stopped_early": history.stopped}
    return replace(config, training={**config.training, "results": results, **processors})


def _locate(error: DivergedError, samples: SampleSet) -> str:
    """Extend the message by the image and the place that the sample was cut from."""
    number, *centre = StoredSamples(samples, "training").place(error.sample)
    where = ", ".join(f"{axis}={place:.0f}" for axis, place in zip(samples.settings.place_axes, centre, strict=True))
    return f"{error} It was cut from image {samples.training_images[int(number)]} around {where}."


def _write_curves(folder: Path, history: "History") -> None:
    """Write the tables with each state, and the picture, which takes longer, only after a validation."""
    write_tables(folder, history)
    latest = history.validations[-1].step if history.validations else 0
    if history.steps == latest or not (folder / PICTURE_NAME).exists():
        write_picture(folder, history)


def _remove_leftovers(folder: Path) -> None:
    """Remove files that a killed training had not finished."""
    for name in _OUR_NAMES:
        (folder / f"{name}.partial").unlink(missing_ok=True)
    for place in folder.glob(f"{MEETING_PREFIX}*"):
        shutil.rmtree(place, ignore_errors=True)
