"""A real slide from its file to an OME-Zarr segmentation: CMU-1, H&E.

    python benchmarks/real.py --output /tmp/real [--data ../shared/data] [--reuse]

Ingests the file, trains a small U-Net on a few annotated images for some minutes on the CPU, segments through the real
flow, scores what it did not learn from, validates the output with the libraries that others read it with, and writes a
picture. Data: see README.md in the data folder.
"""

import argparse
import contextlib
import io
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import ndimage
from skimage import color, filters, measure, morphology, segmentation, transform

from segment_slide.flows.demo.overlay import Panel, write_overlay
from segment_slide.flows.ingest import ingest_image
from segment_slide.flows.progress import format_seconds
from segment_slide.flows.requests import SegmentRequest
from segment_slide.flows.segment import segment_image
from segment_slide.pipeline.scoring.object_scores import score_objects
from segment_slide.pipeline.scoring.pixel_scores import score_pixels
from segment_slide.pipeline.segmentation.options import SegmentOptions
from segment_slide.pipeline.segmentation.stages import SegmentReport
from segment_slide.pipeline.storage.store import open_array
from segment_slide.pipeline.synthetic.slide import part_cells
from segment_slide.unet.annotated import ArrayPixels
from segment_slide.unet.architecture import Architecture
from segment_slide.unet.array_samples import ArraySamples
from segment_slide.unet.checkpoint import ModelConfig, Normalisation, open_checkpoint, save_checkpoint
from segment_slide.unet.draw import SampleSettings
from segment_slide.unet.model import UNet, whole_image_logits
from segment_slide.unet.sample import IGNORE
from segment_slide.unet.train import build_model, train
from segment_slide.unet.train_settings import Training, TrainSettings
from segment_slide.unet.weight_map import count_class_weights, weight_map
from segment_slide.unet.weight_settings import WeightSettings

DATA = Path(os.environ.get("SEGMENT_SLIDE_DATA", Path(__file__).parents[2] / "shared" / "data"))
CONSOLE = Console()


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    data: str
    train_s: float
    segment: SegmentReport
    scores: str


# -- training, running, validating --------------------------------------------------------------------------------


def read_png(path: Path) -> np.ndarray:
    from imageio.v3 import imread

    return np.asarray(imread(path))


