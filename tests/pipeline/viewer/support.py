"""What tests of the viewer share: images with known pixels, a browser, and places between array and screen."""

import contextlib
import dataclasses
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from segment_slide.pipeline.viewer.handler import ViewHandler
from segment_slide.pipeline.viewer.server import serve
from segment_slide.pipeline.viewer.site import Site
from tests.browser import PATIENCE_MS

PATIENCE_S = 180
NOTE_TEXT = """{
    const draws = CanvasRenderingContext2D.prototype, fillText = draws.fillText;
    window.drawnTexts = [];
    draws.fillText = function (text, ...place) { drawnTexts.push(text); fillText.call(this, text, ...place); };
}"""
UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


# -- stores --------------------------------------------------------------------------------------------------


def write_image(
    path: Path,
    pixels: np.ndarray,
    axes: str,
    *,
    chunks: Sequence[int] = (),
    scale: Sequence[float] = (),
    start: Sequence[float] = (),
    units: dict[str, str | None] | None = None,
    n_levels: int = 1,
    version: str = "0.5",
    omero: dict[str, Any] | None = None,
    label: dict[str, Any] | None = None,
) -> Path:
    """An OME-Zarr image whose levels keep every second pixel along y and x, metadata written out by hand."""
    form = 3 if version == "0.5" else 2
    units = UNITS if units is None else units
    chunks = tuple(chunks) or tuple(min(64, side) if axis in "yx" else side if axis == "c" else 1
                                    for axis, side in zip(axes, pixels.shape, strict=True))  # fmt: skip
    scale, start = list(scale or [1.0] * len(axes)), list(start or [0.0] * len(axes))
    datasets = []
    for level in range(n_levels):
        step = 1 << level
        shown = pixels[..., ::step, ::step]
        sides = tuple(min(chunk, side) for chunk, side in zip(chunks, shown.shape, strict=True))
        separator = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if form == 2 else {}
        zarr.create_array(
            path / str(level), shape=shown.shape, chunks=sides, dtype=shown.dtype, zarr_format=form, **separator
        )[...] = shown
        steps = [value * step if axis in "yx" else value for axis, value in zip(axes, scale, strict=True)]
        transformations = [{"type": "scale", "scale": steps}, {"type": "translation", "translation": start}]
        datasets.append({"path": str(level), "coordinateTransformations": transformations})
    described = [{"name": a, "type": KINDS[a]} | ({"unit": units[a]} if units.get(a) else {}) for a in axes]
    ome: dict[str, Any] = {"multiscales": [{"axes": described, "datasets": datasets}]}
    ome |= {"omero": omero} if omero else {}
    ome |= {"image-label": label} if label is not None else {}
    if form == 3:
        content = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **ome}}}
        (path / "zarr.json").write_text(json.dumps(content))
    else:
        ome["multiscales"][0]["version"] = "0.4"
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(ome))
    return path


def list_labels(path: Path, *names: str, version: str = "0.5") -> None:
    """Name label images in the ``labels/`` of an image."""
    (path / "labels").mkdir(exist_ok=True)
    if version == "0.5":
        ome = {"version": "0.5", "labels": list(names)}
        content = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (path / "labels" / "zarr.json").write_text(json.dumps(content))
    else:
        (path / "labels" / ".zgroup").write_text('{"zarr_format": 2}')
        (path / "labels" / ".zattrs").write_text(json.dumps({"labels": list(names)}))


def read_view(site: Site) -> dict[str, Any]:
    """What ``view.js`` holds: state, config, extent."""
    first, _, _ = site.files["view.js"].decode().partition(";\n")
    return json.loads(first.removeprefix("const VIEW = "))


def layer_file(site: Site, name: str) -> str:
    """The file that describes a layer."""
    (layer,) = [layer for layer in read_view(site)["state"]["layers"] if layer["name"] == name]
    source = layer["source"] if isinstance(layer["source"], str) else layer["source"][0]
    folder = source[1:].split("|")[0]
    return next(path for path in (folder + "zarr.json", folder + ".zattrs") if path in site.files)


def change_layer(site: Site, name: str, change: Callable[[dict[str, Any]], None]) -> Site:
    """The site with another description of a layer's axes and levels."""
    path = layer_file(site, name)
    content = json.loads(site.files[path])
    attributes = content.get("attributes", content)
    change(attributes.get("ome", attributes)["multiscales"][0])
    return dataclasses.replace(site, files={**site.files, path: json.dumps(content).encode()})


# -- browser -------------------------------------------------------------------------------------------------


class Requests:
    """Paths that the server was asked for, since it was started."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count them."""
        prepare = ViewHandler.prepare

        def note(handler: ViewHandler) -> Any:
            self.paths.append(handler.request.path)
            return prepare(handler)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ViewHandler, "prepare", note)
            yield


class NeverSettledError(Exception):
    """The viewer shows nothing, or not yet: no evidence for what a test is about, in either direction."""


