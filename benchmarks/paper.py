"""The experiments of Ronneberger 2015 (Sec. 4), as far as public data allow, and what each part of the training earns.

    python benchmarks/paper.py --output DIR                        all three on this machine, base 16
    python benchmarks/paper.py --output DIR --only ablation
    python benchmarks/paper.py --output DIR --base 64 --minutes 8  the paper's network, for a GPU

Prints one table a run: the paper's figure, ours, the protocol. Figures go to DIR/results.json too, and one picture an
experiment. What is compared is never learnt from; no choice was made by looking at it.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paper_data import EXPERIMENTS, Experiment, Frame

from segment_slide.flows.demo.overlay import Panel, write_overlay
from segment_slide.unet.annotated import ArrayPixels
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.array_samples import ArraySamples
from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.device import describe_processor, resolve_device
from segment_slide.unet.draw import SampleSettings
from segment_slide.unet.network import InferenceSettings
from segment_slide.unet.predict import Predictor
from segment_slide.unet.sample import IGNORE
from segment_slide.unet.train import build_model, train
from segment_slide.unet.train_settings import Training, TrainSettings
from segment_slide.unet.weight_map import count_class_weights, cut_ridges, weight_map
from segment_slide.unet.weight_settings import WeightSettings

TILE_PX = 256
N_SAMPLES = 1 << 20  # drawn when asked for: no sample comes twice


# -- one run -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """What a run leaves out."""

    weights: bool = True
    elastic: bool = True

    @property
    def suffix(self) -> str:
        """For file names; empty for the whole."""
        return "-no-weights" * (not self.weights) + "-no-elastic" * (not self.elastic)

    def augment(self) -> AugmentSettings:
        return AugmentSettings() if self.elastic else AugmentSettings(elastic_std_px=0.0)


def normalise(frames: Sequence[Frame], learnt: Sequence[Frame]) -> list[np.ndarray]:
    """Intensities by mean and deviation of the images that are learnt from."""
    pixels = np.concatenate([frame.image.ravel() for frame in learnt])
    return [((frame.image - pixels.mean()) / pixels.std())[None].astype(np.float32) for frame in frames]


def annotate(frames: Sequence[Frame], images: Sequence[np.ndarray], settings: WeightSettings) -> list[ArrayPixels]:
    """Images with classes and weights; classes are balanced over all of them."""
    known = [np.where(frame.known, 0, IGNORE).astype(np.uint8) for frame in frames]
    cells = [cut_ridges(frame.instances, settings.ridge_px) > 0 for frame in frames]
    counts = np.sum([np.bincount(cell[k == 0].ravel(), minlength=2) for cell, k in zip(cells, known, strict=True)], 0)
    class_weights = count_class_weights(counts, balance=settings.balance)
    sources = []
    for frame, image, unknown in zip(frames, images, known, strict=True):
        classes = np.where(unknown == IGNORE, IGNORE, frame.instances > 0).astype(np.uint8)
        made = weight_map(frame.instances, settings, classes=classes, class_weights=class_weights)
        sources.append(ArrayPixels(image, made.classes, made.weights))
    return sources


def run(experiment: Experiment, arguments: argparse.Namespace, variant: Variant) -> dict[str, Any]:
    """Train on what is not held out, score what is."""
    frames = experiment.load()
    learnt = [frame for frame in frames if frame.name not in experiment.held_out]
    scored = [frame for frame in frames if frame.name in experiment.held_out]
    w0 = WeightSettings().w0 if variant.weights else 0.0
    weights = WeightSettings(w0=w0, ridge_px=experiment.ridge_px, balance=not arguments.no_balance)
    sources = annotate(learnt, normalise(learnt, learnt), weights)
    sample_settings = SampleSettings((TILE_PX, TILE_PX), depth=4, seed=arguments.seed, augment=variant.augment())
    samples = ArraySamples(sources, sample_settings, N_SAMPLES)
    model = build_model(Architecture(base_channels=arguments.base), seed=arguments.seed)
    device = resolve_device(arguments.device)
    steps = arguments.steps or count_steps(samples, arguments, device)
    settings = settings_of(arguments, steps)
    began = time.perf_counter()
    history = train(model, Training(samples, settings, device=arguments.device), on_step=progress(steps))
    seconds = time.perf_counter() - began
    probabilities = [predict(model, image, arguments) for image in normalise(scored, learnt)]
    result = {
        "experiment": experiment.name,
        "variant": asdict(variant),
        "base": arguments.base,
        "balanced": not arguments.no_balance,
        "steps": steps,
        "optimiser": arguments.optimiser,
        "minutes": seconds / 60,
        "device": describe_processor(device),
        "loss": float(np.mean(history.losses[-max(1, steps // 20) :])),
        **experiment.score(scored, probabilities, experiment.small_px),
    }
    draw(arguments.output / f"{experiment.name}{variant.suffix}.png", scored[0], probabilities[0], result)
    return result


def settings_of(arguments: argparse.Namespace, steps: int) -> TrainSettings:
    return TrainSettings(
        steps=steps,
        optimiser=arguments.optimiser,
        learning_rate=arguments.learning_rate,
        precision=arguments.precision,
        schedule="cosine",
        validate_every=0,
        save_every=0,
        seed=arguments.seed,
    )


def count_steps(samples: ArraySamples, arguments: argparse.Namespace, device: torch.device) -> int:
    """Steps that fit into the minutes, by the time of a few."""
    model = build_model(Architecture(base_channels=arguments.base), seed=arguments.seed)
    trial = Training(samples, settings_of(arguments, 12), device=arguments.device)
    times: list[float] = []
    train(model, trial, on_step=lambda step, loss: times.append(time.perf_counter()))
    return max(50, int(60 * arguments.minutes / np.median(np.diff(times[2:]))))


def progress(steps: int) -> Callable[[int, float], None]:
    recent: list[float] = []
    began = time.perf_counter()

    def say(step: int, loss: float) -> None:
        recent.append(loss)
        if step % max(1, steps // 20) == 0:
            rate = (time.perf_counter() - began) / step
            print(f"  step {step} of {steps}, loss {np.mean(recent):.4f}, {rate:.2f} s a step", flush=True)
            recent.clear()

    return say


def predict(model: torch.nn.Module, image: np.ndarray, arguments: argparse.Namespace) -> np.ndarray:
    """Probability of class 1: the mean over 4 flips of the image and of the image turned by 90 degrees."""
    halo = model.architecture.geometry.halo
    total = np.zeros(image.shape[1:])
    for quarters in (0, 1):
        turned = np.rot90(image, quarters, axes=(1, 2))
        height, width = turned.shape[1:]
        stride = model.architecture.geometry.stride
        surplus = [(-size) % stride for size in (height, width)]
        padded = np.pad(turned, [(0, 0), *((halo, halo + more) for more in surplus)], mode="reflect")
        settings = InferenceSettings(
            offset=(0.0,),
            scale=(1.0,),
            tile_px=tuple(size + more for size, more in zip((height, width), surplus, strict=True)),
            precision="float32",
            tta="flips",
            device=arguments.device,
        )
        scores = Predictor(model, settings).predict(padded, "float32").probabilities[1, :height, :width]
        total += np.rot90(scores, -quarters) / 2
    return np.clip(total, 0, 1)


def draw(path: Path, frame: Frame, probability: np.ndarray, result: dict[str, Any]) -> None:
    """Image, truth and result of the first scored image."""
    image = np.clip(255 * (frame.image - frame.image.min()) / np.ptp(frame.image), 0, 255).astype(np.uint8)
    truth = cut_ridges(frame.instances, 2) > 0
    figures = ", ".join(f"{name} {result[name]:.4f}" for name in result if name in SHOWN)
    panels = [
        Panel(image, f"{frame.name}, not learnt from"),
        Panel((255 * probability).astype(np.uint8), "probability"),
        Panel(image, "blue: truth, yellow: ours", contours=[(truth, "deepskyblue"), (probability > 0.5, "yellow")]),
    ]
    write_overlay(path, panels, f"all scored images: {figures}")


# -- tables --------------------------------------------------------------------------------------------------

SHOWN = (
    "pixel_error",
    "rand_error",
    "rand_f_score",
    "v_rand",
    "v_info",
    "warping_error",
    "seg",
    "iou",
    "f1",
    "touching_recall",
)
ABLATION = (
    Variant(),
    Variant(elastic=False),
    Variant(weights=False),
    Variant(weights=False, elastic=False),
)


def print_experiment(experiment: Experiment, result: dict[str, Any]) -> None:
    balanced = "balanced" if result["balanced"] else "as frequent as they are"
    print(
        f"\n### {experiment.name}\n\n{experiment.protocol}. Base {result['base']}, {result['steps']} steps of "
        f"{result['optimiser']}, classes {balanced}, {result['minutes']:.1f} min on {result['device']}.\n"
    )
    print("| score | paper | ours |\n|---|---|---|")
    for name in SHOWN:
        if name in result:
            print(f"| {name} | {experiment.paper.get(name, '')} | {result[name]:.4f} |")


def print_ablation(results: Sequence[dict[str, Any]]) -> None:
    print("\n### Ablation on DIC-HeLa\n\n| weight map | elastic | SEG | IoU | F1 | touching cells found |")
    print("|---|---|---|---|---|---|")
    for result in results:
        variant = result["variant"]
        yes = {True: "yes", False: "no"}
        figures = " | ".join(f"{result[name]:.4f}" for name in ("seg", "iou", "f1", "touching_recall"))
        print(f"| {yes[variant['weights']]} | {yes[variant['elastic']]} | {figures} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=[*EXPERIMENTS, "ablation"], default=list(EXPERIMENTS))
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=8.0, help="of training per experiment")
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--optimiser", default="adamw")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-balance", action="store_true", help="leave classes as frequent as they are (w_c = 1)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = []

    def keep(result: dict[str, Any]) -> dict[str, Any]:
        results.append(result)
        (arguments.output / "results.json").write_text(json.dumps(results, indent=1))
        return result

    for name in arguments.only:
        if name == "ablation":  # its first row is the experiment itself
            rows = [keep(run(EXPERIMENTS["dic_hela"], arguments, variant)) for variant in ABLATION]
            print_experiment(EXPERIMENTS["dic_hela"], rows[0])
            print_ablation(rows)
        else:
            print_experiment(EXPERIMENTS[name], keep(run(EXPERIMENTS[name], arguments, Variant())))


if __name__ == "__main__":
    main()
