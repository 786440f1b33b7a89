"""The parts of a report that say what made an output, how long it took, and how to open it or make it again."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from segment_slide.pipeline.measurement.standing import Standing
from segment_slide.pipeline.metadata.units import seconds_per, um_per
from segment_slide.pipeline.report.commands import (
    begin_command,
    find_channel_names,
    instances_command,
    is_in_place,
    measure_command,
    napari_command,
    python_lines,
    segment_command,
    view_command,
)
from segment_slide.pipeline.report.facts import Facts
from segment_slide.pipeline.report.html import Markup, block, code, count, join, table, tag
from segment_slide.pipeline.report.html import facts as list_facts
from segment_slide.pipeline.report.times import Span, show_time
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.label_records import Model, SegmentedInput
from segment_slide.pipeline.storage.names import find_location, instance_group
from segment_slide.pipeline.storage.record import Code
from segment_slide.pipeline.storage.sections import write_section
from segment_slide.unet.checkpoint import Checkpoint
from segment_slide.unet.errors import UnetError
from segment_slide.unet.open_network import StoredNetwork, open_network

_NO_TIME = "0.0 s"  # a stage that had nothing to do


def missing(facts: Facts, *, has_image: bool) -> list[tuple[str, str]]:
    """List what is missing, each with the command that makes it."""
    again = segment_command(facts) or begin_command(facts)
    left = facts.n_blocks - facts.n_blocks_done
    if left:
        verb = "is" if left == 1 else "are"
        return [
            (f"{left:,} of {count(facts.n_blocks, 'block')} {verb} not segmented. The same command goes on:", again)
        ]
    found = []
    if facts.n_coarse_missing:
        n, verb = facts.n_coarse_missing, "is" if facts.n_coarse_missing == 1 else "are"
        text = f"{count(n, 'file')} of the coarser resolutions {verb} missing. The same command goes on:"
        found.append((text, again))
    return found + _missing_objects(facts, has_image=has_image)


def _missing_objects(facts: Facts, *, has_image: bool) -> list[tuple[str, str]]:
    """Say whether ids or table come first; parts that belong to another state of the output must be deleted before."""
    state = facts.objects
    ids = instance_group(facts.name)
    if facts.instances is None:
        said = {
            Standing.NONE: "Objects are not numbered:",
            Standing.INCOMPLETE: "The numbering of objects is not complete:",
            Standing.OTHER: "Objects were numbered in other classes than are there now. Delete "
            f"{ids} and {state.path}, then number them anew:",
        }
        return [(said[state.instances], instances_command(facts))]
    if facts.has_table:
        return []
    said = {
        Standing.NONE: "Objects are not measured:",
        Standing.INCOMPLETE: "The table of objects is not complete:",
        Standing.OTHER: f"The table is of other objects than are there now. Delete {state.path}, then measure anew:",
    }
    text = measure_command(facts) if has_image else measure_command(facts, shapes_only=True)
    return [(said[state.table], text)]


def todo(found: Sequence[tuple[str, str]]) -> Markup:
    """Show what is missing at the top of the page."""
    if not found:
        return join()
    return tag("div", tag("ul", *(tag("li", text, block(line)) for text, line in found)), class_="todo")


def times(spans: Sequence[Span], seconds: Mapping[str, float]) -> Markup:
    """Say how long the work took."""
    parts: list[Markup] = []
    rows = [(name, show_seconds(value)) for name, value in seconds.items() if show_seconds(value) != _NO_TIME]
    if rows:
        parts += [table(("stage", "time"), [*rows, ("all", show_seconds(sum(seconds.values())))], has_total=True)]
        parts += [tag("p", "As measured by the run that finished the output.", class_="note")]
    if spans:
        heads = ("written", "first file", "last file", "files", "between", "Mpx/s")
        parts.append(table(heads, [_span_row(span) for span in spans], n_words=3))
        text = (
            "Taken from the times of the files: from the end of the first block to the end of the last, including the "
            "pauses of an interrupted run. A copy of the output may have other times."
        )
        parts.append(tag("p", text, class_="note"))
    return join(*parts) if parts else tag("p", "There is no record of how long it took.", class_="note")


def _span_row(span: Span) -> tuple[str, ...]:
    rate = f"{span.n_pixels / span.seconds / 1e6:.2f}" if span.n_pixels and span.seconds >= 1 else ""
    return (
        span.what,
        show_time(span.first_s),
        show_time(span.last_s),
        f"{span.n_files:,}",
        show_seconds(span.seconds),
        rate,
    )


def show_seconds(seconds: float) -> str:
    """A duration in words.

    >>> show_seconds(8.25), show_seconds(125), show_seconds(7300)
    ('8.2 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def origin(facts: Facts) -> Markup:
    """Show input, model, parameters and code version."""
    record = facts.record
    if record is None:
        return tag("p", "The classes were not made by segment-slide; nothing tells where they come from.")
    sections: dict[str, list[tuple[object, object]]] = {
        "Image": _image_rows(facts, record.input or SegmentedInput()),
        "Model": _model_rows(record.model or Model(), facts.location),
        "Parameters": _parameter_rows(facts),
        "Code": [
            *((name, code(str(value))) for name, value in write_section(record.code or Code(read_from={})).items()),
            *(("processor", use.text) for use in record.processors),
        ],
    }
    return join(*(join(tag("h3", title), list_facts(rows)) for title, rows in sections.items() if rows))


def _image_rows(facts: Facts, found: SegmentedInput) -> list[tuple[object, object]]:
    rows: list[tuple[object, object]] = [("path", code(find_location(found.location, facts.location) or "unknown"))]
    if found.shape and found.axes:
        rows.append(("shape", f"{' × '.join(f'{size:,}' for size in found.shape)} ({found.axes}), {found.dtype}"))
    steps = _pixel_size(facts)
    rows.append(("pixel size", steps or "unknown"))
    if found.level is not None:
        rows.append(("level", f"{found.level}" + (" (the finest)" if found.level == 0 else "")))
    if found.channels:
        rows.append(("channels", _channels(found, facts.location)))
    rows += [(axis, f"{start} to {stop - 1}") for axis, (start, stop) in found.planes.items()]
    rows += [("fingerprint", code(found.fingerprint))] if found.fingerprint else []
    repaired = found.repaired_from
    rows += (
        [("repaired", f"{count(len(repaired), 'time')}: damaged chunks were replaced while it was segmented")]
        if repaired
        else []
    )
    return rows


def _pixel_size(facts: Facts) -> str:
    image = facts.labels
    level = image.multiscale.levels[image.level]
    steps = zip(image.axes, level.scale, image.multiscale.units, strict=True)
    shown = []
    for axis, step, unit in steps:
        factor, symbol = (seconds_per(unit), "s") if axis == "t" else (um_per(unit), "µm")
        shown += [f"{axis} {step * factor:.4g} {symbol}"] if factor and step > 0 else []
    return ", ".join(shown)


def _channels(found: SegmentedInput, location: str) -> str:
    """Numbers, with their names if the image is still there."""
    names = find_channel_names(found, location)
    return ", ".join(f"{k} {names[k]}" if k < len(names) else str(k) for k in found.channels)


def _model_rows(model: Model, output: str) -> list[tuple[object, object]]:
    rows: list[tuple[object, object]] = [("file", code(model.path or "unknown"))]
    rows += [("sha256", code(model.sha256))] if model.sha256 else []
    classes = model.classes
    rows += [("classes", ", ".join(f"{value} {name}" for value, name in enumerate(classes)))] if classes else []
    checkpoint = _find_network(model, output)
    if checkpoint is None:
        return [*rows, ("network", "no such file lies beside the output, or it has changed")]
    if not isinstance(checkpoint, Checkpoint):
        return [*rows, *_imported_rows(checkpoint)]
    network, training = checkpoint.config.architecture, checkpoint.config.training
    about = (
        f"U-Net {network.ndim}D, depth {network.depth}, base {network.base_channels}, "
        f"{network.n_parameters:,} parameters"
    )
    rows.append(("network", about))
    if checkpoint.config.pixel_size_um:
        rows.append(
            ("trained at", " × ".join(f"{size:g}" for size in checkpoint.config.pixel_size_um) + " µm per pixel")
        )
    return [*rows, *((f"training {key}", _shorten(_plain(value))) for key, value in sorted(training.items()))]


def _shorten(text: str, most: int = 240) -> str:
    return text if len(text) <= most else f"{text[:most]} …"


def _imported_rows(network: StoredNetwork) -> list[tuple[object, object]]:
    """Of a network of another program: where it came from, and what was measured of it."""
    described = network.description
    context = "; ".join(f"stride {axis.stride} px, halo {axis.halo} px" for axis in described.axes[:1])
    return [
        ("network", f"{described.summary}, {described.n_parameters:,} parameters"),
        ("measured context", f"{context}: tiles give the whole image's result"),
        ("normalised by", network.config.normalisation.kind),
    ]


def _find_network(model: Model, output: str) -> StoredNetwork | None:
    """The network beside the output, or where an older version recorded it, if it is the one."""
    path = find_location(f"../{model.path}" if model.path and not os.path.isabs(model.path) else model.path, output)
    if not path or store.is_remote(path) or not Path(path).is_file():
        return None
    try:
        network = open_network(path)
        return network if network.sha256 == model.sha256 else None
    except (UnetError, OSError):
        return None


def _parameter_rows(facts: Facts) -> list[tuple[object, object]]:
    rows: list[tuple[object, object]] = []
    for title, record in (("segment", facts.record), ("instances", facts.instance_record)):
        chosen = write_section(record.parameters) if record else {}
        text = ", ".join(f"{key} {_plain(value)}" for key, value in chosen.items() if value not in ("", None))
        rows += [(title, text)] if text else []
    if facts.instance_record and facts.instance_record.from_model:
        rows.append(("from the model", ", ".join(facts.instance_record.from_model)))
    normalisation = facts.record and facts.record.normalisation
    if normalisation:
        constants = {"offset": normalisation.offset, "scale": normalisation.scale}
        ends = "; ".join(f"{key} {', '.join(f'{value:.4g}' for value in some)}" for key, some in constants.items())
        rows.append(("normalisation", f"{normalisation.kind}: {ends}"))
    return rows


def _plain(value: object) -> str:
    """Numbers, lists and mappings as people write them."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)


def opening(facts: Facts) -> Markup:
    """Say how to look at the output."""
    parts = [
        tag("h3", "In a browser"),
        block(view_command(facts)),
        tag("h3", "In napari"),
        block(napari_command(facts)),
    ]
    return join(*parts, tag("h3", "In Python"), block(python_lines(facts)))


def again(facts: Facts) -> Markup:
    """Show command lines that make the same bytes again."""
    lines = [segment_command(facts)] if facts.record else []
    lines += [instances_command(facts)] if facts.instance_record else []
    lines += [measure_command(facts)] if facts.has_table else []
    target = "the image's own store" if is_in_place(facts) else "another output"
    text = (
        f"The same image, model and parameters give the same bytes, in {target} too." if not is_in_place(facts) else ""
    )
    return join(block("\n".join(line for line in lines if line)), tag("p", text, class_="note") if text else "")
