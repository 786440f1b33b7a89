"""The record of what made a segmentation: how it is made and updated."""

import importlib.metadata
import os
from dataclasses import replace

from segment_slide.pipeline.segmentation.background import coarse_source
from segment_slide.pipeline.segmentation.plan import SegmentPlan
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.fingerprint import fingerprint, is_by_times
from segment_slide.pipeline.storage.label_records import Model, ModelObjects, SegmentationRecord, SegmentedInput
from segment_slide.pipeline.storage.names import say_location
from segment_slide.pipeline.storage.record import ATTRIBUTE, Results, has_mark, this_code
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.unet.open_network import StoredNetwork, find_objects


def _torch_version() -> str:
    return importlib.metadata.version("torch").partition("+")[0]


def describe_input(
    plan: SegmentPlan, begun: SegmentedInput | None = None, output: str = "", *, full: bool = False
) -> SegmentedInput:
    """Which pixels of which image; `begun` is what the output was begun from, if it was.

    The image is named relative to the output, if one is given. `full` asks for a fingerprint of all bytes.
    """
    image = plan.source.image
    return SegmentedInput(
        location=say_location(image.location, output) if output else image.location,
        array=image.array_path,
        level=image.level,
        axes=image.axes,
        shape=tuple(image.shape),
        dtype=image.dtype,
        channels=tuple(plan.source.channels),
        ranges=dict(zip(plan.source.plane_axes, plan.source.ranges, strict=True)),
        fingerprint=fingerprint(image, begun.fingerprint if begun else "", full=full),
        mask_fingerprint=_mask_fingerprint(plan, (begun.mask_fingerprint if begun else None) or "", full=full),
    )


def _mask_fingerprint(plan: SegmentPlan, begun_with: str, *, full: bool = False) -> str | None:
    """Fingerprint of the level that tells glass from tissue; None if background is not skipped."""
    if not plan.parameters.skip_background:
        return None
    return fingerprint(coarse_source(plan.source).image, begun_with, full=full)


def renew_fingerprints(begun: SegmentationRecord, plan: SegmentPlan, *, full: bool) -> SegmentationRecord:
    """A begun record that agrees with its input, with fingerprints of content in place of those with times of files."""
    found = begun.input
    if found is None:
        return begun
    if is_by_times(found.fingerprint):
        new = fingerprint(plan.source.image, full=full)
        found = replace(found, fingerprint=new, earlier_fingerprint=found.fingerprint)
    if is_by_times(found.mask_fingerprint or ""):
        mask = _mask_fingerprint(plan, "", full=full)
        found = replace(found, mask_fingerprint=mask, earlier_mask_fingerprint=found.mask_fingerprint or "")
    return replace(begun, input=found)


def make_record(
    plan: SegmentPlan,
    *,
    model_path: str,
    model_sha256: str,
    classes: tuple[str, ...],
    device_kind: str,
    processor: str = "",
    begun: SegmentedInput | None = None,
    output: str = "",
    full: bool = False,
) -> SegmentationRecord:
    """The record of a run without statistics of the image: they are measured after the record is compared.

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
        Which processor, as far as the last bits depend on it (`unet.device.describe_processor`).
    begun : SegmentedInput, optional
        What the output was begun from, if it was.
    output : str
        The output's store; the record names the image relative to it.
    full : bool
        Whether a new fingerprint covers all bytes.
    """
    return SegmentationRecord(
        code=this_code(Results.SEGMENT, torch=_torch_version()),
        input=describe_input(plan, begun, output, full=full),
        model=Model(os.path.basename(model_path), model_sha256, classes),
        parameters=replace(plan.parameters, device=device_kind, processor=processor),
    )


def recommended_objects(network: StoredNetwork) -> ModelObjects | None:
    """What the network recommends for objects. It is not compared with a begun run: the network's sha256 is."""
    wanted = find_objects(network.config)
    return None if wanted is None else ModelObjects(wanted.min_size, wanted.split, len(network.description.axes))


def accept_repair(begun: SegmentationRecord, wanted: SegmentationRecord) -> SegmentationRecord:
    """A begun record after a repair of its input: the new fingerprint, and those that earlier blocks were made from."""
    if begun.input is None or wanted.input is None or begun.input.fingerprint == wanted.input.fingerprint:
        return begun
    history = (*begun.input.repaired_from, begun.input.fingerprint)
    return replace(begun, input=replace(begun.input, fingerprint=wanted.input.fingerprint, repaired_from=history))


def update_record(location: str, name: str, record: SegmentationRecord) -> None:
    """Replace the record of a begun output where it differs: its input was repaired, or another processor goes on."""
    content = write_section(record)
    for group in (f"probability/{name}", f"labels/{name}"):
        if has_mark(location, group) and (store.read_attributes(location, group) or {}).get(ATTRIBUTE) != content:
            store.update_attributes(location, group, {ATTRIBUTE: content})
