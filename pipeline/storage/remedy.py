"""What to do about a damaged file of an image: who made the image makes the file again."""

from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import StoredImage
from segment_slide.pipeline.storage.record import ATTRIBUTE


def say_remedy(image: StoredImage) -> str:
    """A sentence for the end of a message, with a space before it; "" if another tool made the image."""
    try:
        record = (store.read_attributes(image.location) or {}).get(ATTRIBUTE)
    except PipelineError:  # its metadata are damaged too
        return ""
    if not isinstance(record, dict):
        return ""
    command = "ingest" if "ingested_from" in record else "segment" if "model" in record else "instances"
    return f" Run the same `segment-slide {command}` again: it finds the damaged file and makes it anew."
