"""Time from the command to a slide's whole overview in the browser, beside an empty page in the same browser.

Usage: python benchmarks/first_picture.py [--size 65536] [--rounds 3]

The slide is RGB with a whole pyramid and class labels; only its finest level has no chunk (glass), since no overview
needs it. The browser is headless Chromium without a GPU, started before: its launch is printed apart. A picture is
complete when all chunks in view are drawn, and has to show tissue.
"""

import argparse
import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
CHUNK, SHARD = 512, 4096
PATIENCE_S = 120


def draw_level(side: int) -> np.ndarray:
    """A pink piece of tissue (3, y, x) on glass, as grainy as tissue compresses."""
    place = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    inside = place[:, None] ** 2 + 1.8 * place**2 < 0.16
    grain = np.random.default_rng(side).integers(0, 40, (side, side), dtype=np.uint8)
    return np.stack([np.where(inside, base + grain, 240).astype(np.uint8) for base in (180, 90, 150)])


def write_group(path: Path, n_levels: int, axes: str, extra: dict[str, Any]) -> None:
    """OME-Zarr 0.5 metadata of a pyramid of pixels of 0.25 um."""
    path.mkdir(parents=True, exist_ok=True)
    kinds = {"c": "channel", "y": "space", "x": "space"}
    described = [{"name": a, "type": kinds[a]} | ({"unit": "micrometer"} if a != "c" else {}) for a in axes]
    datasets = []
    for level in range(n_levels):
        scale = [1.0 if axis == "c" else 0.25 * 2**level for axis in axes]
        start = [0.0 if axis == "c" else 0.125 * (2**level - 1) for axis in axes]
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": start}]
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    ome = {"version": "0.5", "multiscales": [{"axes": described, "datasets": datasets}], **extra}
    content = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    (path / "zarr.json").write_text(json.dumps(content))


def make_slide(path: Path, size: int) -> Path:
    """The slide with labels in its ``labels/``."""
    n_levels = size.bit_length() - 10  # down to 512 px or so
    labels = path / "labels" / "cells"
    for level in range(n_levels):
        side = size >> level
        sizes = {"shards": (3, min(SHARD, side), min(SHARD, side)), "chunks": (3, CHUNK, CHUNK)}
        image = zarr.create_array(path / str(level), shape=(3, side, side), dtype="uint8", fill_value=240, **sizes)
        flat = {name: sides[1:] for name, sides in sizes.items()}
        classes = zarr.create_array(labels / str(level), shape=(side, side), dtype="uint8", **flat)
        if side <= size // 8:  # what an overview may use, and more
            pixels = draw_level(side)
            image[...] = pixels
            classes[...] = (pixels[0] > 205) & (pixels[0] < 230)
    write_group(path, n_levels, "cyx", {})
    write_group(labels, n_levels, "yx", {"image-label": {"source": {"image": "../../"}}})
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", "labels": ["cells"]}}}
    (labels.parent / "zarr.json").write_text(json.dumps(group))
    return path


def wait_for_picture(page: Any) -> None:
    """Until all in view is drawn."""
    ready = "() => !!window.viewer && viewer.layerManager.managedLayers.length && viewer.isReady()"
    deadline = time.monotonic() + PATIENCE_S
    while not page.evaluate(ready):
        if time.monotonic() > deadline:
            raise SystemExit("no picture came")
        page.wait_for_timeout(20)


def shows_tissue(page: Any) -> bool:
    """Whether the middle of the window is pink or labelled, and not glass."""
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    height, width = pixels.shape[0] // 2, (pixels.shape[1] - 340) // 2
    middle = pixels[height - 50 : height + 50, width - 50 : width + 50].reshape(-1, 3).mean(axis=0)
    return bool(np.ptp(middle) > 20)


def time_view(browser: Any, slide: Path) -> tuple[float, float]:
    """Seconds from the command to its address, and to the picture."""
    began = time.perf_counter()
    command = [Path(sys.executable).with_name("segment-slide"), "view", slide, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout)))
            served = time.perf_counter() - began
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(found.group())
            wait_for_picture(page)
            took = time.perf_counter() - began
            if not shows_tissue(page):
                raise SystemExit("the picture shows no tissue")
            page.close()
        finally:
            process.terminate()
    return served, took


def time_empty(browser: Any) -> float:
    """Seconds that the same browser needs for a page with nothing on it."""
    began = time.perf_counter()
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto("about:blank")
    page.evaluate("() => new Promise(done => requestAnimationFrame(done))")
    took = time.perf_counter() - began
    page.close()
    return took


def main() -> None:
    """Measure and print."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        slide = make_slide(Path(folder) / "slide.ome.zarr", arguments.size)
        began = time.perf_counter()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        print(f"browser launched in {time.perf_counter() - began:.2f} s")
        empty, views = [], []
        for _ in range(arguments.rounds):
            empty.append(time_empty(browser))
            views.append(time_view(browser, slide))
        browser.close()
    served, picture = (statistics.median(column) for column in zip(*views, strict=True))
    blank = statistics.median(empty)
    print(f"{arguments.size} x {arguments.size} px RGB with labels: address after {served:.2f} s, picture after "
          f"{picture:.2f} s; an empty page {blank:.2f} s (ratio {picture / blank:.0f}); "
          f"all rounds {', '.join(f'{took:.2f}' for _, took in views)} s")  # fmt: skip


if __name__ == "__main__":
    main()
