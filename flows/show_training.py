"""What is printed for people about training sets, samples and trainings."""

from typing import TYPE_CHECKING

from rich.console import Console

from flows.progress import format_seconds
from flows.show import make_table

if TYPE_CHECKING:
    from flows.train import TrainReport
    from flows.training_data import TrainingDataReport
    from flows.weight_maps import WeightMapsReport


def show_weight_maps(console: Console, report: "WeightMapsReport") -> None:
    """Print what a training set holds."""
    training_set = report.training_set
    counts = [
        sum(image.class_counts[number] for image in training_set.images) for number in range(training_set.n_classes)
    ]
    total = max(1, sum(counts))
    rows = {"images": f"{len(training_set.images)}, {'volumes' if training_set.n_spatial == 3 else 'plane by plane'}"}
    if report.without_labels:
        rows["left out"] = f"{', '.join(report.without_labels)}: not annotated"
    rows |= {
        name: f"{count:,} px ({count / total:.1%} of what is annotated), weight {weight:.4g}"
        for name, count, weight in zip(training_set.class_names, counts, training_set.class_weights, strict=True)
    }
    rows |= {
        "blocks": f"{report.n_blocks:,}, {report.n_done_before:,} of them done before",
        "time": format_seconds(report.seconds),
        "written to": training_set.location,
    }
    console.print(make_table("Training set", rows))
    console.print("Next: segment-slide training-data SET -o SAMPLES.zarr", highlight=False, soft_wrap=True)


def show_training_data(console: Console, report: "TrainingDataReport") -> None:
    """Print what samples were made."""
    samples = report.samples
    halo = (samples.read_px[0] - samples.tile_px[0]) // 2
    rows = {
        "samples": f"{samples.n_training:,} to learn from, {samples.n_validation:,} to validate with; "
        f"{report.n_files:,} files, {report.n_files_before:,} of them there before",
        "size": f"{' x '.join(map(str, samples.tile_px))} px with a halo of {halo} px, "
        f"{samples.n_channels} channel(s), {len(samples.class_names)} classes",
        "images": f"{len(samples.training_images)} to learn from, {len(samples.validation_images)} to validate with"
        + (f" ({', '.join(samples.validation_images)})" if samples.validation_images else ""),
        "normalised": _normalisation(report),
        "time": format_seconds(report.seconds),
        "written to": samples.location,
    }
    if report.preview is not None:
        rows["picture"] = str(report.preview)
    rows |= {f"note {number}": note for number, note in enumerate(report.notes, start=1)}
    console.print(make_table("Training samples", rows))
    console.print("Next: segment-slide train SAMPLES -o NAME.safetensors", highlight=False, soft_wrap=True)


def _normalisation(report: "TrainingDataReport") -> str:
    normalisation = report.samples.normalisation
    if normalisation.kind != "constants":
        return f"each image by its own {normalisation.kind}"
    offsets = ", ".join(f"{value:.4g}" for value in normalisation.offset)
    scales = ", ".join(f"{value:.4g}" for value in normalisation.scale)
    return f"(x - {offsets}) / {scales}: mean and deviation of the images that are learnt from"


def show_train(console: Console, report: "TrainReport") -> None:
    """Print how a training went."""
    history, config = report.history, report.checkpoint.config
    rows = {
        "network": f"{config.architecture.n_parameters:,} parameters, depth {config.architecture.depth}, "
        f"{config.architecture.base_channels} channels at first",
        "steps": f"{history.steps:,}, {report.steps_before:,} of them before"
        + (", ended early: no validation became better" if history.stopped else ""),
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
    rows |= {
        "time": format_seconds(report.seconds),
        "checkpoint": str(report.checkpoint.path),
        "sha256": report.checkpoint.sha256,
        "curves": str(report.folder / "curves.png"),
    }
    console.print(make_table("Trained network", rows))
