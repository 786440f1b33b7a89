"""What OME-Zarr metadata hold, as the writers of `ome-zarr` make them in memory; nothing is stored.

They write key by key. A process that is killed between two writes would leave metadata that nobody recognises, so they
fill a group in memory, and `pipeline.storage.store` stores its attributes in one write. Keys are put in one order,
because equal runs of all versions of this package give equal bytes.

`ome-zarr` takes more than a second to import, so it is imported by what writes, and never by what reads.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

_GROUP = "image"


def write_multiscale(
    name: str,
    axes: Sequence[Mapping[str, str]],
    datasets: Sequence[Mapping[str, Any]],
    channels: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The "ome" attribute of an image.

    Parameters
    ----------
    name : str
        For people.
    axes, datasets : sequence of dict
        As in the specification of OME-Zarr 0.5.
    channels : sequence of dict, optional
        Channels of the "omero" block; without them there is none.
    """
    writer, version = _load()
    group = _new_group()
    omero = {"metadata": {"omero": {"channels": list(channels)}}} if channels else {}
    writer.write_multiscales_metadata(group, list(datasets), version, list(axes), name=name, **omero)
    found = dict(group.attrs["ome"])
    found["multiscales"] = [{**_in_order(found["multiscales"][0], ("name", "axes", "datasets")), "name": name}]
    return _in_order(found, ("version", "multiscales", "omero"))


def write_image_label(
    source: Mapping[str, str], properties: Sequence[Mapping[str, Any]], colors: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The "image-label" of a label image; its version is that of the "ome" attribute around it.

    Parameters
    ----------
    source : dict
        Where the image is.
    properties, colors : sequence of dict
        One per label value; may be empty.
    """
    writer, version = _load()
    group = _new_group()
    group.create_group(_GROUP)
    listed = {"colors": list(colors), "properties": list(properties)}
    given = {key: value for key, value in listed.items() if value}
    writer.write_label_metadata(group, _GROUP, fmt=version, source=dict(source), **given)
    found = group[_GROUP].attrs["ome"]["image-label"]
    return _in_order(found, ("source", "properties", "colors"))


def _load() -> tuple[Any, Any]:
    """The module of writers, and the version that they write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it warns of its own code
        from ome_zarr import writer
        from ome_zarr.format import FormatV05
    return writer, FormatV05()


def _new_group() -> Any:
    import zarr
    from zarr.storage import MemoryStore

    return zarr.create_group(MemoryStore(), zarr_format=3)


def _in_order(content: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The entries with these names, in this order."""
    return {name: content[name] for name in names if name in content}
