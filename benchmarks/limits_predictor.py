"""Passes as the product makes them, from pixels to labels; sections of `limits.py`."""

import argparse
import os

import numpy as np
import torch
from common import DATA, Report
from limits_passes import build, draw_input
from limits_products import ON_GPU, PRECISIONS, Products, seconds_of, synchronised, time_limits
from torch import Tensor

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import open_checkpoint
from segment_slide.unet.model import UNet
from segment_slide.unet.network import InferenceSettings
from segment_slide.unet.predict import Predictor

PAPER_S = 1.0  # "segmentation of a 512x512 image takes less than a second on a recent GPU" (abstract)


def make_predictor(
    network: UNet, tile: int, precision: str, offset: float = 128.0, scale: float = 64.0, concurrency: int = 1
) -> Predictor:
    """The product's own, of a copy of the network's weights."""
    copy = UNet(network.architecture)
    copy.load_state_dict(network.state_dict())
    settings = InferenceSettings((offset,), (scale,), (tile, tile), precision=precision, concurrency=concurrency)
    return Predictor(copy, settings)


def show_edges(arguments: argparse.Namespace, report: Report, _: Products) -> None:
    """What normalising before and choosing the class after cost: the most that fusing them could save."""
    rows = []
    for base in arguments.bases:
        for precision in PRECISIONS:
            network = UNet(Architecture(base_channels=base))
            predictor = make_predictor(network, arguments.tile, precision)
            size = network.architecture.geometry.read_size(arguments.tile)
            image = np.random.default_rng(0).integers(0, 255, (1, size, size), dtype=np.uint8)
            with torch.inference_mode():
                tensor = predictor._to_device(image)
                logits = predictor._logits(tensor)
            took = time_limits(
                {
                    "before": synchronised(lambda p=predictor, i=image: p._to_device(i)),
                    "network": synchronised(lambda p=predictor, t=tensor: p._logits(t)),
                    "after": synchronised(lambda z=logits: z.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()),
                },
                arguments.rounds,
            )
            share = (took["before"] + took["after"]) / sum(took.values())
            name = f"normalising and argmax over the whole, base {base}, {precision}"
            rows.append(
                [f"{base}", precision, *(f"{1000 * value:.1f}" for value in took.values()), report.ratio(name, share)]
            )
    headings = ("base", "precision", "normalising, ms", "network, ms", "argmax, ms", "share of the edges")
    report.table(f"What surrounds the network, tile {arguments.tile}", headings, rows)


def show_precision(arguments: argparse.Namespace, report: Report, _: Products) -> None:
    """Labels of real images in both precisions, and their times."""
    from skimage.io import imread

    learnt = {path.name for path in (DATA / "isbi2012/label").glob("*.png")}  # `trained.py` has learnt from these
    paths = [path for path in sorted((DATA / "isbi2012/image").glob("*.png")) if path.name not in learnt]
    if not paths:
        report.say(f"precision: left out, {DATA}/isbi2012 is not there (SEGMENT_SLIDE_DATA)")
        return
    images = [np.asarray(imread(path)) for path in paths[: arguments.slices]]
    if arguments.model:
        checkpoint = open_checkpoint(arguments.model)
        network, name = checkpoint.load_model(), arguments.model.name
        offset, scale = (
            value[0] for value in (checkpoint.config.normalisation.offset, checkpoint.config.normalisation.scale)
        )
    else:
        torch.manual_seed(0)
        network, name = UNet(Architecture(base_channels=arguments.bases[0])).eval(), "initial weights"
        offset, scale = float(np.mean(images)), float(np.std(images))
        balance(network, (images[0].astype(np.float32) - offset) / scale)
    halo = network.architecture.geometry.halo
    padded = [np.pad(image, halo, mode="reflect")[None] for image in images]
    predictors = {precision: make_predictor(network, 256, precision, offset, scale) for precision in PRECISIONS}
    found = {
        precision: [predictor.predict(image).labels for image in padded] for precision, predictor in predictors.items()
    }
    took = time_limits(
        {
            precision: synchronised(lambda p=predictor: p.predict(padded[0]))
            for precision, predictor in predictors.items()
        },
        arguments.rounds,
    )
    equal = np.mean(np.stack(found["float32"]) == np.stack(found["bfloat16"]))
    share = np.mean(np.stack(found["float32"]) > 0)
    ratio = report.ratio(f"bfloat16 over float32 on ISBI 2012, {name}", took["bfloat16"] / took["float32"])
    report.values[f"equal labels of bfloat16 and float32, {name}, %"] = 100 * float(equal)
    rows = [
        [
            name,
            f"{len(images)}",
            f"{took['float32']:.3f}",
            f"{took['bfloat16']:.3f}",
            ratio,
            f"{100 * equal:.3f}",
            f"{100 * share:.0f}",
        ]
    ]
    headings = ("network", "slices", "float32, s a slice", "bfloat16, s", "ratio", "equal labels, %", "labelled, %")
    report.table("bfloat16 on ISBI 2012 (512 x 512)", headings, rows)


