"""Commands that make an output again, go on with it, and open it, written out from its records."""

import shlex
from typing import Any

from segment_slide.pipeline.report.facts import DEFAULT_NAME, Facts
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.record import ATTRIBUTE


def command(*words: object) -> str:
    """A command line; whatever a shell would take for its own is quoted.

    >>> command("segment-slide", "view", "my slide.zarr")
    "segment-slide view 'my slide.zarr'"
    """
    return " ".join(shlex.quote(str(word)) for word in words)


def segment_command(facts: Facts) -> str | None:
    """What was run to make the classes; None if nothing says so."""
    record = facts.record
    image, model, chosen = (record.get(key) or {} for key in ("input", "model", "parameters"))
    if not (image.get("location") and model.get("path")):
        return None
    place = ["--in-place"] if is_in_place(facts) else ["--output", facts.location]
    words = ["segment-slide", "segment", image["location"], "--model", model["path"], *place, *_name(facts)]
    words += [f"--{key}={chosen[key]}" for key in ("block", "tile", "precision", "device") if chosen.get(key)]
    words += [f"--{key}={chosen[key]}" for key in ("tta", "probabilities") if chosen.get(key, "none") != "none"]
    words += ["--skip-background"] if chosen.get("skip_background") else []
    words += [f"--level={image['level']}"] if image.get("level") else []
    words += [f"--axes={image['axes']}"] if _is_bare(image) else []
    words += _channels(image)
    words += [f"--{axis}={start}:{stop}" for axis, (start, stop) in (image.get("ranges") or {}).items()]
    return command(*words)


def begin_command(facts: Facts) -> str:
    """What would make it, as far as nothing but the place is known."""
    return command("segment-slide", "segment", "…", "--output", facts.location)


def instances_command(facts: Facts) -> str:
    """What was run to number the objects, or would have to be."""
    words = ["segment-slide", "instances", facts.location, *_name(facts)]
    chosen = facts.instance_record.get("parameters") or {}
    sizes = {"fill-holes": chosen.get("fill_holes_px"), "min-size": chosen.get("min_size_px")}
    words += [f"--{key}={value}px" for key, value in sizes.items() if value]
    words += [f"--split={chosen['split']}", f"--split-halo={chosen['split_halo']}"] if chosen.get("split") else []
    words += ["--regrow"] if chosen.get("regrow") else []
    words += [f"--connectivity={chosen['connectivity']}"] if chosen.get("connectivity", 1) != 1 else []
    words += [f"--{key}={chosen[key]}" for key in ("ndim", "block") if chosen.get(key)]
    return command(*words)


def measure_command(facts: Facts, *, shapes_only: bool = False) -> str:
    """What measures the objects; shapes alone if that is asked for, or the table has nothing else."""
    measured = facts.table is None or (facts.table.record.get("input") or {}).get("image")
    words = ["--no-image"] if shapes_only or not measured else []
    return command("segment-slide", "measure", facts.location, *_name(facts), *words)


def view_command(facts: Facts) -> str:
    """What opens the viewer."""
    return command("segment-slide", "view", facts.location, *_name(facts))


def napari_command(facts: Facts) -> str:
    """What opens napari."""
    image = (facts.record.get("input") or {}).get("location")
    others = [image] if image and not is_in_place(facts) else []
    return command("napari", "--plugin", "napari-ome-zarr", *others, facts.location)


def python_lines(facts: Facts) -> str:
    """How to open labels and table in Python."""
    array = store.join(facts.location, "labels", facts.name, facts.labels.array_path)
    lines = ["import zarr", f"classes = zarr.open_array({array!r}, mode='r')"]
    if facts.instances is not None:
        ids = store.join(facts.instances.location, facts.instances.array_path)
        lines.append(f"ids = zarr.open_array({ids!r}, mode='r')")
    if facts.table is not None and facts.has_table:
        lines += ["import pandas", f"objects = pandas.read_parquet({store.join(facts.location, facts.table.path)!r})"]
    return "\n".join(lines)


def is_in_place(facts: Facts) -> bool:
    """Whether the labels lie in the image's own store."""
    root: dict[str, Any] = store.read_attributes(facts.location) or {}
    return "multiscales" in root.get("ome", root) and "shows" not in (root.get(ATTRIBUTE) or {})


def _name(facts: Facts) -> list[str]:
    return [] if facts.name == DEFAULT_NAME else ["--name", facts.name]


def _is_bare(image: dict[str, Any]) -> bool:
    """Whether the input was a bare array, which does not say its axes."""
    return not image.get("array") and bool(image.get("axes"))


def _channels(image: dict[str, Any]) -> list[str]:
    axes, shape, chosen = image.get("axes") or "", image.get("shape") or (), image.get("channels") or ()
    n_channels = shape[axes.index("c")] if "c" in axes and len(shape) == len(axes) else 1
    return [] if list(chosen) == list(range(n_channels)) else [f"--channels={','.join(map(str, chosen))}"]
