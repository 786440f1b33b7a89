"""The parts of a report that say what was found and how it looks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segment_slide.pipeline.measurement.page import class_rows
from segment_slide.pipeline.measurement.picture import number
from segment_slide.pipeline.report.commands import measure_command
from segment_slide.pipeline.report.estimate import ClassAreas
from segment_slide.pipeline.report.facts import Facts
from segment_slide.pipeline.report.html import Markup, block, count, join, picture, table, tag, trusted
from segment_slide.pipeline.report.places import CountMap
from segment_slide.pipeline.report.plots import plot_counts, plot_heat, plot_intensities, plot_planes, plot_sizes
from segment_slide.pipeline.report.table import TableFacts
from segment_slide.pipeline.report.views import Shown, Sight
from segment_slide.pipeline.storage.calibration import calibrate_um

_MOST_NAMED = 4  # classes named in a sentence
_SMALL_MM = 0.01  # mm² or mm³ below which µm² or µm³ are used
_FEWEST_MAPPED = 20  # with fewer objects no density is shown
_TALL = 1.6  # height over width from which the picture's height is limited to the screen's


@dataclass(frozen=True)
class Extent:
    """How much was segmented, in units for people.

    Attributes
    ----------
    size : float
        Area or volume of one plane or time point.
    unit : str
        "mm²", "mm³", "µm²", "µm³"; "Mpx" where the pixel size is unknown.
    n_planes : int
        Number of planes or time points.
    per : str
        What `n_planes` counts: "plane", "time point", "plane and time".
    """

    size: float
    unit: str
    n_planes: int = 1
    per: str = ""

    @property
    def total(self) -> float:
        """Area or volume of all planes together."""
        return self.size * self.n_planes

    def __str__(self) -> str:
        several = "" if self.n_planes == 1 else f" × {count(self.n_planes, self.per)}"
        return f"{number(self.size)} {self.unit}{several}"


@dataclass(frozen=True, eq=False)
class Content:
    """What is known of the result: a table, else an estimate, else nothing."""

    facts: Facts
    table: TableFacts | None
    areas: ClassAreas | None
    sight: Sight | None
    shown: Sequence[Shown] = ()

    @property
    def extent(self) -> Extent:
        """How much was segmented."""
        labels = self.facts.labels
        record = self.facts.instance_record
        ndim = (record.parameters.ndim if record else 0) or len(labels.axes.lstrip("t"))
        ndim = min(max(int(ndim), 2), 3)
        planes = [axis for axis in labels.axes if axis == "t" or (axis == "z" and ndim == 2)]
        n_planes = math.prod(labels.size(axis) for axis in planes)
        several = [axis for axis in planes if labels.size(axis) > 1]
        per = {"z": "plane", "t": "time point"}.get("".join(several), "plane and time")
        known = calibrate_um(labels, ndim)
        pixels = math.prod(labels.shape) / n_planes
        if known is None:
            return Extent(pixels / 1e6, "Mpx", n_planes, per)
        size_um, power = pixels * known.voxel, "²" if ndim == 2 else "³"
        if size_um < _SMALL_MM * 1000.0**ndim:
            return Extent(size_um, f"µm{power}", n_planes, per)
        return Extent(size_um / 1000.0**ndim, f"mm{power}", n_planes, per)


def lead(content: Content) -> str:
    """Say in one sentence what was found."""
    facts, extent = content.facts, content.extent
    if not facts.is_complete and facts.n_blocks_done < facts.n_blocks:
        share = facts.n_blocks_done / facts.n_blocks
        done = f"{facts.n_blocks_done:,} of {count(facts.n_blocks, 'block')}"
        return f"{done} {'is' if facts.n_blocks_done == 1 else 'are'} segmented so far ({percent(share, 0)})."
    within = f"{extent} of image{_glass(facts, extent)}"
    if content.table is not None:
        summary = content.table.summary
        found = summary.all
        if not found.n_objects:
            return f"No objects in {within}."
        return (
            f"{count(found.n_objects, 'object')} in {within}: {number(found.density)} per {summary.density_unit}. "
            f"They cover {percent(found.covered)} of it; their median {summary.size_name} is "
            f"{number(found.quartiles[1])} {summary.size_unit}."
        )
    if facts.n_objects is not None:
        density = f": {number(facts.n_objects / extent.total)} per {extent.unit}" if facts.n_objects else ""
        return f"{count(facts.n_objects, 'object')} in {within}{density}."
    if content.areas is not None:
        return _lead_areas(content, within)
    return f"{within} segmented."


def _lead_areas(content: Content, within: str) -> str:
    areas = content.areas
    if areas is None or not areas.shares:
        return f"Nothing but background in {within}."
    names = _class_names(content)
    about = "" if areas.is_exact else "about "
    shares = list(areas.shares.items())
    parts = [f"{names.get(value, f'class {value}')} {about}{percent(share)}" for value, share in shares[:_MOST_NAMED]]
    more = len(shares) - _MOST_NAMED
    ending = f" and {more:,} more" if more > 0 else ""
    return f"Of {within}: {', '.join(parts)}{ending}."


def _glass(facts: Facts, extent: Extent) -> str:
    """What else counts as area."""
    if facts.record and facts.record.parameters.skip_background:
        return ", glass included, and the blocks of it that were left out"
    return "" if extent.unit.endswith("³") else ", glass included"


def percent(share: float, digits: int = 1) -> str:
    """A share as text; a share above 0 is never shown as 0.

    >>> percent(0.1234), percent(0.0), percent(0.0001), percent(0.0001, 2)
    ('12.3%', '0.0%', '< 0.1%', '0.01%')
    """
    least = 10.0**-digits
    return f"< {least:.{digits}f}%" if 0 < 100 * share < least / 2 else f"{share:.{digits}%}"


def tiles(content: Content) -> Markup:
    """Show the most important numbers in large type."""
    extent, facts = content.extent, content.facts
    found = [(str(extent), "of image")]
    if content.table is not None and content.table.summary.all.n_objects:
        summary = content.table.summary
        low, median, high = map(number, summary.all.quartiles)
        found = [
            (f"{summary.all.n_objects:,}", "object" if summary.all.n_objects == 1 else "objects"),
            (number(summary.all.density), f"per {summary.density_unit}"),
            (f"{median} {summary.size_unit}", f"median {summary.size_name} (quartiles {low} – {high})"),
            (percent(summary.all.covered), "of the image covered"),
            *found,
        ]
    elif facts.n_objects is not None:
        found.insert(0, (f"{facts.n_objects:,}", "object" if facts.n_objects == 1 else "objects"))
    return tag(
        "div", *(tag("div", tag("b", value), tag("span", what), class_="tile") for value, what in found), class_="tiles"
    )


def pictures(content: Content) -> Markup:
    """Show the whole image and closer parts, each with its labels drawn over it."""
    if content.sight is None or not content.shown:
        return join()
    sight = content.sight
    parts: list[Markup] = []
    if not sight.image:
        text = "The segmented image was moved, deleted or replaced: labels are drawn alone."
        parts.append(tag("p", text, class_="note"))
    if sight.shown_plane:
        parts.append(tag("p", f"Pictures show {sight.shown_plane}.", class_="note"))
    named = [(sight.colours[value], name) for value, name in sight.names.items() if value in sight.colours]
    if named:
        items = [join(_swatch(colour), name) for colour, name in named]
        parts.append(tag("div", *(tag("span", item) for item in items), class_="legend"))
    return join(*parts, *(_figure(shown) for shown in content.shown))


def _figure(shown: Shown) -> Markup:
    drawn = shown.drawn
    what = "each object in a colour of its own" if shown.by_object else "classes in their colours"
    pair = [picture(drawn.shown, f"{shown.title}: {what}", drawn.size)]
    if drawn.plain is not None:
        pair.insert(0, picture(drawn.plain, f"{shown.title}: the image", drawn.size))
    right = f" Right: {what}." if drawn.plain is not None and shown.by_object else ""
    nothing = "" if len(drawn.values) else " Nothing was found here."
    kind = "pair" + (" alone" if len(pair) == 1 else "") + (" tall" if drawn.size[0] > _TALL * drawn.size[1] else "")
    caption = tag("figcaption", tag("b", f"{shown.title}."), f" {shown.caption}{right}{nothing}")
    return tag("figure", tag("div", *pair, class_=kind), caption)


def _swatch(colour: Sequence[int]) -> Markup:
    return tag("span", class_="swatch", style=f"background:#{bytes(colour[:3]).hex()}")


def numbers(content: Content) -> Markup:
    """Show counts, sizes and intensities from the table; without a table, the areas of classes."""
    if content.table is None:
        return _areas(content)
    summary = content.table.summary
    heads, rows = class_rows(summary)
    parts = [table(heads, rows, has_total=len(summary.classes) > 1)]
    if not summary.all.n_objects:
        return join(*parts)
    plots = [plot_counts(summary)] if len(summary.classes) > 1 else []
    plots.append(plot_sizes(summary))
    plots += [plot_intensities(found, summary, f"i{k}") for k, found in enumerate(content.table.intensities)]
    parts.append(tag("div", *(tag("div", trusted(plot)) for plot in plots), class_="plots"))
    parts += [_intensity_table(content.table)] if content.table.intensities else []
    return join(*parts)


def _intensity_table(found: TableFacts) -> Markup:
    rows = [
        (of_class.name, *("" if math.isnan(one.means[row]) else number(one.means[row]) for one in found.intensities))
        for row, of_class in enumerate(found.summary.classes)
    ]
    more = found.n_channels - len(found.intensities)
    text = "Mean over objects of their mean intensity per channel, in the image's own values"
    text += f"; {count(more, 'more channel')} {'is' if more == 1 else 'are'} in the table." if more else "."
    heads = ("class", *(one.channel for one in found.intensities))
    return join(tag("p", text, class_="note"), table(heads, rows))


def _areas(content: Content) -> Markup:
    areas, facts = content.areas, content.facts
    how = block(measure_command(facts))
    if areas is None:
        return join(
            tag("p", "Objects are not measured (yet), and the labels have no level small enough to count.")
            if facts.is_complete
            else tag("p", "Numbers follow when all blocks are done.")
        )
    names = _class_names(content)
    rows = [(names.get(value, f"class {value}"), percent(share, 2)) for value, share in areas.shares.items()]
    if areas.is_exact:
        text = "Counted in all pixels of the label image."
    else:
        text = f"Estimated: counted in every {areas.step:.3g}th pixel along x and y, in a coarser level of the labels."
    return join(
        table(("class", "of the image"), rows or [("background alone", "")]),
        tag("p", text, " Numbers, sizes and intensities of all objects come from:", class_="note"),
        how,
    )


def _class_names(content: Content) -> dict[int, str]:
    return dict(enumerate(content.facts.class_names))


def density(content: Content) -> Markup:
    """Show where objects are: over the plane, and along z or t."""
    plots, sight = [], content.sight
    axis = ""
    if content.table is not None and content.table.summary.all.n_objects >= _FEWEST_MAPPED:
        plots.append(_heat(content, content.table.places))
    if content.table is not None and content.table.per_plane is not None and content.table.summary.all.n_objects:
        axis = content.table.plane_axis
        plots.append(
            plot_planes(content.table.per_plane, axis, "Objects", shown=sight.plane.get(axis) if sight else None)
        )
    elif content.areas is not None and content.areas.per_plane is not None:
        axis = content.areas.plane_axis
        plots.append(plot_planes(content.areas.per_plane, axis, "Share of classes", shown=None, is_share=True))
    if not plots:
        return join()
    is_mapped = content.table is not None and content.table.summary.all.n_objects >= _FEWEST_MAPPED
    n_planes, per = content.extent.n_planes, content.extent.per
    notes = ["Centroids of all objects" + (", of all planes together." if axis == "z" and n_planes == 1 else ".")]
    notes += [f"Densities are means over {count(n_planes, per)}."] if n_planes > 1 else []
    notes = notes if is_mapped else []
    if axis and content.table:
        notes.append(
            "An object is counted in each plane that it reaches; the dotted line is the plane of the pictures."
        )
    shown = tag("div", *(tag("div", trusted(plot)) for plot in plots), class_="plots")
    return join(tag("h2", "Where they are"), shown, tag("p", " ".join(notes), class_="note") if notes else "")


def _heat(content: Content, places: CountMap) -> str:
    labels = content.facts.labels
    known, n_planes = calibrate_um(labels, 2), content.extent.n_planes
    if known is None:
        return plot_heat(places, (1.0, 1.0), unit="px", density_factor=1e6 / n_planes, density="Mpx")
    scale = known.scale[-2], known.scale[-1]
    per_mm2 = 1e6 / (scale[0] * scale[1])
    longest_um = max(size * step for size, step in zip(places.size, scale, strict=True))
    unit, factor = ("mm", 1000.0) if longest_um >= 2000 else ("µm", 1.0)
    shown = scale[0] / factor, scale[1] / factor
    return plot_heat(places, shown, unit=unit, density_factor=per_mm2 / n_planes, density="mm²")