def balance(network: UNet, image: np.ndarray) -> None:
    """Make classes equally frequent on an image, so that random weights give a pattern and not one class."""
    size = network.architecture.geometry.read_size(256)
    part = np.pad(image, 100, mode="reflect")[:size, :size]
    with torch.no_grad():
        logits = network(torch.from_numpy(np.ascontiguousarray(part))[None, None])[0]
        difference = (logits[1:] - logits[:1]).flatten(1).median(dim=1).values
        network.classify.bias[1:] -= difference


def show_paper(arguments: argparse.Namespace, report: Report, products: Products) -> None:
    """512 x 512 with the paper's network."""
    torch.manual_seed(0)
    network = UNet(Architecture())
    cores = 1 if ON_GPU else len(os.sched_getaffinity(0))
    halo = network.architecture.geometry.halo
    image = np.random.default_rng(0).integers(0, 255, (1, 512 + 2 * halo, 512 + 2 * halo), dtype=np.uint8)
    rows = []
    predictors = {
        (precision, tile, n): make_predictor(network, tile, precision, concurrency=n)
        for precision in PRECISIONS
        for tile, n in {(512, 1), (256, cores)}
    }
    took = time_limits(
        {str(key): synchronised(lambda p=predictor: p.predict(image)) for key, predictor in predictors.items()},
        max(1, arguments.rounds // 2),
    )
    first = took[str(("float32", 512, 1))]
    for (precision, tile, n), seconds in zip(predictors, took.values(), strict=True):
        what = f"512 x 512, base 64, {precision}, tile {tile}, {n} at a time"
        passes = (512 // tile) ** 2
        limit_s = passes * products.seconds(Architecture(), tile, precision) / cores
        report.ratio(f"{what} over the matrix products of its layers", seconds / limit_s)
        ratio = report.ratio(f"{what} over float32", seconds / first)
        rows.append([precision, f"{tile}", f"{n}", f"{seconds:.2f}", ratio, f"{limit_s:.2f}"])
        report.values[f"{what}, s"] = seconds
    headings = ("precision", "tile", "tiles at a time", "s", "ratio", "matrix products on all cores, s")
    title = f"512 x 512 px with the paper's network (the paper: less than {PAPER_S:.0f} s on a GPU of 2015)"
    report.table(title, headings, rows)


def show_cuda(arguments: argparse.Namespace, report: Report, products: Products) -> None:
    """Whole blocks of 4096 px from host memory to labels, by tile; CUDA graphs."""
    if not ON_GPU:
        report.say("cuda: left out, torch sees no GPU")
        return
    rows = []
    for base in arguments.bases:
        network = UNet(Architecture(base_channels=base))
        size = network.architecture.geometry.read_size(4096)
        block = np.random.default_rng(0).integers(0, 255, (1, size, size), dtype=np.uint8)
        for precision in PRECISIONS:
            products.seconds(network.architecture, 512, precision)  # so that the best rate is known
            for tile in (512, 1024, 2048, 4096):
                predictor = make_predictor(network, tile, precision)
                took = seconds_of(lambda p=predictor, b=block: p.predict(b), arguments.rounds)
                rows.append([f"{base}", precision, f"{tile}", f"{took:.3f}", f"{4096**2 / 1e6 / took:.0f}"])
                flops = network.architecture.forward_flops((tile, tile)) * (4096 // tile) ** 2
                share = flops / took / products.best(precision)
                report.ratio(f"GPU: of the best GEMM rate, base {base}, {precision}, tile {tile}", share)
    report.table("A block of 4096 px through the Predictor", ("base", "precision", "tile", "s", "Mpx/s"), rows)
    rows = []
    for base in arguments.bases:
        for tile in (256, 512, 1024):
            network = build(base, "bfloat16")
            pixels = draw_input(network.architecture, tile, "bfloat16")
            graph = capture(network, pixels)
            took = time_limits(
                {"eager": synchronised(lambda n=network, p=pixels: n(p)), "graph": synchronised(graph.replay)},
                10 * arguments.rounds,
            )
            name = f"CUDA graph over eager, base {base}, tile {tile}"
            ratio = report.ratio(name, took["graph"] / took["eager"])
            rows.append([f"{base}", f"{tile}", *(f"{1000 * value:.2f}" for value in took.values()), ratio])
    report.table("CUDA graphs, bfloat16", ("base", "tile", "eager, ms", "graph, ms", "ratio"), rows)


def capture(network: UNet, pixels: Tensor) -> torch.cuda.CUDAGraph:
    """A forward pass recorded once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            network(pixels)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        network(pixels)
    return graph
