"""What tests of nights share: acquisitions of each kind, a stage that needs no network, results compared."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from segment_slide.flows.nights.plan import Decision
from segment_slide.flows.requests import NightRequest, SegmentRequest, SlideRequest, Workers
from segment_slide.flows.slide import SlideReport
from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.nights.notes import DONE_FILE
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.stages import SegmentReport
from tests.flows.support import noise, tree, write_ome, write_segmentation

SHAPE, BLOCK = (70, 90), 64


# -- acquisitions ------------------------------------------------------------------------------------------------


def write_tiff(path: Path, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, noise(*shape, seed=seed))
    return path


def write_slide(path: Path, seed: int = 1, shape: tuple[int, int] = SHAPE) -> Path:
    """Tiled, with a pyramid, as whole-slide scanners write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = noise(*shape, seed=seed)
    with tifffile.TiffWriter(path) as writer:
        writer.write(image, tile=(64, 64), compression="zlib", subifds=1, metadata=None)
        writer.write(image[::2, ::2], tile=(64, 64), compression="zlib", subfiletype=1, metadata=None)
    return path


def write_truncated(path: Path, seed: int = 2) -> Path:
    whole = write_tiff(path, seed).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def write_zarr(path: Path, seed: int = 3, shape: tuple[int, int] = SHAPE) -> Path:
    return write_ome(path, noise(*shape, seed=seed), "yx", scale=(0.5, 0.5))


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """A file that a thread appends to until the end."""
    write_tiff(path, seed=4)
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.05):
            with path.open("ab") as file:
                file.write(b"\0")

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# -- nights ------------------------------------------------------------------------------------------------------


def in_an_hour() -> float:
    """A clock by which everything is complete."""
    return time.time() + 3600


def night_request(watch: object, outputs: object, model: object, **changes: Any) -> NightRequest:
    """Class maps alone, unless `template` says otherwise."""
    options = SegmentOptions(block=BLOCK, precision="float32")
    template = SlideRequest(SegmentRequest("", str(model), options=options, workers=Workers(1)), objects=None)
    return NightRequest(str(watch), str(outputs), **{"template": template, **changes})


class StubStages:
    """In place of all stages: writes a class map of ones, and fails as it is told.

    Parameters
    ----------
    failing : dict
        By name of the acquisition, what is raised instead; a list is used up.
    before : callable, optional
        Called with the decision first.
    """

    def __init__(
        self, failing: dict[str, Any] | None = None, before: Callable[[Decision], None] = lambda _: None
    ) -> None:
        self.failing, self.before = failing or {}, before
        self.runs: list[str] = []
        self.tries: list[int] = []

    def __call__(self, request: SlideRequest, decision: Decision) -> SlideReport:
        name = decision.acquisition.name
        self.runs.append(name)
        self.tries.append(decision.tries)
        self.before(decision)
        error = self.failing.get(name)
        if isinstance(error, list):
            error = error.pop(0) if error else None
        if error is not None:
            raise error
        assert request.segment.input == decision.acquisition.path
        if not Path(decision.output, "labels/segmentation/zarr.json").exists():
            write_segmentation(Path(request.segment.output), np.ones(SHAPE, np.uint8))
        segmented = SegmentReport(
            request.segment.output, "segmentation", 1, 0, 0, SHAPE[0] * SHAPE[1], {"segment": 1.0}
        )
        return SlideReport(None, segmented, None, None, {"segment": 1.0})


def bad(reason: str = "its pixels are odd") -> InputError:
    return InputError(reason)


# -- results -----------------------------------------------------------------------------------------------------


def folder_of(outputs: Path, model_name: str = "cells") -> Path:
    (folder,) = outputs.glob(f"{model_name}-*")
    return folder


def notes(outputs: Path) -> dict[str, dict[str, Any]]:
    """Notes of failures by the acquisition's name."""
    found = {str(path): json.loads(path.read_text()) for path in outputs.rglob("*.failed.json")}
    return {name.partition("/cells-")[2].partition("/")[2].split(".ome.zarr")[0]: note for name, note in found.items()}


def results(outputs: Path) -> dict[str, str]:
    """Hash of every file of every output, but for those that hold times: its note, and the report beside it.

    The record of an image that was converted names the times of the conversion's files, so records are compared
    without the input's fingerprint.
    """
    found = {name: content for name, content in tree(outputs).items() if not name.endswith(".report.html")}
    for name in [name for name in found if name.endswith(DONE_FILE)]:
        found[name] = "done"
    for name in [name for name in found if name.endswith("zarr.json")]:
        found[name] = json.dumps(_without_marks(json.loads((outputs / name).read_text())), sort_keys=True)
    return found


def _without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        drop = {"fingerprint", "location", "identity"}  # the last is a hash of a record with fingerprints
        return {
            key: _without_marks(item) for key, item in value.items() if key not in drop and "fingerprint" not in key
        }
    return [_without_marks(item) for item in value] if isinstance(value, list) else value
