"""Options for objects that the model recommends, taken where the user chose nothing.

A checkpoint may hold them, and the record of a segmentation has a copy. So every command that numbers objects of a
segmentation uses the same, even if the checkpoint is gone.
"""

import logging
from dataclasses import replace

from segment_slide.pipeline.errors import PlanError
from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize
from segment_slide.pipeline.storage.calibration import calibrate_um
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.label_records import ModelObjects, SegmentationRecord, read_label_record

log = logging.getLogger(__name__)


def adopt_recommended(options: InstanceOptions, image: StoredImage) -> tuple[InstanceOptions, tuple[str, ...]]:
    """Fill in what the model of a segmentation recommends.

    Parameters
    ----------
    options : InstanceOptions
        The user's choices; these come first.
    image : StoredImage
        The class map.

    Returns
    -------
    options : InstanceOptions
        All choices.
    from_model : tuple of str
        Those that the model recommended, such as "min_size 50px".
    """
    record = read_label_record(image.location)
    wanted = record.objects if isinstance(record, SegmentationRecord) else None
    if wanted is None or options.ignores_model or (options.ndim or wanted.ndim) != wanted.ndim:
        return options, ()
    taken = []
    size = _usable_size(wanted, image) if options.min_size is None else None
    if size is not None:
        options = replace(options, min_size=size)
        taken.append(f"min_size {size.value:g}{size.unit}")
    if wanted.split is not None and options.split is None:
        options = replace(options, split=wanted.split)
        taken.append(f"split {wanted.split:g}")
    return options, tuple(taken)


def _usable_size(wanted: ModelObjects, image: StoredImage) -> ObjectSize | None:
    """The smallest size; None if there is none, or if it is an area and nobody knows how large a pixel is."""
    if not wanted.min_size:
        return None
    try:
        size = ObjectSize.parse(wanted.min_size, "min_size")
        calibration = calibrate_um(image, wanted.ndim)
        size.to_pixels(None if calibration is None else calibration.voxel, wanted.ndim, "min_size")
    except PlanError as error:
        log.warning("the smallest object that the model recommends is not used: %s", error)
        return None
    return size
