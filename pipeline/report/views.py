"""Which parts of a slide a report shows, from the whole to single objects, and the text below each.

::

    whole                field around A        A: most objects     B: usually many
    ┌───────────────┐    ┌───────────────┐     ┌────────────┐      ┌────────────┐
    │   ┌──┐        │    │    A          │     │            │      │            │
    │   └──┘    B   │    │   □           │     │            │      │            │
    └───────────────┘    └───────────────┘     └────────────┘      └────────────┘
"""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np

from segment_slide.pipeline.errors import UnreadableChunkError
from segment_slide.pipeline.pictures.layer import Frame, Layer, crop
from segment_slide.pipeline.pictures.paint import Colour
from segment_slide.pipeline.pictures.thumbnail import find_image, read_key, sample, say_where
from segment_slide.pipeline.report.facts import Facts
from segment_slide.pipeline.report.pictures import Drawn, Mark, View, draw_view
from segment_slide.pipeline.report.places import CountMap, around, densest, typical
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.calibration import pixel_um
from segment_slide.pipeline.storage.image import StoredImage

log = logging.getLogger(__name__)

DETAIL_PX = 512
_SIDE_PX = 720
_COLOURED = 12  # label values that get a colour if their number is unknown
_FIELD_FROM_PX = 4 * DETAIL_PX  # of the longer side: a smaller image shows no level between whole and detail


@dataclass(frozen=True, eq=False)
class Shown:
    """One pair of pictures.

    Attributes
    ----------
    title : str
        The picture's letter and what it shows.
    caption : str
        Where it lies, how large it is, why it was chosen.
    drawn : Drawn
        The pictures.
    by_object : bool
        Whether each object has a colour of its own; otherwise each class has one.
    """

    title: str
    caption: str
    drawn: Drawn
    by_object: bool


@dataclass(frozen=True)
class Sight:
    """What can be shown of an output.

    Attributes
    ----------
    image : Layer or None
        None if the image does not exist any more.
    classes : Layer
        The class map.
    ids : Layer or None
        Ids of objects, if they are numbered on the same grid.
    colours, names : dict
        Colours and names of label values.
    """

    image: Layer | None
    classes: Layer
    ids: Layer | None
    colours: dict[int, Colour]
    names: dict[int, str]

    @property
    def plane(self) -> dict[str, int]:
        """Plane per axis ("t", "z") of the labels."""
        return dict(self.classes.plane)

    @property
    def shown_plane(self) -> str:
        """Say which plane of how many is shown; empty if there is only one."""
        return say_where(self.classes, _whole(self.classes.base)).removeprefix(", ")


