"""The page that a browser opens: neuroglancer's page, with our script and a policy that allows only its own host."""

import html
import importlib.metadata
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from segment_slide.pipeline.documents.page import policy_tag
from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.plain_text import neutralise
from segment_slide.pipeline.viewer.place import World
from segment_slide.pipeline.viewer.site import POLICY

_PANEL_PX = 340  # width of the list of objects at the right
_OBLIQUE = (0.31, -0.34, -0.12, 0.88)  # quaternion: seen from the front, turned so that three planes are visible
_MARGIN = 1.04  # the view is this much wider than the specimen
_SYMBOLS = {"micrometer": "um", "second": "s"}  # as the viewer writes them
_HIDDEN = ("showEditStateButton", "showToolPaletteButton", "showSettingsButton", "showAnnotationToolStatus")
# On a slide the wheel zooms, as in every slide viewer. In a stack of planes, Ctrl and the wheel change the plane.
_SLIDE_KEYS = {"at:wheel": "zoom-via-wheel", "at:control+wheel": "z+1-via-wheel", "at:shift+wheel": "z+1-via-wheel"}

_TITLE = "<title>neuroglancer</title>"  # our own title replaces it
# Hidden: the button that adds layers (all layers come from this site), and with one plane the switch between panels.
# Narrow: measurements, because the client prints all digits of a 64-bit number although they have 32 bits.
_STYLE = (
    ".neuroglancer-layer-add-button { display: none !important }"
    ".neuroglancer-layer-panel { max-height: 25vh; overflow: auto }"  # dozens of channels would leave no room
    ".neuroglancer-selection-details-segment-property-value, .neuroglancer-segment-list-entry-extra-property"
    " { max-width: 11ch; margin-left: auto; overflow: hidden; text-overflow: ellipsis }"
)
_PLANE_STYLE = (
    ".neuroglancer-data-panel-layout-controls, .neuroglancer-display-dimensions-widget { display: none !important }"
)


def make_page(title: str, *, is_volume: bool) -> bytes:
    """Make ``index.html``: neuroglancer's page, with our script before its own.

    The policy in it holds wherever the files are hosted: scripts, pictures and data must come from the same host.
    WebAssembly is allowed because it decodes chunks; inline styles, because the client builds its styles at run time.

    Parameters
    ----------
    title : str
        Title of the browser's tab.
    is_volume : bool
        Whether the page shows more than one panel.

    Raises
    ------
    PipelineError
        If the page of the installed neuroglancer has another form: without our script it would show nothing.
    """
    client = importlib.resources.files("neuroglancer.static") / "client" / "index.html"
    page = client.read_text(encoding="utf-8")
    if page.count(_TITLE) != 1:
        version = importlib.metadata.version("neuroglancer")
        raise PipelineError(
            f"neuroglancer {version} has a page in which {_TITLE} is not there exactly once, so that the viewer cannot "
            f"be built around it; install the version that segment-slide asks for: pip install -U segment-slide."
        )
    style = _STYLE if is_volume else _STYLE + _PLANE_STYLE
    head = (
        f"{policy_tag(POLICY)}"
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{html.escape(neutralise(title))}</title><style>{style}</style>"
        '<script defer src="view.js"></script>'
    )
    return page.replace(_TITLE, head).encode(errors="backslashreplace")  # of names in no encoding


def make_script(state: Mapping[str, Any], config: Mapping[str, Any], extent: Mapping[str, Any]) -> bytes:
    """Make ``view.js``: what is shown at first.

    Parameters
    ----------
    state : mapping
        neuroglancer's state, without zoom; sources are relative to the page and begin with "@".
    config : mapping
        What the client would otherwise get from a server: keys, buttons.
    extent : mapping
        What has to fit into the window; the zoom is computed from it.
    """
    view = json.dumps(_mend({"state": state, "config": config, "extent": extent}))
    script = importlib.resources.files("segment_slide.pipeline.viewer") / "view.js"
    return f"const VIEW = {view};\n{script.read_text(encoding='utf-8')}".encode()


def _mend(value: Any) -> Any:
    """The same JSON, without control characters in its texts: names of channels come from files."""
    if isinstance(value, str):
        return neutralise(value)
    if isinstance(value, Mapping):
        return {key: _mend(item) for key, item in value.items()}
    return [_mend(item) for item in value] if isinstance(value, list | tuple) else value


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
    """Make neuroglancer's first state, without the zoom, which depends on the window.

    Parameters
    ----------
    title : str
        Title of the browser's tab.
    layers : sequence
        Layers from the lowest to the highest.
    world : World
        The grid whose voxels are the unit of positions.
    position : mapping of str to int
        Time and plane.
    is_volume : bool
        Whether to show three planes and a view from outside, instead of one plane.
    is_bright : bool
        Whether the background is white, as for a slide in transmitted light.
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
        state["selection"] = {"visible": True, "row": 1, "size": _PANEL_PX}  # of the object under the mouse
    return state


def _dimension(world: World, axis: str) -> list[Any]:
    """Size of a voxel and its unit, in the viewer's form; without a unit it counts pixels."""
    scale, unit = world.scale[axis], world.units[axis]
    return [scale, "" if unit is None else _SYMBOLS[unit]]


def make_config(world: World, *, is_volume: bool) -> dict[str, Any]:
    """Make what neuroglancer would get from its Python server: keys, and which buttons there are."""
    keys: dict[str, Any] = {} if is_volume else {"sliceView": _SLIDE_KEYS}
    return {"inputEventBindings": keys, **dict.fromkeys(_HIDDEN, False)}


def make_extent(world: World, *, is_volume: bool, has_panel: bool) -> dict[str, Any]:
    """Return what has to fit into the window, in sides of the smallest voxel, and whether their size is known."""
    sides = {axis: world.base.size(axis) * world.side(axis) if axis in world.axes else 1.0 for axis in "xyz"}
    return {
        **sides,
        "side_px": _PANEL_PX if has_panel else 0,
        "is_volume": is_volume,
        "margin": _MARGIN,
        "has_units": world.units["x"] is not None,
    }
