"""Training samples per second on one core, beside MONAI's Rand2DElastic, in one run.

    python -m venv /tmp/monai && /tmp/monai/bin/pip install monai
    python benchmarks/augment.py --monai-python /tmp/monai/bin/python

Both make one sample of 444x444 px (a 256 px tile and its halo at depth 4) from the same image, classes and weights:
displacements of 10 px on 3x3 control points, bicubic between them, rotation by any angle, flips or a shift. Ours is the
whole `draw_sample`: it chooses the place, cuts it from the image, varies grey values and ignores what lies outside.
MONAI gets the right part of the image, cut beforehand, and does nothing but deform; it has one size for all, so it
deforms classes and weights of the halo too. Calls take turns; medians.

MONAI is no dependency of the project: the other interpreter only needs to import monai (pip install --no-deps monai is
enough), everything else is taken from the project's environment.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are imported
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from segment_slide.unet.annotated import ArrayPixels  # noqa: E402
from segment_slide.unet.draw import SampleSettings, draw_sample  # noqa: E402

SETTINGS = SampleSettings((256, 256), depth=4)
SIZE = SETTINGS.read_px
ROOM = 684  # px that a turned and deformed sample of 444 px may show


def draw_source(n_channels):
    """An image of smooth cells with noise, 2048x2048 px, with its classes and weights."""
    from scipy import ndimage

    random = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(random.normal(size=(2048, 2048)), 12)
    classes = (smooth > 0).astype(np.uint8)
    noise = random.normal(size=(n_channels, 2048, 2048))
    image = (smooth / smooth.std() + noise / 2).astype(np.float32)
    weights = (1 + 10 * np.exp(-(smooth**2) / 1e-4)).astype(np.float32)
    return image, classes, weights


def make_ours(image, classes, weights):
    source = [ArrayPixels(image, classes, weights)]
    return lambda number: draw_sample(source, SETTINGS, number)


def make_monai(image, classes, weights, mode):
    import torch
    from monai.transforms import Rand2DElasticd

    torch.set_num_threads(1)
    keys = ("image", "classes", "weights")
    box = (slice(None), slice(600, 600 + ROOM), slice(600, 600 + ROOM))
    parts = (image, classes[None].astype(np.float32), weights[None])
    data = {key: torch.from_numpy(part[box].copy()) for key, part in zip(keys, parts, strict=True)}
    deform = Rand2DElasticd(
        keys=keys,
        spacing=tuple((size - 1) / 2 for size in SIZE),
        magnitude_range=(10, 10),
        prob=1,
        rotate_range=(math.pi,),
        spatial_size=SIZE,
        mode=(mode, "nearest", "nearest"),
        padding_mode="reflection",
    )
    deform.set_random_state(0)
    return lambda number: deform(dict(data))


def measure(candidates, rounds):
    """Seconds of each call, candidates taking turns."""
    times = {name: [] for name in candidates}
    for number in range(-2, rounds):  # the first two compile and fill caches
        for name, call in candidates.items():
            began = time.perf_counter()
            call(abs(number))
            if number >= 0:
                times[name].append(time.perf_counter() - began)
    return times


def report(times):
    ours = np.median(times["ours"])
    for name, seconds in times.items():
        median, low, high = np.median(seconds), *np.quantile(seconds, (0.25, 0.75))
        print(
            f"  {name:<28} {1 / median:7.1f} samples/s   {median * 1e3:6.1f} ms "
            f"(quartiles {low * 1e3:.1f} to {high * 1e3:.1f})   {median / ours:5.2f} x ours"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--monai-python", help="interpreter that imports monai")
    parser.add_argument("--rounds", type=int, default=40, help="calls of each (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.monai_python and os.path.abspath(arguments.monai_python) != sys.executable:
        packages = os.pathsep.join(path for path in sys.path if path)
        command = [arguments.monai_python, __file__, "--rounds", str(arguments.rounds)]
        # appended to the other interpreter's own, so that monai sees one numpy and one torch: the project's
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": packages}, check=False).returncode
    try:
        import monai
        import torch
    except ImportError:
        print("monai cannot be imported, so there is nothing to compare with: see --monai-python. Ours alone:")
        monai = None
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if monai:
        print(f"MONAI {monai.__version__}, torch {torch.__version__}, numpy {np.__version__}, one core, {SIZE} px")
    for n_channels in (1, 3):
        data = draw_source(n_channels)
        candidates = {"ours": make_ours(*data)}
        if monai:
            candidates["MONAI, image bilinear"] = make_monai(*data, "bilinear")
            candidates["MONAI, image bicubic"] = make_monai(*data, "bicubic")
        print(f"{n_channels} channel(s), classes and weights, {arguments.rounds} rounds:")
        report(measure(candidates, arguments.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
