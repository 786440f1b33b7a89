"""What Prefect adds to a command: the same slide by the command, by the flow in plain Python, and by a deployment.

A server and a worker are started for it, on loopback, with a database of their own; rounds are interleaved. Run it in
the folder of prefect.yaml::

    python benchmarks/flow_overhead.py --rounds 3
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import zarr

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, save_checkpoint
from segment_slide.unet.model import UNet

SIDE = 2048
BIN = Path(sys.executable).parent
PORT = 4287
URL = f"http://127.0.0.1:{PORT}/api"
PLAIN = """
import json, sys
from segment_slide.flows.deployed.parameters import SegmentParameters
from segment_slide.flows.deployed.segment_slide import segment_slide

if __name__ == "__main__":
    report = segment_slide(input=sys.argv[1], model=sys.argv[2], output=sys.argv[3],
                           segmentation=SegmentParameters(axes="yx"))
    print(json.dumps({"stages": report.stage_seconds}))
"""


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """A smooth image with a few thousand objects, and a network of random weights whose classes are balanced."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(SIDE // 16, SIDE // 16))
    pixels = np.kron(coarse, np.ones((16, 16))) * 40 + 128
    image = zarr.create_array(folder / "slide.zarr", shape=(SIDE, SIDE), chunks=(512, 512), dtype="uint8")
    image[...] = np.clip(pixels, 0, 255).astype(np.uint8)
    architecture = Architecture(in_channels=1, n_classes=2, base_channels=8, depth=3)
    torch.manual_seed(0)
    network = UNet(architecture).eval()
    with torch.no_grad():
        window = torch.from_numpy((pixels[:300, :300].astype(np.float32) - 128) / 40)[None, None]
        logits = network(window[..., :300, :300]).transpose(0, 1).reshape(2, -1)
        network.classify.bias -= logits.median(dim=1).values
    path = folder / "network.safetensors"
    config = ModelConfig(architecture, ("background", "cell"), Normalisation(offset=(128.0,), scale=(40.0,)))
    save_checkpoint(path, network, config)
    return folder / "slide.zarr", path


@contextmanager
def prefect_site(folder: Path, env: dict[str, str]) -> Iterator[None]:
    """Server, pool, deployments and worker."""
    with (folder / "prefect.log").open("ab") as log:

        def start(*command: str) -> "subprocess.Popen[bytes]":
            return subprocess.Popen(
                [BIN / "prefect", *command], env=env, stdout=log, stderr=log, start_new_session=True
            )

        server = start("server", "start", "--host", "127.0.0.1", "--port", str(PORT))
        while True:
            try:
                urllib.request.urlopen(f"{URL}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        for command in (("work-pool", "create", "segment-slide", "--type", "process"), ("deploy", "--all")):
            subprocess.run([BIN / "prefect", "--no-prompt", *command], env=env, check=True, stdout=log, stderr=log)
        worker = start("worker", "start", "--pool", "segment-slide")
        try:
            yield
        finally:
            for process in (worker, server):
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()


def main() -> None:
    """Print a table of medians, and of the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide, model = make_inputs(folder)
        output = folder / "out.ome.zarr"
        quiet = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_API_URL": URL}
        env = {**os.environ, **quiet, "PREFECT_HOME": str(folder / "home"), "PYTHONPATH": os.getcwd()}
        (folder / "plain.py").write_text(PLAIN)
        stages: list[dict[str, float]] = []

        def command() -> None:
            words: list[str | Path] = ["segment", slide, "--axes", "yx", "-m", model, "-o", output, "--measure"]
            subprocess.run([BIN / "segment-slide", *words], env=env, check=True, capture_output=True)

        def plain() -> None:
            words: list[str | Path] = [sys.executable, folder / "plain.py", slide, model, output]
            done = subprocess.run(words, env=env, check=True, capture_output=True, text=True)
            stages.append(json.loads(done.stdout.splitlines()[-1])["stages"])

        def deployment() -> None:
            values = {"input": str(slide), "model": str(model), "output": str(output), "segmentation": {"axes": "yx"}}
            words = [f"--param={key}={json.dumps(value)}" for key, value in values.items()]
            run: list[str | Path] = [BIN / "prefect", "deployment", "run", "segment-slide/local", "--watch", *words]
            subprocess.run(run, env=env, check=True, capture_output=True)
            assert output.exists()

        ways: dict[str, Callable[[], None]] = {"command": command, "flow in Python": plain, "deployment": deployment}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        with prefect_site(folder, env):
            for _ in range(rounds):
                for way, run in ways.items():
                    shutil.rmtree(output, ignore_errors=True)
                    began = time.perf_counter()
                    run()
                    seconds[way].append(time.perf_counter() - began)
                    print(way, f"{seconds[way][-1]:.1f} s", flush=True)
    base = statistics.median(seconds["command"])
    print(f"\n{SIDE} x {SIDE} px, medians of {rounds}\n")
    print("| way | s | ratio | more than the command, s |\n|---|--:|--:|--:|")
    for way, times in seconds.items():
        median = statistics.median(times)
        print(f"| {way} | {median:.1f} | {median / base:.2f} | {median - base:+.1f} |")
    print("\n| stage of the flow | s |\n|---|--:|")
    for stage in stages[0]:
        print(f"| {stage} | {statistics.median(found[stage] for found in stages):.2f} |")


if __name__ == "__main__":
    main()
