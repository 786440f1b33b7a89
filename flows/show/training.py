"""What the commands print of training sets, samples and trainings."""

from typing import TYPE_CHECKING

from rich.console import Console

from segment_slide.flows.progress import format_seconds
from segment_slide.flows.show.tables import describe_state, make_table
from segment_slide.flows.show.wording import in_options

if TYPE_CHECKING:
    from segment_slide.flows.train import TrainReport
    from segment_slide.flows.training_data import TrainingDataReport
    from segment_slide.flows.weight_maps import WeightMapsReport
    from segment_slide.pipeline.training.sample_set import SampleSet
    from segment_slide.pipeline.training.training_set import TrainingSet


def show_weight_maps(console: Console, report: "WeightMapsReport") -> None:
    """Print what a training set holds, and what this run did."""
    console.print(make_table("Training set", weight_maps_rows(report)))
    console.print("Next: segment-slide training-data SET -o SAMPLES.zarr", highlight=False, soft_wrap=True)


def weight_maps_rows(report: "WeightMapsReport") -> dict[str, str]:
    """Rows that say what a training set holds, and what a run did."""
    left_out = {"left out": f"{', '.join(report.without_labels)}: not annotated"} if report.without_labels else {}
    rows = _describe_set(report.training_set) | {
        **left_out,
        "blocks": f"{report.n_blocks:,}, {report.n_done_before:,} of them done before",
        "time": format_seconds(report.seconds),
        "written to": report.training_set.location,
    }
    return rows | {f"note {number}": in_options(note) for number, note in enumerate(report.notes, start=1)}


def _describe_set(training_set: "TrainingSet") -> dict[str, str]:
    counts = [sum(numbers) for numbers in zip(*(image.class_counts for image in training_set.images), strict=True)]
    total = max(1, sum(counts))
    from segment_slide.pipeline.training.pairing import describe_pairs

    how = "volumes" if training_set.n_spatial == 3 else "plane by plane"
    pairs = describe_pairs([image.pair for image in training_set.images])
    return {"images": f"{len(training_set.images)}, {how}", "pairs": pairs} | {
        name: f"{count:,} px ({count / total:.1%} of what is annotated), weight {weight:.4g}"
        for name, count, weight in zip(training_set.class_names, counts, training_set.class_weights, strict=True)
    }


def show_training_data(console: Console, report: "TrainingDataReport") -> None:
    """Print what samples were made."""
    console.print(make_table("Training samples", training_data_rows(report)))
    console.print("Next: segment-slide train SAMPLES -o NAME.safetensors", highlight=False, soft_wrap=True)


def training_data_rows(report: "TrainingDataReport") -> dict[str, str]:
    """Rows that say which samples were made."""
    rows = _describe_samples(report.samples) | {
        "files": f"{report.n_files:,}, {report.n_files_before:,} of them there before",
        "time": format_seconds(report.seconds),
        "written to": report.samples.location,
    }
    if report.preview is not None:
        rows["picture"] = str(report.preview)
    return rows | {f"note {number}": in_options(note) for number, note in enumerate(report.notes, start=1)}


def _describe_samples(samples: "SampleSet") -> dict[str, str]:
    halo = (samples.read_px[0] - samples.tile_px[0]) // 2
    kept = f" ({', '.join(samples.validation_images)})" if samples.validation_images else ""
    return {
        "samples": f"{samples.n_training:,} to learn from, {samples.n_validation:,} to validate with",
        "size": f"{' x '.join(map(str, samples.tile_px))} px with a halo of {halo} px (depth {samples.depth}), "
        f"{samples.n_channels} channel(s), {len(samples.class_names)} classes",
        "images": f"{len(samples.training_images)} to learn from, "
        f"{len(samples.validation_images)} to validate with{kept}",
        "normalised": _describe_normalisation(samples),
    }


def _describe_normalisation(samples: "SampleSet") -> str:
    normalisation = samples.normalisation
    because = f"; chosen because {samples.reason}" if samples.reason else ""
    if normalisation.kind != "constants":
        return f"each image by its own {normalisation.kind}{because}"
    offsets = ", ".join(f"{value:.4g}" for value in normalisation.offset)
    scales = ", ".join(f"{value:.4g}" for value in normalisation.scale)
    return f"(x - {offsets}) / {scales}: mean and deviation of the images that are learnt from{because}"


def show_training_info(console: Console, location: str, kind: str) -> bool:
    """Print what is known of a training set or of training samples; False if the kind is another."""
    from segment_slide.pipeline.completeness.judge import judge
    from segment_slide.pipeline.storage.sections import write_section
    from segment_slide.pipeline.training import sample_set, training_set

    if kind == training_set.KIND:
        found = training_set.read_training_set(location)
        rows = _describe_set(found) | {"settings": str(write_section(found.settings))}
        rows |= describe_state(judge(location)) | {"names": ", ".join(image.name for image in found.images)}
        console.print(make_table(f"Training set {location}", rows))
    elif kind == sample_set.KIND:
        samples = sample_set.read_sample_set(location)
        rows = _describe_samples(samples) | {"settings": str(write_section(samples.settings))}
        console.print(make_table(f"Training samples {location}", rows | describe_state(judge(location))))
    return kind in (training_set.KIND, sample_set.KIND)


def show_train(console: Console, report: "TrainReport") -> None:
    """Print how a training went."""
    console.print(make_table("Trained network", train_rows(report)))


def train_rows(report: "TrainReport") -> dict[str, str]:
    """Rows that say how a training went."""
    history, config = report.history, report.checkpoint.config
    rows = {
        "network": f"{config.architecture.n_parameters:,} parameters, depth {config.architecture.depth}, "
        f"{config.architecture.base_channels} channels at first",
        "steps": f"{history.steps:,}, {report.steps_before:,} of them before"
        + (", ended early: no validation became better" if history.stopped else ""),
        "precision": config.training["settings"]["precision"],
        "loss": f"{config.training['results']['loss']:.4f} (mean of the last twentieth)",
    }
    if history.best is not None:
        best = history.best
        rows["best"] = (
            f"step {best.step:,}: validation loss {best.loss:.4f}, IoU {best.iou:.4f}, "
            f"pixel error {best.pixel_error:.4f}; its weights were kept"
        )
    else:
        rows["best"] = "unknown: no image was kept for validation; the last weights were kept"
    return rows | {
        "time": format_seconds(report.seconds),
        "checkpoint": str(report.checkpoint.path),
        "sha256": report.checkpoint.sha256,
        "curves": str(report.folder / "curves.png"),
    }
