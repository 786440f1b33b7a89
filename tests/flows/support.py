"""What tests of whole commands share: small images and networks, three ways to run a command, trees compared."""

import contextlib
import hashlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import zarr

from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.blocks.sizes import level_shapes
from segment_slide.pipeline.errors import PipelineError
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.fingerprint import fingerprint
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.names import find_location
from segment_slide.pipeline.storage.pyramid import build_pyramid, calibrate
from segment_slide.pipeline.storage.record import ATTRIBUTE
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet, whole_image_logits

DATA = Path(os.environ.get("SEGMENT_SLIDE_DATA", Path(__file__).parents[3] / "shared" / "data"))
DISTURBING = Path(__file__).with_name("disturbing")  # for PYTHONPATH: see the file there
OFFSET, SCALE = 100.0, 50.0
CONSTANTS = Normalisation(offset=(OFFSET,), scale=(SCALE,))


# -- images and networks -------------------------------------------------------------------------------------


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Repeatable uint8 pixels."""
    return np.random.default_rng(seed).integers(0, 255, shape, np.uint8)


def write_array(path: Path, pixels: np.ndarray, chunk: int = 64) -> Path:
    """A bare Zarr array (format 3); only y and x are cut into chunks."""
    chunks = (1,) * (pixels.ndim - 2) + tuple(min(chunk, size) for size in pixels.shape[-2:])
    zarr.create_array(path, shape=pixels.shape, chunks=chunks, dtype=pixels.dtype)[...] = pixels
    return path


def write_ome(
    path: Path,
    pixels: np.ndarray,
    axes: str,
    *,
    scale: Sequence[float] | None = None,
    n_levels: int = 1,
    channels: Sequence[str] = (),
    version: str = "0.5",
) -> Path:
    """An OME-Zarr 0.5 image, its metadata written out by hand; each level keeps every second pixel of y and x."""
    scale = list(scale or [1.0] * len(axes))
    units = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
    kinds = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
    datasets = []
    for level in range(n_levels):
        write_array(path / str(level), pixels[..., :: 1 << level, :: 1 << level])
        steps = [step * (1 << level) if axis in "yx" else step for axis, step in zip(axes, scale, strict=True)]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": steps}]})
    described = [{"name": a, "type": kinds[a]} | ({"unit": units[a]} if a in units else {}) for a in axes]
    ome: dict[str, Any] = {"version": version, "multiscales": [{"name": "", "axes": described, "datasets": datasets}]}
    if channels:
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        ome["omero"] = {"channels": [{"label": name, "color": "FFFFFF", "window": window} for name in channels]}
    write_group(path, {"ome": ome})
    return path


def write_group(path: Path, attributes: dict[str, Any]) -> Path:
    """A Zarr group (format 3) with some attributes."""
    path.mkdir(parents=True, exist_ok=True)
    content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (path / "zarr.json").write_text(json.dumps(content))
    return path


def write_segmentation(
    path: Path,
    classes: np.ndarray,
    axes: str = "yx",
    *,
    name: str = "segmentation",
    files: Sequence[int] = (64, 64),
    scale: Sequence[float] = (),
    unit: str | None = "micrometer",
    n_levels: int = 1,
) -> Path:
    """A finished segmentation without a network: `files` are of so many pixels along the last axes."""
    group, planes = f"labels/{name}", classes.ndim - len(files)
    shard = tuple(map(min, classes.shape, (*(1,) * planes, *files)))
    units = tuple(unit if axis in "zyx" else None for axis in axes)
    first = ome.Level("0", tuple(scale) or (1.0,) * classes.ndim, (0.0,) * classes.ndim)
    shown = calibrate(name, axes, units, first, n_levels, "nearest", halved=axes[planes:])
    shapes = level_shapes(classes.shape, len(files), n_levels)
    arrays = [
        ArraySpec(str(level), shape, shard, shard, str(classes.dtype), axes) for level, shape in enumerate(shapes)
    ]
    whole = {"ome": ome.multiscale_attributes(ome.within(shown, group)), ATTRIBUTE: {"shows": group}}
    store.create_group(str(path), "", [], whole)
    store.create_group(str(path), "labels", [], {"ome": {"version": ome.VERSION, "labels": [name]}})
    record = {
        "input": {"location": "slide.ome.zarr", "level": 0},
        "model": {"path": "cells.safetensors", "sha256": "0" * 64, "classes": ["background", "cell"]},
        "parameters": {},
        "code": {"name": "segment-slide", "version": "0"},
    }
    store.create_group(str(path), group, arrays, {"ome": ome.label_attributes(shown), ATTRIBUTE: record})
    store.open_array(str(path), f"{group}/0", writable=True)[...] = classes
    build_pyramid(str(path), group, arrays, axes[planes:], "nearest")
    return path


def mark_of(image: Path | str, recorded: dict[str, Any]) -> str:
    """What a record says of an image to tell it from others; "" if there is none."""
    try:
        axes = recorded.get("axes") if (Path(image) / "zarr.json").is_file() and is_array(Path(image)) else None
        return fingerprint(describe_image(image, level=recorded.get("level") or 0, axes=axes))
    except PipelineError:
        return ""


def is_array(path: Path) -> bool:
    """Whether a folder is a bare Zarr array."""
    return json.loads((path / "zarr.json").read_text())["node_type"] == "array"


def write_model(
    path: Path,
    *,
    depth: int = 1,
    ndim: int = 2,
    in_channels: int = 1,
    n_classes: int = 2,
    seed: int = 0,
    normalisation: Normalisation | None = None,
    **config: Any,
) -> Path:
    """A random network whose classes are about as frequent as each other on noise: a constant map proves nothing."""
    architecture = Architecture(
        base_channels=2, depth=depth, ndim=ndim, in_channels=in_channels, n_classes=n_classes, dropout=0.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UNet(architecture).eval()
    normalisation = normalisation or Normalisation(offset=(OFFSET,) * in_channels, scale=(SCALE,) * in_channels)
    pixels = noise(in_channels, *(64,) * ndim).astype(np.float32)
    logits = whole_image_logits(model, (pixels - OFFSET) / SCALE).reshape(n_classes, -1)
    model.classify.bias.data -= torch.from_numpy(np.median(logits, axis=1))
    classes = ("background", *(f"class {value}" for value in range(1, n_classes)))
    save_checkpoint(path, model, ModelConfig(architecture, classes, normalisation, **config))
    return path


# -- running commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    exit_code: int
    out: str
    err: str


def run_here(*arguments: object) -> Outcome:
    """Run a command in this process: what ``segment-slide ARGUMENTS`` does, without starting Python again."""
    from segment_slide.flows.commands import main

    out, err = io.StringIO(), io.StringIO()
    before, environment = sys.argv, dict(os.environ)
    handlers = {number: signal.getsignal(number) for number in main.ENDINGS}
    sys.argv = ["segment-slide", *map(str, arguments)]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)
        main.ended_by.clear()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())


def run_without_workers(*arguments: object) -> Outcome:
    """Run a command in this process alone, block by block: the same functions, nothing between them."""
    import segment_slide.flows.instances
    import segment_slide.flows.segment

    with pytest.MonkeyPatch.context() as patch:
        for flow in (segment_slide.flows.instances, segment_slide.flows.segment):
            patch.setattr(flow, "open_cluster", lambda *_, **__: contextlib.nullcontext())
        return run_here(*arguments)


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start the installed command in a process group of its own; SIGHUP ends it, also if the tests run under nohup."""
    return subprocess.Popen(
        ["env", "--default-signal=HUP", Path(sys.executable).with_name("segment-slide"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def brake(file: Path, folder: str | Path, from_files: int) -> dict[str, str]:
    """Environment of a command that works on slowly once a folder holds so many files: it cannot end meanwhile.

    Parameters
    ----------
    file : Path
        Made here; without it the command is as fast as ever.
    folder : str or Path
        End of the folder's path; files of the folders in it count, half-written ones do not.
    from_files : int
        Far fewer than there will be: each thread that writes may finish one more.
    """
    file.touch()
    found = {"BRAKE_FILE": file, "BRAKED_FOLDER": folder, "BRAKED_FROM": from_files, "PYTHONPATH": DISTURBING}
    return {name: str(value) for name, value in found.items()}


# Limits of time here are for what hangs, on a machine that is slow and has more to do; none is a promise.


def finish(process: subprocess.Popen[str], timeout_s: float = 480) -> Outcome:
    """Wait for a started command; one that hangs is killed with its group, and the test fails."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Outcome(process.returncode, out, err)


def run_installed(*arguments: object, **environment: str) -> Outcome:
    """Run the installed command to its end."""
    return finish(start(*arguments, **environment))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 240) -> None:
    """Poll until something is so, while a command runs.

    Raises
    ------
    AssertionError
        If the command ended first, or the time is over.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"the command ended first: {process.communicate()}"
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.005)


def free_port() -> int:
    """A port of loopback that nobody has now, nor gets by chance: the system gives away those from 32768 on."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes below one."""
    return psutil.Process(process.pid).children(recursive=True)


def survivors(processes: Sequence[psutil.Process], timeout_s: float = 60) -> list[psutil.Process]:
    """Those that are still there after a time."""
    return psutil.wait_procs(processes, timeout=timeout_s)[1]


# -- files -----------------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Every path below a folder with a hash of its bytes (files) and its time of change."""
    return {
        str(path.relative_to(folder)): (_digest(path), path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))
    }


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes; places that records name relative to it made absolute."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): _digest_in_place(path) for path in files}


def raw_tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes."""
    return {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _digest_in_place(path: Path) -> str:
    content = path.read_bytes()
    if path.parent.name == "_manifest" and path.name == "files.json":  # files with places or times are not its subject
        left_out = (b"zarr.json", b"segment-slide.done.json", b'"sha256":')
        lines = [line for line in content.splitlines() if not any(name in line for name in left_out)]
        return hashlib.sha256(b"\n".join(lines)).hexdigest()
    if path.name != "zarr.json" or b'"location"' not in content:
        return _digest(path)
    group = path.parent
    output = group.parent.parent if group.parent.name in ("labels", "probability") else group
    return hashlib.sha256(json.dumps(_with_places(json.loads(content), str(output))).encode()).hexdigest()


def _with_places(value: Any, output: str) -> Any:
    if isinstance(value, dict):
        found = {key: _with_places(item, output) for key, item in value.items()}
        place = found.get("location")
        if not isinstance(place, str) or not place.startswith(".."):
            return found
        there = find_location(place, output)  # it is not there for a copy
        return {**found, "location": there} if os.path.exists(there) and not there.startswith(output) else found
    return [_with_places(item, output) for item in value] if isinstance(value, list) else value


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"


def shards(array: Path) -> dict[tuple[int, ...], Path]:
    """Files of a Zarr 3 array by their place in the grid, half-written ones left out."""
    files = (path for path in (array / "c").rglob("*") if path.is_file() and path.suffix != ".partial")
    return {tuple(map(int, path.relative_to(array / "c").parts)): path for path in files}


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A memory file system at a folder, with mount options such as "size=64k" or "ro"."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a file system that `mounted` put there."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True, capture_output=True)


def can_mount() -> bool:
    """Whether this user may mount a memory file system."""
    folder = Path(tempfile.mkdtemp())
    try:
        with mounted(folder, "size=64k"):
            return True
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    finally:
        folder.rmdir()
