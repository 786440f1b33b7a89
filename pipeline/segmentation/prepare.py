"""A segmentation checked against its input, model and output before any work: nothing is read, nothing created."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segment_slide.pipeline.inputs.watch import InputWatch
from segment_slide.pipeline.segmentation.output import stored_blocks
from segment_slide.pipeline.segmentation.plan import SegmentPlan
from segment_slide.pipeline.segmentation.processors import as_begun, is_known, processor_of
from segment_slide.pipeline.segmentation.record import accept_repair, make_record, renew_fingerprints
from segment_slide.pipeline.segmentation.replaced import refuse_replaced, watch_input
from segment_slide.pipeline.storage.calibration import note_sizes, pixel_um
from segment_slide.pipeline.storage.label_records import ProcessorUse, SegmentationRecord, read_record
from segment_slide.pipeline.storage.record import compare_records
from segment_slide.unet.open_network import StoredNetwork, find_channel_names, find_runtime

if TYPE_CHECKING:
    from segment_slide.unet.device_facts import DeviceFacts

log = logging.getLogger(__name__)

_PIXEL_SIZE_TOLERANCE = 1.2


@dataclass(frozen=True)
class Destination:
    """Where a segmentation goes.

    Parameters
    ----------
    location, name : str
        Output store, and the label image in it.
    in_place : bool
        The location is the input image, whose root metadata stay as they are.
    input_repaired : bool
        Go on although the input's files changed, because only damaged chunks were replaced.
    accept_processor : bool
        Go on although the run was begun on another kind of processor, or with another torch.
    full_fingerprint : bool
        Read all bytes of the input for its fingerprint, and not samples.
    """

    location: str
    name: str
    in_place: bool = False
    input_repaired: bool = False
    accept_processor: bool = False
    full_fingerprint: bool = False


@dataclass(frozen=True)
class PreparedSegmentation:
    """A segmentation that was checked against its input, model and output, before any work.

    Attributes
    ----------
    destination : Destination
        Where it goes.
    network : StoredNetwork
        The network.
    plan : SegmentPlan
        What is to be done.
    device_kind : str
        "cpu" or "cuda".
    record : SegmentationRecord
        What makes it; if the output was begun before, the record from then.
    begun : bool
        Whether the output is there already.
    processor : ProcessorUse
        The kind of processor that does the pending blocks.
    watched : InputWatch
        The files of the input as they were before anything of them was read.
    """

    destination: Destination
    network: StoredNetwork
    plan: SegmentPlan
    device_kind: str
    record: SegmentationRecord
    begun: bool
    processor: ProcessorUse
    watched: InputWatch


def prepare_segmentation(
    plan: SegmentPlan,
    network: StoredNetwork,
    destination: Destination,
    facts: "DeviceFacts",
    *,
    is_settled: bool = True,
) -> PreparedSegmentation:
    """Compare the plan with a segmentation that was begun in the same place; nothing is created.

    Parameters
    ----------
    plan : SegmentPlan
        What is to be done.
    network : StoredNetwork
        The network.
    destination : Destination
        Where it goes.
    facts : DeviceFacts
        The device that passes run on.
    is_settled : bool
        Whether `facts` are those of the workers. If not, the records are compared when the workers are known.

    Raises
    ------
    OutputMismatchError
        If another segmentation was begun there, naming what differs.
    CheckpointError
        If a weight of the network is NaN or infinite.
    """
    network.check_weights()
    watched = watch_input(plan, destination.location, destination.name)
    begun = read_record(destination.location, destination.name)
    record = make_record(
        plan,
        model_path=str(network.path),
        model_sha256=network.sha256,
        classes=network.config.classes,
        device_kind=facts.kind,
        processor=name_processor(facts.processor, network),
        begun=begun.input if begun else None,
        output=destination.location,
        full=destination.full_fingerprint,
    )
    here = processor_of(record)
    if begun and is_settled:
        if destination.input_repaired:
            begun = accept_repair(begun, record)
        is_accepted = destination.accept_processor or is_known(begun, here) or not _is_pending(destination, plan)
        wanted = as_begun(record, begun) if is_accepted else record
        compare_records(begun, wanted, destination.location, can_repair=True)
        if not destination.input_repaired:
            refuse_replaced(plan, destination.location, destination.name, begun.input)
        record = renew_fingerprints(begun, plan, full=destination.full_fingerprint)
    _warn_about_precision(facts)
    _warn_about_pixel_size(network, plan)
    _warn_about_channel_names(network, plan)
    return PreparedSegmentation(destination, network, plan, facts.kind, record, bool(begun), here, watched)


def name_processor(processor: str, network: StoredNetwork) -> str:
    """What decides the last bits: the kind of processor, and the program that runs the network if it is not torch."""
    runtime = find_runtime(network)
    return f"{processor}, {runtime}" if processor and runtime else processor


def _is_pending(destination: Destination, plan: SegmentPlan) -> bool:
    """Whether blocks are left for this processor."""
    return len(stored_blocks(destination.location, destination.name, plan)) < plan.grid.n_blocks


def _warn_about_precision(facts: "DeviceFacts") -> None:
    """Warn if the processor emulates bfloat16; a run that was begun elsewhere keeps its precision."""
    if facts.kind == "cpu" and facts.precision == "bfloat16" and "bf16" not in (facts.processor or "bf16").split():
        log.warning(
            "this processor (%s) has no instructions for bfloat16, which takes several times longer here than float32",
            facts.processor,
        )


def _warn_about_pixel_size(network: StoredNetwork, plan: SegmentPlan) -> None:
    """Warn if pixels are much larger or smaller than in training: networks know cells of one size in px."""
    image = plan.source.image
    for note in note_sizes(image):
        log.warning("input=%s: %s", image.location, note)
    for axis, trained in zip(plan.source.spatial_axes, network.config.pixel_size_um, strict=False):
        size = pixel_um(image, axis)
        if size is not None and not 1 / _PIXEL_SIZE_TOLERANCE < size / trained < _PIXEL_SIZE_TOLERANCE:
            log.warning(
                "pixel size along %s is %.3g um, the model was trained at %.3g um; another `level` may fit better",
                axis,
                size,
                trained,
            )


def _warn_about_channel_names(network: StoredNetwork, plan: SegmentPlan) -> None:
    """Warn if the image's channels have the names of the training images' channels, but in another order."""
    names, trained = plan.source.image.multiscale.channel_names, find_channel_names(network.config)
    chosen = [names[channel] for channel in plan.source.channels if channel < len(names)]
    if chosen != list(trained) and sorted(chosen) == sorted(trained) and len({*chosen}) == len(chosen):
        log.warning(
            "the chosen channels are %s, the model was trained on %s; choose them in that order with `channels`",
            ", ".join(chosen),
            ", ".join(trained),
        )
