"""What made a segmentation: its record, made and kept."""

import importlib.metadata
from typing import Any

from segment_slide.pipeline.segmentation.background import coarse_source
from segment_slide.pipeline.segmentation.plan import SegmentPlan
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.record import ATTRIBUTE, code_version


def _torch_version() -> str:
    return importlib.metadata.version("torch").partition("+")[0]


def describe_input(plan: SegmentPlan) -> dict[str, Any]:
    """Which pixels of which image."""
    image = plan.source.image
    return {
        "location": image.location,
        "array": image.array_path,
        "level": image.level,
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": image.dtype,
        "channels": list(plan.source.channels),
        "ranges": {axis: list(ends) for axis, ends in zip(plan.source.plane_axes, plan.source.ranges, strict=True)},
        "fingerprint": fingerprint(image),
        "mask_fingerprint": _mask_fingerprint(plan),
    }


def _mask_fingerprint(plan: SegmentPlan) -> str | None:
    """Of the level that tells glass from tissue, where that is asked for."""
    return fingerprint(coarse_source(plan.source).image) if plan.parameters["skip_background"] else None


def make_record(
    plan: SegmentPlan,
    *,
    model_path: str,
    model_sha256: str,
    classes: tuple[str, ...],
    device_kind: str,
    processor: str = "",
) -> dict[str, Any]:
    """The record of a run, but for statistics of the image, which are measured after it is compared.

    Parameters
    ----------
    plan : SegmentPlan
        What is to be done.
    model_path, model_sha256 : str
        The checkpoint and its identity.
    classes : tuple of str
        Names of the label values.
    device_kind : str
        "cpu" or "cuda": their last bits differ.
    processor : str
        Which one, as far as last bits depend on it (`unet.device.describe_processor`).
    """
    return {
        "code": {"name": "segment-slide", "version": code_version(), "torch": _torch_version()},
        "input": describe_input(plan),
        "model": {"path": model_path, "sha256": model_sha256, "classes": list(classes)},
        "parameters": {**plan.parameters, "device": device_kind, "processor": processor},
    }


def accept_repair(begun: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """A begun record whose input was repaired: the fingerprint of now, and those that earlier blocks were made from."""
    earlier, now = begun["input"]["fingerprint"], wanted["input"]["fingerprint"]
    if earlier == now:
        return begun
    history = [*begun["input"].get("repaired_from", []), earlier]
    return {**begun, "input": {**begun["input"], "fingerprint": now, "repaired_from": history}}


def update_record(location: str, name: str, record: dict[str, Any]) -> None:
    """Replace the record of a begun output: its input was repaired and has another fingerprint now."""
    for group in (f"probability/{name}", f"labels/{name}"):
        if ATTRIBUTE in (store.read_attributes(location, group) or {}):
            store.update_attributes(location, group, {ATTRIBUTE: record})