class Screen:
    """A viewer in a browser, and where array pixels lie on it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url
        self.served: list[str] = []
        self.requests: list[str] = []
        self.refused: list[tuple[str, str]] = []
        page.context.on("request", lambda request: self.requests.append(request.url))
        page.context.on("requestfailed", lambda request: self.refused.append((request.url, str(request.failure))))
        page.add_init_script(NOTE_TEXT)
        page.goto(url)
        self.settle()

    def run(self, script: str, *arguments: Any) -> Any:
        """Value of a JavaScript function."""
        return self.page.evaluate(script, *arguments)

    def wait_until(self, script: str) -> None:
        """Until an expression holds; the page's policy forbids playwright's own way to wait."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.run(f"!!({script})"):
            if time.monotonic() > deadline:
                raise NeverSettledError(f"still not so: {script}")
            self.page.wait_for_timeout(50)

    def settle(self) -> None:
        """Until all that is in view was drawn."""
        for _ in range(2):
            self.page.wait_for_timeout(120)  # a change of view is drawn, and asks for chunks, at the next frame
            self.wait_until("window.viewer && viewer.layerManager.managedLayers.every(l => l.isReady()) && "
                            "viewer.display.panels.size && viewer.isReady()")  # fmt: skip
            self.run("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
        before = self.page.screenshot()
        deadline = time.monotonic() + PATIENCE_S
        while (now := self.page.screenshot()) != before:  # what is ready is drawn at a later frame
            if time.monotonic() > deadline:
                raise NeverSettledError("the picture does not come to rest")
            before = now

    @property
    def state(self) -> dict[str, Any]:
        """neuroglancer's state."""
        return json.loads(self.run("() => JSON.stringify(viewer.state.toJSON())"))

    def look(self, position: Sequence[float], scale: float) -> None:
        """Centre a place (x, y, …; voxel k has its centre at k), at so many voxels a screen pixel."""
        script = "([p, s]) => { viewer.position.restoreState(p); viewer.crossSectionScale.restoreState(s); }"
        self.run(script, [list(position), scale])
        self.settle()

    def show(self, **visible: bool) -> None:
        """Switch layers on and off, by name."""
        for name, is_visible in visible.items():
            self.run("([n, v]) => viewer.layerManager.getLayerByName(n).setVisible(v)", [name, is_visible])
        self.settle()

    @property
    def panel(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the plane's panel."""
        found = self.run(
            """() => [...viewer.display.panels].filter(p => p.sliceView).map(p => {
                const box = p.element.getBoundingClientRect();
                return [box.left + p.element.clientLeft, box.top + p.element.clientTop,
                        p.element.clientWidth, p.element.clientHeight]; })[0]"""
        )
        return tuple(found)

    def grab(self) -> np.ndarray:
        """Screen pixels (y, x, 3)."""
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")).astype(int)

    def place(self, y: float, x: float) -> tuple[float, float]:
        """Where the centre of an array pixel lies on the screen: (top, left)."""
        left, top, width, height = self.panel
        position, scale = self.run("() => [[...viewer.position.value], viewer.crossSectionScale.value]")
        return top + height / 2 + (y - position[1]) / scale, left + width / 2 + (x - position[0]) / scale

    def pixel(self, y: float, x: float) -> list[int]:
        """Colour at the centre of an array pixel."""
        row, column = self.place(y, x)
        return self.grab()[int(row), int(column)].tolist()

    def id_under_mouse(self, y: float, x: float, layer: str) -> int:
        """Which object the viewer says is there; 0 for none."""
        row, column = self.place(y, x)
        self.page.mouse.move(column + 3, row)
        self.page.mouse.move(column, row)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.page.wait_for_timeout(150)
            found = json.loads(
                self.run(
                    """n => { viewer.mouseState.updateUnconditionally();
                    const value = viewer.layerSelectedValues.toJSON()[n]?.value;
                    return JSON.stringify({here: viewer.mouseState.active ? [...viewer.mouseState.position] : null,
                                           value: value?.key ?? value ?? null}, (_, v) =>
                                           typeof v === "bigint" ? v.toString() : v); }""",
                    layer,
                )
            )
            here = found["here"]
            if here and abs(here[0] - x) < 0.75 and abs(here[1] - y) < 0.75 and found["value"] is not None:
                return int(found["value"])
            if time.monotonic() > deadline:
                raise NeverSettledError(f"the mouse at {here}, expected {x}, {y}: {found}")


@contextlib.contextmanager
def opened(browser: Any, site: Site, *, width: int = 1001, height: int = 701) -> Iterator[Screen]:
    """A site in the browser."""
    requests = Requests()
    with requests.counted(), serve(site, port=0) as server:
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE_MS)
        try:
            screen = Screen(context.new_page(), server.url)
            screen.served = requests.paths
            yield screen
        finally:
            context.close()
