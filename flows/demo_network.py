"""The demo's network: which patches it learns from, and how; trained once per folder."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.errors import OutputError
from pipeline.synthetic import (
    CHANNELS,
    CLASSES,
    PIXEL_SIZE_UM,
    SyntheticRegion,
    SyntheticSlide,
    draw_region,
    widen_ridges,
)

if TYPE_CHECKING:
    from unet.checkpoint import Checkpoint, ModelConfig

_TRAINING_SLIDE = 1  # added to the seed: the slide that is scored is never learnt from
_SPACING_PX = 1024  # of the patches that may be annotated
_LOSS_SHARE = 20  # the loss that is recorded is the mean of the last twentieth of the steps


@dataclass(frozen=True)
class DemoSettings:
    """What the demo draws and learns; the defaults take two to three minutes on two cores.

    Parameters
    ----------
    shape : (int, int)
        Size (px) of the slide that is segmented and scored.
    seed : int
        Chooses both slides, the first weights and the tiles.
    n_patches, patch_px : int
        Annotated patches and their size; one of them lies on glass.
    ridge_px : int
        Pixels that annotated cells lose where another is near: a wider ridge is learnt sooner.
    base_channels, depth, steps, tile_px, learning_rate
        The network and its training: see `unet.architecture.Architecture` and `unet.train.TrainSettings`.
    block : int
        Pixels per side of one task.
    """

    shape: tuple[int, int] = (4096, 4096)
    seed: int = 7
    n_patches: int = 5
    patch_px: int = 512
    ridge_px: int = 1
    base_channels: int = 16
    depth: int = 3
    steps: int = 400
    tile_px: int = 256
    learning_rate: float = 3e-3
    block: int = 1024


def annotated_patches(settings: DemoSettings) -> list[SyntheticRegion]:
    """The patches to learn from: the first ones with many cells, and one of glass, of a slide of their own."""
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
    return crowded + glass


def train_network(settings: DemoSettings, path: Path, console: Console) -> "Checkpoint":
    """Train and save, unless the checkpoint of the same training is there.

    Raises
    ------
    OutputError
        If the file holds another network.
    """
    from unet.checkpoint import open_checkpoint, save_checkpoint
    from unet.train import TrainSettings, build_model, train

    patches = annotated_patches(settings)
    config = _describe(settings, patches)
    if path.exists():
        found = open_checkpoint(path)
        if _without_loss(found.config) != type(config).from_json(config.to_json()):
            raise OutputError(f"output={path} was trained with other settings; choose another folder, or delete it.")
        console.print("Network: trained already.")
        return found
    offset, scale = (
        np.array(values, np.float32)[:, None, None]
        for values in (config.normalisation.offset, config.normalisation.scale)
    )
    images = [(patch.image - offset) / scale for patch in patches]
    labels = [widen_ridges(patch.instances, settings.ridge_px) for patch in patches]
    model = build_model(config.architecture, settings.seed)
    columns = (
        TextColumn("train     "),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("steps, loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("train", total=settings.steps, loss=float("nan"))
        result = train(
            model,
            images,
            labels,
            TrainSettings(**config.training["settings"]),
            on_step=lambda step, loss: progress.update(task, completed=step, loss=loss),
        )
    last = result.losses[-max(1, len(result.losses) // _LOSS_SHARE) :]
    config = replace(config, training={**config.training, "loss": round(float(np.mean(last)), 4)})
    return save_checkpoint(path, model, config)


def _describe(settings: DemoSettings, patches: list[SyntheticRegion]) -> "ModelConfig":
    """Everything about the network but its weights."""
    from unet.architecture import Architecture
    from unet.checkpoint import ModelConfig, Normalisation
    from unet.train import TrainSettings

    pixels = np.concatenate([patch.image.reshape(len(CHANNELS), -1) for patch in patches], axis=1)
    data = f"{len(patches)} patches of {settings.patch_px} px of synthetic slide {settings.seed + _TRAINING_SLIDE}"
    training = TrainSettings(
        steps=settings.steps,
        tile_px=(settings.tile_px, settings.tile_px),
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        device="cpu",
    )
    return ModelConfig(
        Architecture(len(CHANNELS), len(CLASSES), settings.base_channels, settings.depth, dropout=0.0),
        classes=CLASSES,
        normalisation=Normalisation(
            offset=tuple(pixels.mean(axis=1).round(3).tolist()), scale=tuple(pixels.std(axis=1).round(3).tolist())
        ),
        channel_names=CHANNELS,
        pixel_size_um=(PIXEL_SIZE_UM, PIXEL_SIZE_UM),
        training={
            "data": data,
            "ridge_px": settings.ridge_px,
            "settings": asdict(training),
        },
    )


def _without_loss(config: "ModelConfig") -> "ModelConfig":
    return replace(config, training={key: value for key, value in config.training.items() if key != "loss"})
