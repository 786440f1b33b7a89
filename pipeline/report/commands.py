"""Command lines that make an output again, continue it, or open it, written from its records."""

import shlex

from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.metadata.channels import say_channels
from segment_slide.pipeline.recorded.addresses import may_open
from segment_slide.pipeline.report.facts import DEFAULT_NAME, Facts
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.label_records import InstanceParameters, SegmentedInput
from segment_slide.pipeline.storage.names import find_location
from segment_slide.pipeline.storage.place import holds_image
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.unet.options import write_words


def command(*words: object) -> str:
    """Join words to a command line; words with special characters are quoted for the shell.

    >>> command("segment-slide", "view", "my slide.zarr")
    "segment-slide view 'my slide.zarr'"
    """
    return " ".join(map(_quote, map(str, words)))


def _quote(word: str) -> str:
    """A word for the shell; bytes of a path that are no text are written as bash reads them."""
    if not any("\udc80" <= character <= "\udcff" for character in word):
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(f"\\x{ord(c) - 0xDC00:x}" if "\udc80" <= c <= "\udcff" else c for c in escaped) + "'"


def segment_command(facts: Facts) -> str | None:
    """Return the command that made the classes; None if no record says so."""
    record = facts.record
    if record is None or record.input is None or record.model is None:
        return None
    image, model, chosen = record.input, record.model, record.parameters
    if not (image.location and model.path):
        return None
    source = find_location(image.location, facts.location)
    place = ["--in-place"] if is_in_place(facts) else ["--output", facts.location]
    words = ["segment-slide", "segment", source, "--model", model.path, *place, *_name(facts)]
    words += [word for key, value in write_section(chosen).items() for word in _option(key, value)]
    words += [f"--level={image.level}"] if image.level else []
    words += [f"--axes={image.axes}"] if _is_bare(image) else []
    words += _channels(image, facts.location)
    words += [f"--{axis}={start}:{stop}" for axis, (start, stop) in image.planes.items()]
    return command(*words)


def _option(key: str, value: object) -> list[str]:
    """The option that sets a recorded parameter; nothing for what is off, unknown, or taken from the output itself."""
    if key in ("chunk", "processor") or value in (None, "", 0, False, "none"):
        return []
    flag = f"--{key.replace('_', '-')}"
    return [flag if value is True else f"{flag}={value}"]


def begin_command(facts: Facts) -> str:
    """What would make it, as far as nothing but the place is known."""
    return command("segment-slide", "segment", "…", "--output", facts.location)


def instances_command(facts: Facts, chosen: InstanceParameters | None = None, output: str = "") -> str:
    """Return the command that numbered the objects, or that would number them as chosen, into an output."""
    words = ["segment-slide", "instances", facts.location, *_name(facts)]
    words += ["--output", output] if output else []
    if chosen is None:
        chosen = facts.instance_record.parameters if facts.instance_record else InstanceParameters()
    sizes = {"fill-holes": chosen.fill_holes_px, "min-size": chosen.min_size_px}
    words += [f"--{key}={value}px" for key, value in sizes.items() if value]
    words += [f"--split={chosen.split}", f"--split-halo={chosen.split_halo}"] if chosen.split else []
    words += ["--regrow"] if chosen.regrow else []
    words += [f"--connectivity={chosen.connectivity}"] if chosen.connectivity != 1 else []
    words += [f"--{key}={value}" for key, value in (("ndim", chosen.ndim), ("block", chosen.block)) if value]
    return command(*words)


def measure_command(facts: Facts, *, shapes_only: bool = False) -> str:
    """What measures the objects; shapes alone if that is asked for, or the table has nothing else."""
    measured = facts.table is None or facts.table.record.input.image
    words = ["--no-image"] if shapes_only or not measured else []
    return command("segment-slide", "measure", facts.location, *_name(facts), *words)


def view_command(facts: Facts) -> str:
    """Return the command that opens the viewer."""
    return command("segment-slide", "view", facts.location, *_name(facts))


def napari_command(facts: Facts) -> str:
    """What opens napari."""
    image = facts.record and facts.record.input and find_location(facts.record.input.location, facts.location)
    others = [image] if image and not is_in_place(facts) else []
    return command("napari", "--plugin", "napari-ome-zarr", *others, facts.location)


def python_lines(facts: Facts) -> str:
    """Return Python lines that open labels and table."""
    array = store.join(facts.location, "labels", facts.name, facts.labels.array_path)
    lines = ["import zarr", f"classes = zarr.open_array({array!r}, mode='r')"]
    if facts.instances is not None:
        ids = store.join(facts.instances.location, facts.instances.array_path)
        lines.append(f"ids = zarr.open_array({ids!r}, mode='r')")
    if facts.table is not None and facts.has_table:
        folder = store.join(facts.location, facts.table.path)
        lines += ["import pyarrow.parquet", f"objects = pyarrow.parquet.read_table({folder!r})"]
    return "\n".join(lines)


def is_in_place(facts: Facts) -> bool:
    """Whether the labels lie in the image's own store."""
    return holds_image(facts.location)


def _name(facts: Facts) -> list[str]:
    return [] if facts.name == DEFAULT_NAME else ["--name", facts.name]


def _is_bare(image: SegmentedInput) -> bool:
    """Whether the input was a bare array, which does not say its axes."""
    return not image.array and bool(image.axes)


def find_channel_names(image: SegmentedInput, location: str) -> tuple[str, ...]:
    """Names of the channels of an input, if it is still there and has names; `location` is the output."""
    source = find_location(image.location, location)
    if not may_open(source, location):
        return ()
    try:
        return describe_image(source, level=image.level or 0).multiscale.channel_names
    except PipelineError:
        return ()


def _channels(image: SegmentedInput, location: str) -> list[str]:
    axes, shape, chosen = image.axes, image.shape, image.channels
    n_channels = shape[axes.index("c")] if "c" in axes and len(shape) == len(axes) else 1
    if list(chosen) == list(range(n_channels)):
        return []
    return [f"--channels={write_words(say_channels(chosen, n_channels, find_channel_names(image, location)))}"]
