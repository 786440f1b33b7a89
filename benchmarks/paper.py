"""The experiments of Ronneberger 2015 (Sec. 4), as far as public data allow, and what each part of the training earns.

    python benchmarks/paper.py --output DIR                        all three on this machine, base 16
    python benchmarks/paper.py --output DIR --only ablation
    python benchmarks/paper.py --output DIR --base 64 --minutes 8  the paper's network, for a GPU

Prints one table a run: the paper's figure, ours, the protocol. Figures go to DIR/results.json too, and one picture an
experiment. What is compared is never learnt from; no choice was made by looking at it.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage.io import imread

from flows.overlay import Panel, write_overlay
from pipeline.contingency import count_pairs
from pipeline.membrane_scores import score_membranes
from pipeline.object_scores import score_objects, score_seg
from pipeline.pixel_scores import score_pixels
from unet.annotated import ArrayPixels
from unet.architecture import Architecture
from unet.array_samples import ArraySamples
from unet.augment import AugmentSettings
from unet.device import describe_processor, resolve_device
from unet.draw import SampleSettings
from unet.predict import Predictor
from unet.sample import IGNORE
from unet.train import Training, TrainSettings, build_model, train
from unet.weight_map import count_class_weights, cut_ridges, weight_map
from unet.weight_settings import WeightSettings

DATA = Path(os.environ.get("SEGMENT_SLIDE_DATA", Path(__file__).parents[2] / "shared" / "data"))
TILE_PX = 256
N_SAMPLES = 1 << 20  # drawn when asked for: no sample comes twice


@dataclass(frozen=True)
class Frame:
    """One annotated image: `instances` 0 background; where `known` is false nobody annotated."""

    name: str
    image: np.ndarray
    instances: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Experiment:
    """A data set, its split, and how results are scored.

    `small_px`: objects up to this size are dropped before objects are scored, as the release did with 500 px.
    """

    name: str
    load: Callable[[], list[Frame]]
    held_out: tuple[str, ...]
    score: Callable[[Sequence[Frame], Sequence[np.ndarray], int], dict[str, float]]
    paper: dict[str, str]
    protocol: str
    small_px: int = 0
    ridge_px: int = 1


# -- data ----------------------------------------------------------------------------------------------------


def load_isbi() -> list[Frame]:
    """Labelled slices; cells are the 4-connected components of white."""
    frames = []
    for path in sorted((DATA / "isbi2012" / "label").glob("*.png")):
        cells = ndimage.label(imread(path) > 0)[0].astype(np.int32)
        image = imread(DATA / "isbi2012" / "image" / path.name).astype(np.float32)
        frames.append(Frame(path.stem, image, cells, np.ones(cells.shape, bool)))
    return frames


def load_hela() -> list[Frame]:
    """Frames with gold masks; where only some cells were outlined, what is outside them is unknown."""
    frames = []
    for path in sorted((DATA / "dic_hela" / "01_GT" / "SEG").glob("man_seg*.tif")):
        number = path.stem.removeprefix("man_seg")
        cells = imread(path).astype(np.int32)
        partial = len(np.unique(cells)) - 1 < 6  # the others have 9 to 12 cells
        image = imread(DATA / "dic_hela" / "01" / f"t{number}.tif").astype(np.float32)
        frames.append(Frame(number, image, cells, (cells > 0) | (not partial)))
    return frames


def load_phc() -> list[Frame]:
    """Phase contrast images with instance ids."""
    frames = []
    for folder in sorted((DATA / "phc_t98g").glob("set*"), key=lambda path: int(path.name[3:])):
        cells = imread(folder / "instances_ids.png").astype(np.int32)
        image = imread(folder / "phase.png").astype(np.float32)
        frames.append(Frame(folder.name, image, cells, np.ones(cells.shape, bool)))
    return frames


# -- scores --------------------------------------------------------------------------------------------------


def score_em(frames: Sequence[Frame], probabilities: Sequence[np.ndarray], small_px: int) -> dict[str, float]:
    """The challenge's errors, each at its best threshold for the mean over slices."""
    truth = np.stack([(frame.instances > 0).astype(np.uint8) for frame in frames])
    scores = score_membranes(truth, np.stack(probabilities))
    return {name: best["value"] for name, best in asdict(scores).items()}


def score_cells(frames: Sequence[Frame], probabilities: Sequence[np.ndarray], small_px: int) -> dict[str, float]:
    """SEG over all cells, IoU of cells against background over all known pixels, F1 at IoU 0.5."""
    found = [find_objects(probability, small_px) for probability in probabilities]
    tables = [
        count_pairs(frame.instances, objects, number)
        for number, (frame, objects) in enumerate(zip(frames, found, strict=True))
    ]
    from pipeline.contingency import merge_tables

    whole = [(f, o) for f, o in zip(frames, found, strict=True) if f.known.all()]
    true = np.concatenate([(frame.instances > 0).ravel() for frame, _ in whole])
    predicted = np.concatenate([(objects > 0).ravel() for _, objects in whole])
    objects = [score_objects(frame.instances, objects) for frame, objects in whole]
    matched, n_all = sum(s.n_matched for s in objects), sum(s.n_truth + s.n_predicted for s in objects)
    touching, n_touching = sum(s.n_touching_matched for s in objects), sum(s.n_touching for s in objects)
    return {
        "seg": score_seg(merge_tables(tables)),
        "iou": score_pixels(true, predicted).iou,
        "f1": 2 * matched / max(1, n_all),
        "touching_recall": touching / max(1, n_touching),
    }


def find_objects(probability: np.ndarray, small_px: int) -> np.ndarray:
    """4-connected components of the likelier class, holes filled, small ones dropped."""
    objects, _ = ndimage.label(ndimage.binary_fill_holes(probability > 0.5))
    areas = np.bincount(objects.ravel())
    small = areas <= small_px
    return np.where(small[objects], 0, objects)


EXPERIMENTS = {
    "isbi2012": Experiment(
        "isbi2012",
        load_isbi,
        ("03", "08", "13", "17", "22", "27"),
        score_em,
        {
            "pixel_error": "0.0611",
            "rand_f_score": "0.9618 (Rand error 0.0382)",
            "warping_error": "0.000353",
        },
        "18 of the 24 labelled slices learnt, 6 scored (paper: 30 learnt, 30 others scored by the organisers); "
        "8 orientations averaged (paper: 7)",
        ridge_px=0,  # membranes part the cells already
    ),
    "dic_hela": Experiment(
        "dic_hela",
        load_hela,
        ("031", "033", "034"),
        score_cells,
        {"seg": "0.7756 (its IoU is the challenge's SEG)"},
        "6 frames of sequence 01 learnt (one of them annotated in part), 3 later ones scored (paper: 20 frames "
        "learnt, 2 other sequences scored)",
        small_px=500,
    ),
    "phc_t98g": Experiment(
        "phc_t98g",
        load_phc,
        ("set3", "set6", "set9"),
        score_cells,
        {"seg": "0.9203 on PhC-U373, another cell line"},
        "7 images learnt, 3 scored; T98G cells stand in for U373, whose images are not public in this form",
        small_px=50,
    ),
}


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
        predictor = Predictor(
            model,
            offset=(0.0,),
            scale=(1.0,),
            tile_px=tuple(size + more for size, more in zip((height, width), surplus, strict=True)),
            precision="float32",
            tta="flips",
            device=arguments.device,
            concurrency=1,
        )
        scores = predictor.predict(padded, "float32").probabilities[1, :height, :width]
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