def look(facts: Facts, notes: list[str] | None = None, image: str | None = None) -> Sight:
    """Find the image and the colours of classes. This reads one coarse level of the labels."""
    labels = facts.labels
    classes = Layer(labels, {"t": 0, "z": labels.size("z") // 2})
    frame = crop(_whole(labels), classes.choose_level(_whole(labels), _SIDE_PX), labels)
    try:
        seen = sample(classes, frame, (64, 64), _SIDE_PX)
    except UnreadableChunkError as error:  # the level only tells which classes need colours
        log.info("classes of %s could not be looked at", facts.location, exc_info=error)
        seen = np.arange(0 if facts.class_names else _COLOURED)
    colours, names = read_key(labels, facts.record, seen)
    ids = facts.instances
    fits = ids is not None and ids.axes == labels.axes and ids.shape == labels.shape
    recorded = facts.record.input if facts.record else None
    return Sight(
        image=find_image(facts.location, recorded, classes, notes, image) if recorded else None,
        classes=classes,
        ids=Layer(ids, classes.plane) if ids is not None and fits else None,
        colours=colours,
        names=names,
    )


def draw_all(facts: Facts, sight: Sight, places: CountMap | None, what: str, notes: list[str]) -> list[Shown]:
    """Draw the whole, a field in it, the place with the most objects, and a place with a usual number.

    Parameters
    ----------
    facts, sight
        The output.
    places : CountMap or None
        Counts in the plane that is shown; None if they are unknown: then the middle is shown.
    what : str
        What is counted: "objects", "pixels of objects".
    notes : list of str
        A sentence is added for each picture that is left out or drawn in part because a file is damaged.
    """
    labels = facts.labels
    whole = _whole(labels)
    layers = [sight.classes] if sight.image is None else [sight.image, sight.classes]
    for layer in layers:
        whole = crop(whole, layer.choose_level(whole, _SIDE_PX), labels)
    size = labels.size("y"), labels.size("x")
    first, why = _first_place(facts, places, what)
    second = None if places is None else typical(places, DETAIL_PX)
    if max(size) < 1.5 * DETAIL_PX:
        closer = [] if sight.ids is None else [_show(notes, sight, "Its objects", "", whole, [], close=True)]
        return _made([_show(notes, sight, "The whole", "", whole, []), *closer])
    details = [Mark("A", first), *([Mark("B", second)] if second is not None and not _meet(first, second) else [])]
    shown: list[Shown | None] = []
    if max(size) >= _FIELD_FROM_PX:
        field = around(first, round(math.sqrt(max(size) * DETAIL_PX)), size)
        shown.append(_show(notes, sight, "The whole", "", whole, [Mark("field", field), *details[1:]]))
        shown.append(
            _show(notes, sight, "A field", "Around A.", field, [mark for mark in details if _holds(field, mark.frame)])
        )
    else:
        shown.append(_show(notes, sight, "The whole", "", whole, details))
    reasons = [why, f"A typical place: of all places with {what}, half have fewer and half have more."]
    for mark, reason in zip(details, reasons, strict=False):
        shown.append(_show(notes, sight, f"Place {mark.letter}", reason, mark.frame, [], close=True))
    return _made(shown)


def _made(shown: list[Shown | None]) -> list[Shown]:
    return [one for one in shown if one is not None]


def _first_place(facts: Facts, places: CountMap | None, what: str) -> tuple[Frame, str]:
    size = facts.labels.size("y"), facts.labels.size("x")
    found = None if places is None else densest(places, DETAIL_PX)
    if found is not None:
        return found, f"The place with the most {what}: the hardest one, not the best one."
    middle = (size[0] / 2, size[1] / 2)
    why = "The middle of the image." if places is None else "The middle of the image: nothing was found anywhere."
    if facts.n_blocks_done < facts.n_blocks:
        blocks = sorted(store.stored_shards(facts.labels.location, facts.labels.array_path))
        if blocks:
            at = dict(zip(facts.labels.axes, blocks[len(blocks) // 2], strict=True))
            chunk = dict(zip(facts.labels.axes, facts.labels.chunks, strict=True))
            middle = ((at["y"] + 0.5) * chunk["y"], (at["x"] + 0.5) * chunk["x"])
            why = "The middle of a block that is done."
    point: Frame = {axis: (place, place) for axis, place in zip("yx", middle, strict=True)}
    return around(point, DETAIL_PX, size), why


def _show(
    notes: list[str], sight: Sight, title: str, why: str, frame: Frame, marks: list[Mark], *, close: bool = False
) -> Shown | None:
    labels = sight.ids if close and sight.ids is not None else sight.classes
    by_object = labels is sight.ids
    view = View(sight.image, labels, None if by_object else sight.colours, frame, _SIDE_PX, marks)
    caption = " ".join(part for part in (why, f"{_say_size(labels.base, frame)}{say_where(labels, frame)}.") if part)
    drawn = _draw(view, title, notes)
    if drawn is None:
        return None
    return Shown(title, caption.replace("central ", "", 1) if close or why else caption, drawn, by_object)


def _draw(view: View, title: str, notes: list[str]) -> Drawn | None:
    """Draw the pictures: labels alone if the image is damaged; None if the labels are."""
    try:
        return draw_view(view)
    except UnreadableChunkError as error:
        reason = error
    if view.image is not None:
        try:
            drawn = draw_view(replace(view, image=None))
        except UnreadableChunkError as error:
            reason = error
        else:
            notes.append(f"{title}: labels are drawn alone, for a file of the image is damaged: {reason}")
            return drawn
    notes.append(f"{title} is left out, for a file of the labels is damaged: {reason}")
    return None


def _say_size(base: StoredImage, frame: Frame) -> str:
    """Width and height of a frame, as text."""
    sizes = {axis: frame[axis][1] - frame[axis][0] for axis in "xy"}
    steps = {axis: pixel_um(base, axis) for axis in "xy"}
    if None in steps.values():
        return " × ".join(f"{sizes[axis]:,.0f}" for axis in "xy") + " px"
    lengths = [sizes[axis] * (steps[axis] or 0.0) for axis in "xy"]
    unit, factor = ("mm", 1000.0) if max(lengths) >= 1000 else ("µm", 1.0)
    return " × ".join(f"{length / factor:.3g}" for length in lengths) + f" {unit}"


def _whole(base: StoredImage) -> Frame:
    return {axis: (0.0, float(base.size(axis))) for axis in "yx"}


def _meet(one: Frame, other: Frame) -> bool:
    return all(one[a][0] < other[a][1] and other[a][0] < one[a][1] for a in "yx")


def _holds(outer: Frame, inner: Frame) -> bool:
    return all(outer[a][0] <= inner[a][0] and inner[a][1] <= outer[a][1] for a in "yx")
