"""Touching nuclei apart by their shape alone: how many of the true ones a split finds.

Takes the true nuclei of public images (Data Science Bowl 2018), forgets which pixel belongs to which, and splits what
hangs together: the mask is perfect, so only the splitting is judged. Beside it: no split, and scikit-image's example
(a watershed from the local maxima of the distance, at least 5 px apart). Run it with::

    python benchmarks/split.py --data ../shared/data/dsb2018
"""

import argparse
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from segment_slide.pipeline.objects.split import split_touching
from segment_slide.pipeline.scoring.object_scores import ObjectScores, score_objects

DEPTHS_PX = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
DATA = Path(os.environ.get("SEGMENT_SLIDE_DATA", "../shared/data")) / "dsb2018"


def split_ours(mask: np.ndarray, depth_px: float) -> np.ndarray:
    """Pieces of a mask."""
    closed = [(False, False)] * mask.ndim
    return split_touching(mask, depth_px=depth_px, spacing=(1.0, 1.0), connectivity=1, open_faces=closed).labels


def split_as_in_the_example(mask: np.ndarray) -> np.ndarray:
    """scikit-image's gallery: "Watershed segmentation"."""
    distance = ndimage.distance_transform_edt(mask)
    components = ndimage.label(mask)[0]
    peaks = np.zeros(mask.shape, np.bool_)
    peaks[tuple(peak_local_max(distance, min_distance=5, labels=components).T)] = True
    return np.asarray(watershed(-distance, ndimage.label(peaks)[0], mask=mask > 0))


def has_touching(truth: np.ndarray) -> bool:
    """Whether nuclei hang together once nobody knows which pixel belongs to which."""
    return int(ndimage.label(truth > 0)[1]) < truth_count(truth)


def truth_count(truth: np.ndarray) -> int:
    """Number of nuclei."""
    return len(np.unique(truth[truth > 0]))


def main() -> None:
    """Print a table of scores, all nuclei of all images with touching ones together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    truths = [tifffile.imread(path) for path in sorted((parser.parse_args().data / "labels").glob("*.tif*"))]
    truths = [truth for truth in truths if has_touching(truth)]
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {"no split": lambda mask: ndimage.label(mask)[0]}
    ways["scikit-image's example"] = split_as_in_the_example
    ways |= {f"--split {depth:g}": functools.partial(split_ours, depth_px=depth) for depth in DEPTHS_PX}
    print(f"{len(truths)} images with touching nuclei, {sum(map(truth_count, truths)):,} nuclei\n")
    print("| | objects | F1 at IoU 0.5 | touching nuclei found |\n|---|--:|--:|--:|")
    for name, way in ways.items():
        total = sum_scores([score_objects(truth, way((truth > 0).astype(np.uint8))) for truth in truths])
        print(f"| {name} | {total[0]:,} | {total[1]:.3f} | {total[2]:.1%} |")


def sum_scores(scores: list[ObjectScores]) -> tuple[int, float, float]:
    """Objects, F1 and share of touching objects found, over all images."""
    found, matched = sum(s.n_predicted for s in scores), sum(s.n_matched for s in scores)
    true = sum(s.n_truth for s in scores)
    touching = sum(s.n_touching_matched for s in scores) / max(1, sum(s.n_touching for s in scores))
    return found, 2 * matched / (found + true), touching


if __name__ == "__main__":
    main()
