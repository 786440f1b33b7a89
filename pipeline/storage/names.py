"""What label images, instances and probabilities are called in an output."""

from segment_slide.pipeline.errors import OutputError


def instances_name(name: str) -> str:
    """Name of the instance image that belongs to a class map."""
    return f"{name}-instances"


def instance_group(name: str) -> str:
    """Path of that image in its output."""
    return label_group(instances_name(name))


def label_group(name: str) -> str:
    """Path of a label image in its output."""
    return f"labels/{name}"


def probability_group(name: str) -> str:
    """Path of the probabilities that belong to a label image."""
    return f"probability/{name}"


def check_name(name: str) -> None:
    """Refuse a name of a label image that is not a plain name.

    Raises
    ------
    OutputError
        Saying which names are allowed.
    """
    if not all(c.isalnum() or c in "-_." for c in name) or name.startswith((".", "__")) or name in ("", "zarr.json"):
        raise OutputError(
            f"name={name!r}: expected letters, digits, '-', '_' or '.', not starting with '.' or '__' and not "
            f"'zarr.json'; Zarr keeps those for itself."
        )
