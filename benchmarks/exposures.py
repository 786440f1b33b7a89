"""Images of mixed exposure: how much better the normalisation that `auto` chooses is than constants.

    python benchmarks/exposures.py [--images 40] [--steps 400] [--keep FOLDER]        about five minutes on two cores

Fluorescence of the Data Science Bowl 2018, stage 1 (CC0): half of the images from the third with the smallest ranges of
intensities, half from the third with the largest. A small network is trained twice on the same images, from the same
seed: with `auto`, and with `constants`. Both are scored on the same images that neither has seen. Then blank fields,
which nobody annotated, are counted for false pixels. Networks are applied to whole images, as the tiled segmentation
gives them.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import DATA
from imageio.v3 import imread

from segment_slide.flows.train import train_network
from segment_slide.flows.training_data import make_training_data
from segment_slide.flows.training_requests import TrainingDataRequest, TrainRequest, WeightMapsRequest
from segment_slide.flows.weight_maps import make_weight_maps
from segment_slide.pipeline.blocks.array_spec import ArraySpec
from segment_slide.pipeline.statistics.apply import ImageScaling, scale_image
from segment_slide.pipeline.storage.image import describe_image
from segment_slide.pipeline.storage.source import select_source
from segment_slide.pipeline.storage.store import create_group, open_array
from segment_slide.pipeline.training.options import AnnotationInput
from segment_slide.unet.checkpoint import Checkpoint
from segment_slide.unet.model import whole_image_logits
from segment_slide.unet.normalisation import WantedNormalisation
from segment_slide.unet.train_settings import TrainSettings

STAINED = DATA / "dsb2018_stage1" / "fluorescence"


@dataclass(frozen=True)
class Score:
    """Intersection over union of all pixels together, and its mean over the images, the dark half, the bright half."""

    pooled: float
    mean: float
    dark: float
    bright: float


def pick_images(count: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """Names to learn from, and as many others to score with: half from the darkest third, half from the brightest."""
    names = sorted(path.name for path in (STAINED / "images").glob("*.png"))
    ranges = [float(np.ptp(np.percentile(grey(imread(STAINED / "images" / name)), (1, 99.8)))) for name in names]
    order, third = np.argsort(ranges, kind="stable"), len(names) // 3
    rng = np.random.default_rng(seed)
    dark, bright = rng.permutation(order[:third])[:count], rng.permutation(order[-third:])[:count]
    half = count // 2
    return [names[i] for i in (*dark[:half], *bright[:half])], [names[i] for i in (*dark[half:], *bright[half:])]


def train(folder: Path, names: Sequence[str], kind: str, settings: TrainSettings) -> Checkpoint:
    """Run the commands weight-maps, training-data and train."""
    images, labels = (tuple(str(STAINED / part / name) for name in names) for part in ("images", "labels"))
    if not (folder / "set.zarr").exists():
        make_weight_maps(WeightMapsRequest(str(folder / "set.zarr"), AnnotationInput(images, labels)))
    samples = str(folder / f"{kind}.zarr")
    wanted = WantedNormalisation(kind)
    request = TrainingDataRequest(
        str(folder / "set.zarr"), samples, n=200, tile_px=(128,), depth=3, normalisation=wanted
    )
    report = make_training_data(request)
    print(f"{kind}: {report.samples.normalisation.kind} {report.samples.reason}", *report.notes, sep="\n  ")
    return train_network(TrainRequest(samples, str(folder / f"{kind}.safetensors"), 8, 0.0, settings)).checkpoint


def predict(checkpoint: Checkpoint, pixels: np.ndarray, folder: Path) -> tuple[np.ndarray, ImageScaling]:
    """Foreground of a picture, normalised as the segmentation does it."""
    if not folder.exists():
        size = (1, *pixels.shape)
        create_group(str(folder), "", [ArraySpec("0", size, size, size, str(pixels.dtype), "cyx")], {})
        open_array(str(folder), "0", writable=True)[...] = pixels[None]
    source = select_source(describe_image(folder / "0", axes="cyx"), n_spatial=2, n_channels=1)
    found = scale_image(source, checkpoint.config.normalisation, checkpoint.config.intensities)
    scaled = (pixels.astype(np.float32) - np.float32(found.offset[0])) / np.float32(found.scale[0])
    return whole_image_logits(checkpoint.load_model(), scaled[None]).argmax(axis=0) > 0, found


def score(checkpoint: Checkpoint, names: Sequence[str], folder: Path) -> Score:
    """Compare with the annotation."""
    overlaps, unions, noted = [], [], 0
    for name in names:
        truth = np.asarray(imread(STAINED / "labels" / name)) > 0
        found, scaling = predict(checkpoint, grey(imread(STAINED / "images" / name)), folder / name)
        overlaps.append(int((found & truth).sum()))
        unions.append(int((found | truth).sum()))
        noted += bool(scaling.notes)
        for note in scaling.notes[:1]:
            print("   ", name, note, f"IoU {overlaps[-1] / max(1, unions[-1]):.3f}")
    each = [overlap / max(1, union) for overlap, union in zip(overlaps, unions, strict=True)]
    print(f"  {noted} of {len(names)} images were noted as unlike the training images")
    half = len(each) // 2
    means = (float(np.mean(part)) for part in (each, each[:half], each[half:]))
    return Score(sum(overlaps) / sum(unions), *means)


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels if pixels.ndim == 2 else pixels[..., 0])


def blank_fields() -> dict[str, np.ndarray]:
    """Fields without objects."""
    rng, size = np.random.default_rng(0), (256, 256)
    hot = rng.normal(4, 0.7, size).round().clip(0).astype(np.uint8)
    hot[100, 120] = 255
    return {
        "noise, 8 bits": rng.normal(12, 2, size).round().clip(0).astype(np.uint8),
        "noise, 16 bits": rng.normal(400, 15, size).round().astype(np.uint16),
        "noise, real numbers": rng.normal(0.1, 0.01, size).astype(np.float32),
        "constant": np.full(size, 7, np.uint8),
        "one value and the next": (rng.random(size) < 0.1).astype(np.uint8),
        "a hot pixel": hot,
    }


def main() -> None:
    """Train twice, score, print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--optimiser", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--keep", type=Path, help="folder for all files; a later run goes on with it")
    arguments = parser.parse_args()
    if not STAINED.is_dir():
        parser.error(f"{STAINED} is not there (SEGMENT_SLIDE_DATA)")
    steps, rate = arguments.steps, 3e-3 if arguments.optimiser == "adamw" else None
    settings = TrainSettings(
        steps=steps, optimiser=arguments.optimiser, learning_rate=rate, validate_every=max(1, steps // 4)
    )
    learnt, others = pick_images(arguments.images)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        scores = {}
        for kind in ("auto", "constants"):
            checkpoint = train(folder, learnt, kind, settings)
            scores[kind] = score(checkpoint, others, folder / "others")
            found = scores[kind]
            print(
                f"  {kind}: IoU {found.pooled:.3f} of all pixels; mean of images {found.mean:.3f}, of dark ones "
                f"{found.dark:.3f}, of bright ones {found.bright:.3f}"
            )
            for name, pixels in blank_fields().items():
                wrong, _ = predict(checkpoint, pixels, folder / "blank" / name)
                print(f"  {kind}, blank field ({name}): {int(wrong.sum())} of {wrong.size} px foreground")
    for part in ("mean", "dark", "bright"):
        ratio = getattr(scores["auto"], part) / max(getattr(scores["constants"], part), 1e-9)
        print(f"IoU of auto divided by IoU of constants, {part} of {len(others)} images: {ratio:.2f}")


if __name__ == "__main__":
    main()
