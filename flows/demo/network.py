"""The demo's network: make annotated patches of a synthetic slide, then run all steps up to a checkpoint.

Each step is the command of the same name (weight-maps, training-data, train); it keeps what an earlier run has done.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segment_slide.pipeline.blocks.progress import Stages
from segment_slide.pipeline.errors import OutputError
from segment_slide.pipeline.synthetic.slide import PIXEL_SIZE_UM, SyntheticRegion, SyntheticSlide, draw_region

if TYPE_CHECKING:
    from segment_slide.flows.train import TrainReport

_TRAINING_SLIDE = 1  # added to the seed, so that the network never learns from the slide that is scored
_SPACING_PX = 1024  # distance of the patches that may be annotated
_UM_PER_CM = 1e4


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo and settings of its training; the defaults take about three minutes on two cores.

    Parameters
    ----------
    shape : (int, int)
        Size (px) of the slide that is segmented and scored.
    seed : int
        Determines both slides, the initial weights, the samples and their order.
    n_patches, patch_px : int
        Number and size of annotated patches; one lies on glass, and one of the others is kept for validation.
    base_channels, depth, steps, learning_rate
        The network and its training: see `unet.architecture.Architecture` and `unet.train_settings.TrainSettings`.
    n_samples, tile_px : int
        Training samples and their size.
    block : int
        Pixels per side of one task.
    """

    shape: tuple[int, int] = (4096, 4096)
    seed: int = 7
    n_patches: int = 6
    patch_px: int = 512
    base_channels: int = 16
    depth: int = 3
    steps: int = 400
    n_samples: int = 400
    tile_px: int = 256
    learning_rate: float = 3e-3
    block: int = 1024


def annotated_patches(settings: DemoSettings) -> list[SyntheticRegion]:
    """Draw the patches to learn from: one of glass, then the first ones with many cells, all from a separate slide."""
    slide = SyntheticSlide((16 * _SPACING_PX, 16 * _SPACING_PX), settings.seed + _TRAINING_SLIDE)
    crowded: list[SyntheticRegion] = []
    glass: list[SyntheticRegion] = []
    for number in range(16 * 16):
        top, left = (_SPACING_PX * place for place in divmod(number, 16))
        size = settings.patch_px
        patch = draw_region(slide, (slice(top, top + size), slice(left, left + size)))
        share = float(patch.classes.mean())
        if share > 0.3 and len(crowded) < settings.n_patches - 1:
            crowded.append(patch)
        elif 0 < share < 0.1 and not glass:
            glass.append(patch)
        if len(crowded) + len(glass) == settings.n_patches:
            break
    return glass + crowded


def write_patches(settings: DemoSettings, folder: Path) -> tuple[Path, Path]:
    """Write patches and their cells as TIFF files into two folders; existing files are kept.

    Raises
    ------
    OutputError
        If files of other patches exist, or the files cannot be written.
    """
    import tifffile

    images, labels = folder / "images", folder / "labels"
    for number, patch in enumerate(annotated_patches(settings)):
        pixels = {images: np.moveaxis(patch.image, 0, -1), labels: patch.instances}
        for where, values in pixels.items():
            path = where / f"patch-{number}.tif"
            try:
                where.mkdir(parents=True, exist_ok=True)
                if path.exists():
                    if not np.array_equal(tifffile.imread(path), values):
                        raise OutputError(f"{path} shows something else; choose another folder, or delete it.")
                    continue
                partial = path.with_suffix(".partial")
                per_cm = _UM_PER_CM / PIXEL_SIZE_UM
                tifffile.imwrite(partial, values, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
                partial.replace(path)
            except OSError as error:
                raise OutputError(f"{path} cannot be written: {error}") from error
    return images, labels


def make_network(settings: DemoSettings, folder: Path, path: Path, progress: Stages) -> "TrainReport":
    """Run the commands weight-maps, training-data and train.

    Parameters
    ----------
    settings : DemoSettings
        Sizes and training settings.
    folder : Path
        For patches, training set and samples.
    path : Path
        The checkpoint.
    progress : Stages
        Shows the progress of each stage.

    Raises
    ------
    UnetError, PipelineError
        If one of the steps was begun with other settings.
    """
    from segment_slide.flows.train import train_network
    from segment_slide.flows.training_data import make_training_data
    from segment_slide.flows.training_requests import TrainingDataRequest, TrainRequest, WeightMapsRequest
    from segment_slide.flows.weight_maps import make_weight_maps
    from segment_slide.pipeline.training.options import AnnotationInput
    from segment_slide.unet.train_settings import TrainSettings

    images, labels = write_patches(settings, folder)
    training_set, samples = str(folder / "set.zarr"), str(folder / "samples.zarr")
    make_weight_maps(WeightMapsRequest(training_set, AnnotationInput((str(images),), (str(labels),))), progress)
    make_training_data(
        TrainingDataRequest(
            training_set,
            samples,
            n=settings.n_samples,
            tile_px=(settings.tile_px,),
            depth=settings.depth,
            seed=settings.seed,
            validation_names=(f"patch-{settings.n_patches - 1}",),
        ),
        progress,
    )
    training = TrainSettings(
        steps=settings.steps,
        optimiser="adamw",  # in two minutes it gets further than the paper's SGD, which had ten hours
        learning_rate=settings.learning_rate,
        validate_every=max(1, settings.steps // 4),
        save_every=max(1, settings.steps // 8),
        seed=settings.seed,
    )
    request = TrainRequest(samples, str(path), settings.base_channels, 0.0, training, device="cpu")
    return train_network(request, progress)
