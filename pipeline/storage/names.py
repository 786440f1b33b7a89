"""What label images, instances and probabilities are called in an output, and what a record calls other places."""

import os
import posixpath

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


def say_location(location: str, output: str) -> str:
    """What the record of an output calls another place: relative to the output if both are on one file system.

    So an output that is moved or copied together with its input finds it again, and its record is the same.

    Parameters
    ----------
    location, output : str
        Absolute paths, or URLs. The output need not exist yet.
    """
    if "://" in location or "://" in output or _device(location) != _device(output):
        return location
    relative = os.path.relpath(location, output)
    if os.path.realpath(find_location(relative, output)) != os.path.realpath(location):  # a link lies between
        relative = os.path.relpath(os.path.realpath(location), os.path.realpath(output))
    return relative


def find_location(recorded: str, output: str) -> str:
    """Where a place is that the record of an output names; never relative to the working directory.

    Another image may lie there by now: compare its fingerprint before it is used.

    >>> find_location("../slide.zarr", "/none/out.zarr"), find_location("../slide.zarr", "s3://bucket/a/out.zarr")
    ('/none/slide.zarr', 's3://bucket/a/slide.zarr')
    >>> find_location("/data/slide.zarr", "/none/out.zarr")
    '/data/slide.zarr'
    """
    if not recorded or "://" in recorded or os.path.isabs(recorded):
        return recorded
    if "://" not in output:
        return os.path.normpath(os.path.join(os.path.realpath(output), recorded))
    scheme, _, path = output.partition("://")
    host, _, inner = path.partition("/")
    return f"{scheme}://{host}{posixpath.normpath(posixpath.join('/', inner, recorded))}"


def _device(path: str) -> int:
    """Number of the file system that a path is on, or would be created on."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev
