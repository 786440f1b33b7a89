"""What the instance image of a class map is called, and how one knows that it is complete.

Apart from `instance_output`, so that who only looks at objects imports none of what finds them.
"""

from segment_slide.pipeline.storage.place import label_group

COUNT = "n_objects"  # in the record: written last, so that its presence says that all ids are there


def instances_name(name: str) -> str:
    """Name of the instance image that belongs to a class map."""
    return f"{name}-instances"


def instance_group(name: str) -> str:
    """Path of that image in its output."""
    return label_group(instances_name(name))
