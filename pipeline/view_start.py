"""How the viewer begins: which panels, where, which keys and buttons."""

from collections.abc import Mapping, Sequence
from typing import Any

from segment_slide.pipeline.viewer.place import World

_PANEL_PX = 340  # of the list of objects at the right
_OBLIQUE = (0.31, -0.34, -0.12, 0.88)  # quaternion: from the front, turned so that three planes are seen
_MARGIN = 1.04  # what is seen around the specimen
_SECONDS = {"second": (1.0, "s"), "millisecond": (1.0, "ms"), "minute": (60.0, "s"), "hour": (3600.0, "s")}
_HIDDEN = ("showEditStateButton", "showToolPaletteButton", "showSettingsButton", "showAnnotationToolStatus")
# On a slide the wheel zooms, as in every slide viewer; in a stack of planes Ctrl and the wheel go through them.
_SLIDE_KEYS = {"at:wheel": "zoom-via-wheel", "at:control+wheel": "z+1-via-wheel", "at:shift+wheel": "z+1-via-wheel"}


def make_state(
    title: str,
    layers: Sequence[Mapping[str, Any]],
    world: World,
    position: Mapping[str, int],
    *,
    is_volume: bool,
    is_bright: bool,
    selected: str | None,
) -> dict[str, Any]:
    """neuroglancer's state at first, but for the zoom, which depends on the window.

    Parameters
    ----------
    title : str
        Of the browser's tab.
    layers : sequence
        From the lowest to the highest.
    world : World
        Whose voxels are the unit of positions.
    position : mapping of str to int
        Time and plane.
    is_volume : bool
        Three planes and a view from outside, instead of one plane.
    is_bright : bool
        White around the image: a slide in transmitted light.
    selected : str, optional
        The layer whose objects are listed.
    """
    base = world.base
    axes = [axis for axis in "xyzt" if axis in world.axes]
    places = {axis: float(position[axis]) if axis in "zt" else (base.size(axis) - 1) / 2 for axis in axes}
    background = "#ffffff" if is_bright else "#000000"
    state: dict[str, Any] = {
        "title": title,
        "dimensions": {axis: _dimension(world, axis) for axis in axes},
        "position": [places[axis] for axis in axes],
        "displayDimensions": [axis for axis in axes if axis != "t"],  # zoom is counted in the smallest of them
        "layers": list(layers),
        "layout": "4panel-alt" if is_volume else "xy",
        "showAxisLines": False,
        "showDefaultAnnotations": False,
        "showScaleBar": True,
        "crossSectionBackgroundColor": background,
        "projectionBackgroundColor": background,
        "hideCrossSectionBackground3D": True,
    }
    if is_volume:
        state["projectionOrientation"] = list(_OBLIQUE)
    if selected is not None:
        state["selectedLayer"] = {"layer": selected, "visible": True, "size": _PANEL_PX, "flex": 2}
        state["selection"] = {"visible": True, "row": 1, "size": _PANEL_PX}  # what is known of what the mouse is on
    return state


def _dimension(world: World, axis: str) -> list[Any]:
    """Size of a voxel and its unit, as the viewer writes them; without a unit it counts pixels."""
    scale, unit = world.scale[axis], world.units[axis]
    if unit is None:
        return [scale, ""]
    factor, short = (1.0, "um") if unit == "micrometer" else _SECONDS.get(unit, (86400.0, "s"))
    return [scale * factor, short]


def make_config(world: World, *, is_volume: bool) -> dict[str, Any]:
    """What neuroglancer would take from its Python server: keys, and which buttons there are."""
    keys: dict[str, Any] = {} if is_volume else {"sliceView": _SLIDE_KEYS}
    return {"inputEventBindings": keys, **dict.fromkeys(_HIDDEN, False)}


def make_extent(world: World, *, is_volume: bool, has_panel: bool) -> dict[str, Any]:
    """What has to fit into the window, in sides of the smallest voxel; and whether these have a known size."""
    sides = {axis: world.base.size(axis) * world.side(axis) if axis in world.axes else 1.0 for axis in "xyz"}
    return {
        **sides,
        "side_px": _PANEL_PX if has_panel else 0,
        "is_volume": is_volume,
        "margin": _MARGIN,
        "has_units": world.units["x"] is not None,
    }
