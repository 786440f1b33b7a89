"""Curves of a training, as tables for programs and as a picture for people."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from segment_slide.pipeline.documents.csv_table import make_csv
from segment_slide.unet.training_state import History

_DPI = 100
_SMOOTHED_SHARE = 50  # the smoothed loss is a mean over this share of the steps


def write_tables(folder: Path, history: History) -> None:
    """Write ``losses.csv`` and ``scores.csv``, each whole or not at all.

    Parameters
    ----------
    folder : Path
        Folder to write to.
    history : History
        Losses and scores so far.
    """
    rows = ((step, f"{loss:.6g}") for step, loss in enumerate(history.losses, start=1))
    _write(folder / "losses.csv", _table(("step", "loss"), rows))
    scores = ((v.step, f"{v.loss:.6g}", f"{v.iou:.6g}", f"{v.pixel_error:.6g}") for v in history.validations)
    _write(folder / "scores.csv", _table(("step", "loss", "iou", "pixel_error"), scores))


def write_picture(folder: Path, history: History) -> None:
    """Write ``curves.png``, whole or not at all. The parameters are those of `write_tables`."""
    _write(folder / "curves.png", _draw(history))


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over the last `width` values at each position; over fewer at the beginning.

    >>> smooth(np.array([4.0, 2.0, 0.0]), 2).tolist()
    [4.0, 3.0, 1.0]
    """
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    return make_csv(header, rows).encode()


def _draw(history: History) -> bytes:
    """Plot the loss of each step and of each validation, and beside it IoU and pixel error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), dpi=_DPI, facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    losses, scores = figure.subplots(1, 2)
    steps = np.arange(1, history.steps + 1)
    values = np.asarray(history.losses)
    means = smooth(values, max(1, history.steps // _SMOOTHED_SHARE))
    losses.plot(steps, values, color="0.8", linewidth=0.5, label="each step")
    losses.plot(steps, means, color="C0", label="mean of steps")
    validations = history.validations
    at = [validation.step for validation in validations]
    if at:
        marked = {"marker": "o", "markersize": 3}
        losses.plot(at, [v.loss for v in validations], color="C1", label="validation", **marked)
        scores.plot(at, [v.iou for v in validations], color="C2", label="IoU", **marked)
        scores.plot(at, [v.pixel_error for v in validations], color="C3", label="pixel error", **marked)
        scores.legend(loc="center right")
    if history.best is not None:
        for axes in (losses, scores):
            axes.axvline(history.best.step, color="0.6", linestyle=":")
    losses.set(title="weighted loss", xlabel="step", ylabel="nats per pixel", yscale="log")
    losses.set_ylim(bottom=means.min() / 3)  # on a tile without any border the loss may fall to 1e-7
    losses.legend(loc="upper right")
    scores.set(title="validation" if at else "no validation images", xlabel="step", ylim=(0, 1))
    canvas.draw()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
