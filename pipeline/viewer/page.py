"""The page that a browser opens: neuroglancer's own, with what it shows and a rule: all comes from its own host."""

import html
import importlib.metadata
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any

from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.view_site import POLICY

_TITLE = "<title>neuroglancer</title>"  # what we put our own in the place of
# Other layers can only come from this site, and one plane needs no switch between arrangements of panels.
# Measurements are 32-bit numbers, of which the client writes all digits that a 64-bit one would have.
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
    """``index.html``: neuroglancer's page, our script before its own.

    The policy in it holds wherever the files are hosted: scripts, pictures and data come from the same host, or not at
    all. WebAssembly is what decodes chunks; the client builds its styles at run time.

    Parameters
    ----------
    title : str
        What the browser's tab is called.
    is_volume : bool
        Whether there is more than one panel.

    Raises
    ------
    PipelineError
        If the installed neuroglancer has a page of another form: without our script it would show nothing.
    """
    client = importlib.resources.files("neuroglancer.static") / "client" / "index.html"
    page = client.read_text(encoding="utf-8")
    if page.count(_TITLE) != 1:
        version = importlib.metadata.version("neuroglancer")
        raise PipelineError(
            f"neuroglancer {version} has a page in which {_TITLE} is not there exactly once, so that the viewer cannot "
            f"be built around it; install the version that segment-slide asks for: pip install --upgrade segment-slide."
        )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{_STYLE if is_volume else _STYLE + _PLANE_STYLE}</style>"
        '<script defer src="view.js"></script>'
    )
    return page.replace(_TITLE, head).encode()


def make_script(state: Mapping[str, Any], config: Mapping[str, Any], extent: Mapping[str, Any]) -> bytes:
    """``view.js``: what is shown at first.

    Parameters
    ----------
    state : mapping
        neuroglancer's state, without zoom; sources are relative to the page and begin with "@".
    config : mapping
        What it takes from a server otherwise: keys, buttons.
    extent : mapping
        What has to fit into the window, from which the zoom follows.
    """
    view = json.dumps({"state": state, "config": config, "extent": extent})
    script = importlib.resources.files("segment_slide.pipeline") / "view.js"
    return f"const VIEW = {view};\n{script.read_text(encoding='utf-8')}".encode()