def fit(
    path: Path, images: Sequence[np.ndarray], labels: Sequence[np.ndarray], config: ModelConfig, reuse: bool
) -> float:
    """Train with the weight map and the deformations of the paper, and save; seconds."""
    if reuse and path.exists():
        return float("nan")
    architecture, settings = config.architecture, TrainSettings(**config.training["settings"])
    counts = sum(np.bincount(classes.ravel(), minlength=256)[:IGNORE] for classes in labels)
    class_weights = count_class_weights(counts)
    sources = []
    for image, classes in zip(images, labels, strict=True):
        cells = ndimage.label(classes == 1)[0]
        made = weight_map(cells, WeightSettings(ridge_px=0), classes=classes, class_weights=class_weights)
        sources.append(ArrayPixels(image, made.classes, made.weights))
    samples = ArraySamples(sources, SampleSettings((256, 256), architecture.depth, settings.seed), 1 << 20)
    model = build_model(architecture, settings.seed)
    began = time.perf_counter()
    with Progress(console=CONSOLE) as progress:
        task = progress.add_task("train", total=settings.steps)
        history = train(
            model,
            Training(samples, settings, device="cpu"),
            on_step=lambda step, loss: progress.update(task, completed=step, description=f"train, loss {loss:.3f}"),
        )
    tenth = max(1, settings.steps // 10)
    curve = [float(np.mean(history.losses[start : start + tenth])) for start in range(0, settings.steps, tenth)]
    CONSOLE.print("loss by tenths of the training:", " ".join(f"{loss:.3f}" for loss in curve))
    save_checkpoint(path, model, config)
    return time.perf_counter() - began


def constants(images: Sequence[np.ndarray]) -> Normalisation:
    """Mean and standard deviation per channel of (c, y, x) images."""
    pixels = np.concatenate([image.reshape(image.shape[0], -1) for image in images], axis=1)
    return Normalisation(offset=tuple(pixels.mean(axis=1).tolist()), scale=tuple(pixels.std(axis=1).tolist()))


def normalise(image: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    offset, scale = (np.array(v, np.float32)[:, None, None] for v in (normalisation.offset, normalisation.scale))
    return (image.astype(np.float32) - offset) / scale


def run_flow(image: Path, model: Path, output: Path, options: SegmentOptions) -> SegmentReport:
    return segment_image(SegmentRequest(input=str(image), model=str(model), output=str(output), options=options))


def validate(location: Path, groups: Sequence[str]) -> None:
    """Open an output as others do: ome-zarr-models, ome-zarr-py's reader, napari's plugin."""
    import zarr
    from napari_ome_zarr import napari_get_reader
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from ome_zarr_models import open_ome_zarr

    kinds = [type(open_ome_zarr(zarr.open_group(location / group, mode="r"))).__name__ for group in groups]
    nodes = list(Reader(parse_url(location))())
    shapes = [node.data[0].shape for node in nodes if node.data]
    with contextlib.redirect_stdout(io.StringIO()):  # the plugin prints its attributes
        layers = napari_get_reader(str(location))(str(location))
    CONSOLE.print(
        f"valid: {', '.join(kinds)} (ome-zarr-models); {len(nodes)} nodes {shapes} (ome-zarr); "
        f"layers {[(kind, meta.get('name')) for _, meta, kind in layers]} (napari-ome-zarr)",
        highlight=False,
    )


# -- CMU-1 ---------------------------------------------------------------------------------------------------

SEEN_ROWS = 1450  # the network sees the slide above this row, and is shown and compared below it
PATCHES = ((150, 1000), (450, 750), (800, 850), (900, 1250))  # top, left of patches of 512 px
NUCLEUS_PX = 200  # area of the nucleus that a nucleus' pixel belongs to, in the median, at 0.5 um
HELD_OUT_STAINED = 2


def wsi(data: Path, output: Path, reuse: bool) -> Row:
    """An H&E slide; nuclei learnt from hand labels of another stain and from pseudo labels of its upper half."""
    from tifffile import imread

    output.mkdir(parents=True, exist_ok=True)
    path = data / "wsi" / "CMU-1-Small-Region.svs"
    slide = np.asarray(imread(path, key=0))
    ingest_image([path], str(output / "slide.ome.zarr"))
    stained = list(stained_nuclei(data / "dsb2018"))
    CONSOLE.rule(f"CMU-1: {slide.shape[0]} x {slide.shape[1]} px")
    CONSOLE.print(
        f"Nobody labelled this slide's nuclei. The network learns from {len(stained) - HELD_OUT_STAINED} of "
        f"{len(stained)} hand-labelled images of purple nuclei (DSB 2018: no eosin, no collagen) and from pseudo "
        f"labels of {len(PATCHES)} patches of the slide's upper half: colour deconvolution, a local threshold, shape; "
        f"doubtful objects are ignored.",
        highlight=False,
    )
    pseudo = pseudo_labels(slide)
    patches = [(slice(top, top + 512), slice(left, left + 512)) for top, left in PATCHES]
    taught = stained[HELD_OUT_STAINED:]
    images = [np.moveaxis(slide[patch], -1, 0) for patch in patches] + [image for image, _ in taught] * 2
    labels = [pseudo[patch] for patch in patches] + [(part_cells(ids) > 0).astype(np.uint8) for _, ids in taught] * 2
    normalisation = constants(images[: len(patches)])
    settings = TrainSettings(steps=1000, optimiser="adamw", learning_rate=2e-3, precision="bfloat16", seed=1)
    config = ModelConfig(
        Architecture(3, 2, base_channels=16, depth=3, dropout=0.0),
        ("background", "nucleus"),
        normalisation,
        ("red", "green", "blue"),
        pixel_size_um=(0.499, 0.499),
        training={"data": "DSB 2018 and pseudo labels of CMU-1, rows 0-1450", "settings": asdict(settings)},
    )
    model = output / "nuclei.safetensors"
    train_s = fit(model, [normalise(image, normalisation) for image in images], labels, config, reuse)
    report = run_flow(
        output / "slide.ome.zarr",
        model,
        output / "nuclei.ome.zarr",
        SegmentOptions(name="nuclei", block=1024, tta="flips"),
    )
    validate(output / "nuclei.ome.zarr", ["", "labels/nuclei"])

    found = np.asarray(open_array(report.location, "labels/nuclei/0")[...])
    below = slice(SEEN_ROWS, None)
    sure = pseudo[below] != IGNORE
    agreement = score_pixels(pseudo[below][sure], found[below][sure])
    network = open_checkpoint(model).load_model()
    by_hand = [hand_scores(network, normalise(image, normalisation), ids) for image, ids in stained[:HELD_OUT_STAINED]]
    draw_wsi(output / "wsi.png", slide, found)
    return Row(
        "CMU-1",
        f"{slide.shape[0]} x {slide.shape[1]}, H&E",
        train_s,
        report,
        f"hand labels of {HELD_OUT_STAINED} unseen DSB images: IoU {', '.join(f'{iou:.2f}' for iou, _ in by_hand)}, "
        f"object F1 {', '.join(f'{f1:.2f}' for _, f1 in by_hand)}; unseen half of the slide: IoU "
        f"{agreement.iou:.2f} with pseudo labels (agreement, no truth); {ndimage.label(found)[1]:,} nuclei",
    )


def hand_scores(network: UNet, image: np.ndarray, ids: np.ndarray) -> tuple[float, float]:
    predicted = whole_image_logits(network, image).argmax(axis=0)
    truth = part_cells(ids)
    return score_pixels(truth > 0, predicted > 0).iou, score_objects(truth, ndimage.label(predicted)[0]).f1


def stained_nuclei(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(image (c, y, x), ids) of the purple images, at the scale where a nucleus is as large as on the slide."""
    from tifffile import imread

    for path in sorted((folder / "images").glob("*.png")):
        image = read_png(path)[..., :3]
        if np.ptp(image.reshape(-1, 3).mean(axis=0)) < 5 or image.mean() < 100:  # grey, or fluorescence
            continue
        ids = np.asarray(imread(folder / "labels" / f"{path.stem}.tif"))
        factor = np.sqrt(NUCLEUS_PX / np.median(np.bincount(ids.ravel())[ids[ids > 0]]))
        shape = tuple(round(size * factor) for size in ids.shape)
        scaled = transform.resize(image, shape, order=1, anti_aliasing=factor < 1, preserve_range=True)
        rows, columns = (
            np.minimum((np.arange(n) + 0.5) / factor, size - 1).astype(int)
            for n, size in zip(shape, ids.shape, strict=True)
        )
        yield np.moveaxis(scaled, -1, 0).round().astype(np.uint8), ids[np.ix_(rows, columns)].astype(np.uint32)


def pseudo_labels(slide: np.ndarray) -> np.ndarray:
    """Nuclei by colour deconvolution (Ruifrok & Johnston 2001): 1 sure, 255 doubtful, 0 the rest.

    A nucleus holds more hematoxylin than most tissue and than its surroundings, is 35 to 600 px large and convex.
    Other dark things of its size are doubtful, larger ones (ink, folds) are background. Where doubtful things prevail
    (keratin), all of them are background.
    """
    stain = ndimage.gaussian_filter(color.rgb2hed(slide)[..., 0], 1.0)
    tissue = ndimage.gaussian_filter(slide.mean(axis=2), 4) < 215
    dark = stain > 0.9 * filters.threshold_otsu(stain[tissue])
    dark &= stain > ndimage.gaussian_filter(stain, 15) + 0.012
    dark = ndimage.binary_fill_holes(ndimage.binary_opening(dark))
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(dark), 1.0)
    peaks = measure.label(morphology.h_maxima(distance, 0.6))
    ids = segmentation.watershed(-distance, peaks, mask=dark).astype(np.uint32)
    labels = part_cells(ids)
    classes = (labels > 0).astype(np.uint8)
    for region in measure.regionprops(labels):
        sure = 35 <= region.area <= 600 and region.solidity > 0.85
        if not sure:
            classes[region.slice][region.image] = 0 if region.area > 600 else IGNORE
    sure, doubtful = (ndimage.gaussian_filter((classes == value).astype(np.float32), 25) for value in (1, IGNORE))
    classes[(doubtful > 2 * sure) & (doubtful > 0.03)] = 0
    return classes


def draw_wsi(path: Path, slide: np.ndarray, found: np.ndarray) -> None:
    top, left, size, step = 2490, 540, 330, 3
    zoom = (slice(top, top + size), slice(left, left + size))
    frame = (top / step, left / step, size / step, size / step)
    panels = [
        Panel(slide[::step, ::step], "CMU-1 small region, H&E", frame=frame),
        Panel(slide[zoom], "a place that was not learnt from"),
        Panel(slide[zoom], "nuclei found", [(found[zoom] > 0, "yellow")]),
    ]
    write_overlay(path, panels, "learnt from hand labels of another stain and pseudo labels of the upper half")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--reuse", action="store_true", help="keep networks that are there")
    options = parser.parse_args()
    table = Table(title="A real slide, on the CPU", title_justify="left")
    for heading in ("", "image", "train", "segment", "Mpx/s", "scores"):
        table.add_column(heading)
    began = time.perf_counter()
    row = wsi(options.data, options.output, options.reuse)
    CONSOLE.print(f"{format_seconds(time.perf_counter() - began)} in all")
    table.add_row(
        row.name,
        row.data,
        format_seconds(row.train_s) if row.train_s == row.train_s else "reused",
        format_seconds(row.segment.seconds),
        f"{row.segment.pixels_per_s / 1e6:.2f}",
        row.scores,
    )
    CONSOLE.print(table)


if __name__ == "__main__":
    main()
