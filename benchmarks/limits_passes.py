"""Forward passes of the network alone: tile, order of channels, threads, torch.compile; sections of `limits.py`."""

import argparse
import itertools
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from common import Report
from limits_products import DEVICE, DTYPES, ON_GPU, PRECISIONS, Products, synchronised, time_limits
from torch import Tensor

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.model import UNet


def build(base: int, precision: str, *, channels_last: bool = True, model: UNet | None = None) -> UNet:
    """The network as `unet.predict.Predictor` prepares it, or in torch's own order of channels."""
    torch.manual_seed(0)
    network = model or UNet(Architecture(base_channels=base))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(DEVICE, memory_format=layout).eval()  # type: ignore[call-overload]
    for part in (network.down, network.up, network.merge):
        part.to(DTYPES[precision])
    return network


def draw_input(architecture: Architecture, tile: int, precision: str, *, channels_last: bool = True) -> Tensor:
    """Noise of the size that a tile reads."""
    size = architecture.geometry.read_size(tile)
    noise = torch.randn(1, architecture.in_channels, size, size, device=DEVICE)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return noise.to(DTYPES[precision], memory_format=layout)


def show_tiles(arguments: argparse.Namespace, report: Report, products: Products) -> None:
    """Forward passes over tile sizes, beside matrix products."""
    rows = []
    for base, tile, precision in itertools.product(arguments.bases, arguments.tiles, PRECISIONS):
        products.seconds(Architecture(base_channels=base), tile, precision)  # so that the best rate is known
    for base in arguments.bases:
        networks = {precision: build(base, precision) for precision in PRECISIONS}
        architecture = networks["float32"].architecture
        for tile in arguments.tiles:
            flops = architecture.forward_flops((tile, tile))
            if flops / products.rate(9 * base, base, "float32") > arguments.limit_s:
                report.say(f"base {base}, tile {tile}: left out, more than {arguments.limit_s:.0f} s a pass")
                continue
            ways = {}
            for precision, network in networks.items():
                pixels = draw_input(architecture, tile, precision)
                ways[precision] = synchronised(lambda network=network, pixels=pixels: network(pixels))
            for precision, took in (seconds := time_limits(ways, arguments.rounds)).items():
                what = f"base {base}, tile {tile}, {precision}"
                layers = products.seconds(architecture, tile, precision) / took
                over = "1"
                if precision == "bfloat16":
                    over = report.ratio(f"bfloat16 over float32, base {base}, tile {tile}", took / seconds["float32"])
                rows.append(
                    [
                        f"{base}", f"{tile}", precision, f"{took:.3f}", f"{tile**2 / 1e6 / took:.2f}",
                        f"{flops / tile**2 / 1e6:.2f}", f"{flops / took / 1e9:.0f}",
                        report.ratio(f"of the GEMM rate of its layers, {what}", layers),
                        report.ratio(f"of the best GEMM rate, {what}", flops / took / products.best(precision)),
                        over,
                    ]
                )  # fmt: skip
                report.say(" ".join(rows[-1]))
    headings = (
        "base", "tile", "precision", "s", "Mpx/s", "MFLOP/px", "GFLOP/s", "of its layers' GEMM", "of the best GEMM",
        "s over float32's",
    )  # fmt: skip
    report.table("One forward pass, one core" if not ON_GPU else "One forward pass", headings, rows)


def show_layout(arguments: argparse.Namespace, report: Report, _: Products) -> None:
    """channels_last against torch's own order."""
    rows = []
    for base in arguments.bases:
        for precision in PRECISIONS:
            ways = {}
            for name, last in (("channels_last", True), ("channels first", False)):
                network = build(base, precision, channels_last=last)
                pixels = draw_input(network.architecture, arguments.tile, precision, channels_last=last)
                ways[name] = synchronised(lambda network=network, pixels=pixels: network(pixels))
            took = time_limits(ways, arguments.rounds)
            ratio = took["channels first"] / took["channels_last"]
            name = f"channels first over last, base {base}, {precision}"
            rows.append([f"{base}", precision, *(f"{value:.3f}" for value in took.values()), report.ratio(name, ratio)])
    headings = ("base", "precision", "channels_last, s", "channels first, s", "ratio")
    report.table(f"Order of channels in memory, tile {arguments.tile}", headings, rows)


def show_threads(arguments: argparse.Namespace, report: Report, _: Products) -> None:
    """Passes at a time x threads of each, on as many cores."""
    if ON_GPU:
        return
    cores = len(os.sched_getaffinity(0))
    base, rows = arguments.bases[0], []
    splits = sorted({(1, 1), (1, cores), (cores, 1), (max(1, cores // 2), min(2, cores))})
    for precision in PRECISIONS:
        network = build(base, precision)
        pixels = draw_input(network.architecture, arguments.tile, precision)
        ways = {split: run_streams(network, pixels, *split, passes=cores) for split in splits}
        took = time_limits({f"{n} x {m}": run for (n, m), run in ways.items()}, arguments.rounds)
        best = took[f"{cores} x 1"]
        for way, value in took.items():
            rate = cores * arguments.tile**2 / 1e6 / value
            name = f"{way} over {cores} x 1, {precision}"
            rows.append([way, precision, f"{value:.3f}", f"{rate:.2f}", report.ratio(name, value / best)])
    torch.set_num_threads(1)
    headings = ("passes x threads", "precision", "s", "Mpx/s", f"s over {cores} x 1")
    report.table(f"{cores} tiles of {arguments.tile} px, base {base}", headings, rows)


def run_streams(network: UNet, pixels: Tensor, streams: int, threads: int, passes: int) -> Callable[[], None]:
    """So many passes, `streams` at a time, each divided among `threads`."""

    def forward() -> None:
        with torch.inference_mode():
            network(pixels)

    def start() -> None:
        torch.get_num_threads()  # see `unet.device.use_one_core`
        torch.set_num_threads(threads)

    def run() -> None:
        with ThreadPoolExecutor(streams, initializer=start) as pool:
            for done in [pool.submit(forward) for _ in range(passes)]:
                done.result()

    return run


def show_compile(arguments: argparse.Namespace, report: Report, _: Products) -> None:
    """torch.compile on and off."""
    if not ON_GPU and not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")):
        report.say("torch.compile: left out, there is no C++ compiler")
        return
    base, rows = arguments.bases[0], []
    for precision in PRECISIONS:
        network = build(base, precision)
        pixels = draw_input(network.architecture, arguments.tile, precision)
        compiled = torch.compile(network)
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                plain, other = network(pixels).argmax(1), compiled(pixels).argmax(1)
        except Exception as error:  # noqa: BLE001, Inductor raises whatever its compiler does
            report.say(f"torch.compile, {precision}: failed: {str(error).splitlines()[0]}")
            continue
        first_s = time.perf_counter() - began
        took = time_limits(
            {
                "plain": synchronised(lambda n=network, p=pixels: n(p)),
                "compiled": synchronised(lambda n=compiled, p=pixels: n(p)),
            },
            arguments.rounds,
        )
        equal = (plain == other).float().mean().item()
        name = f"torch.compile over without, base {base}, {precision}"
        ratio = report.ratio(name, took["compiled"] / took["plain"])
        rows.append(
            [
                precision,
                f"{took['plain']:.3f}",
                f"{took['compiled']:.3f}",
                ratio,
                f"{first_s:.0f}",
                f"{100 * equal:.3f}",
            ]
        )
    headings = ("precision", "without, s", "torch.compile, s", "ratio", "first call, s", "equal labels, %")
    report.table(f"torch.compile, base {base}, tile {arguments.tile}", headings, rows)
