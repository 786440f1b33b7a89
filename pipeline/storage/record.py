"""What made an output: written when it is begun, compared when a run goes on.

The record is the only thing that decides whether an output may be continued, so it holds all that determines
the bytes and nothing that does not (no times, no worker counts).
"""

import importlib.metadata
from typing import Any

from segment_slide.pipeline.errors import OutputMismatchError
from segment_slide.pipeline.segmentation.background import coarse_source
from segment_slide.pipeline.segmentation.plan import SegmentPlan
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import fingerprint

ATTRIBUTE = "segment_slide"
# Where a file lies does not change what is in it; a fingerprint or sha256 stands beside each.
_LOCATIONS = {("input", "location"), ("model", "path")}


_REPAIR_HINT = " If only damaged chunks of the input were replaced, add --input-repaired: blocks that are done stay."


def code_version() -> str:
    """Version of this package, as installed."""
    return importlib.metadata.version("segment-slide")


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


def read_record(location: str, name: str) -> dict[str, Any] | None:
    """The record of a begun output, or None if there is none (or its creation was interrupted)."""
    attributes = store.read_attributes(location, f"labels/{name}") or {}
    return attributes.get(ATTRIBUTE) or None


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


def compare_records(
    recorded: dict[str, Any],
    wanted: dict[str, Any],
    location: str,
    *,
    can_repair: bool = False,
    remedy: str = "Run it as it was begun, choose another output, or delete it.",
) -> None:
    """Refuse to go on with an output that another run began.

    Parameters
    ----------
    recorded, wanted : dict
        Fields by section; what is only recorded is not compared.
    location : str
        The output, for the message.
    can_repair : bool
        Whether the command can go on after damaged chunks of its input were replaced.
    remedy : str
        What to do.

    Raises
    ------
    OutputMismatchError
        Naming each field that differs, with both values.
    """
    differences = [
        f"{section}.{field}: begun with {recorded.get(section, {}).get(field)!r}, now {value!r}"
        for section, content in wanted.items()
        for field, value in content.items()
        if (section, field) not in _LOCATIONS and recorded.get(section, {}).get(field) != value
    ]
    if differences:
        raise OutputMismatchError(
            f"output={location} was begun by a run that differs: {'; '.join(differences)}. "
            f"{remedy}"
            f"{_REPAIR_HINT if can_repair and any(t.startswith('input.fingerprint') for t in differences) else ''}"
        )
