"""A network of the paper's kind that has learnt enough of ISBI 2012 for its labels to mean something.

    python benchmarks/trained.py MODEL.safetensors [--steps 400] [--base 16]          about three minutes; kept if there

Weights as they are drawn give logits near each other everywhere, and labels that the slightest error turns. It learns
from the slices that have labels here; `limits.py` compares labels of the others.
"""

import argparse
from pathlib import Path

from common import DATA
from real import constants, fit, normalise, read_png

from segment_slide.unet.architecture import Architecture
from segment_slide.unet.checkpoint import ModelConfig


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--base", type=int, default=16)
    arguments = parser.parse_args()
    names = sorted(path.name for path in (DATA / "isbi2012/label").glob("*.png"))
    if not names:
        parser.error(f"{DATA}/isbi2012 is not there (SEGMENT_SLIDE_DATA)")
    images = [read_png(DATA / "isbi2012/image" / name)[None] for name in names]
    labels = [(read_png(DATA / "isbi2012/label" / name) > 0).astype("uint8") for name in names]
    settings = {"steps": arguments.steps, "optimiser": "adamw", "learning_rate": 1.5e-3}
    normalisation = constants(images)
    config = ModelConfig(
        Architecture(base_channels=arguments.base, dropout=0.0),
        ("membrane", "cell"),
        normalisation=normalisation,
        training={"data": f"ISBI 2012, {len(names)} slices", "settings": settings},
    )
    images = [normalise(image, normalisation) for image in images]
    took = fit(arguments.model, images, labels, config, reuse=True)
    print(f"{arguments.model}: {took:.0f} s")


if __name__ == "__main__":
    main()
