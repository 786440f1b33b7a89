"""Public data of the paper's experiments, what is held out of each, and how it is scored; for `paper.py`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.io import imread

from segment_slide.pipeline.scoring.contingency import count_pairs, merge_tables
from segment_slide.pipeline.scoring.membrane_scores import score_membranes
from segment_slide.pipeline.scoring.object_scores import score_objects, score_seg
from segment_slide.pipeline.scoring.pixel_scores import score_pixels

DATA = Path(os.environ.get("SEGMENT_SLIDE_DATA", Path(__file__).parents[2] / "shared" / "data"))


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
