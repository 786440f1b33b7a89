"""Which class of a class map or mask holds the objects: masks of 0 and 255 have no class 1."""

from dataclasses import replace

import numpy as np

from segment_slide.pipeline.scoring.label_pair import LabelPair, location_of, read_part
from segment_slide.pipeline.scoring.mask_files import Source
from segment_slide.pipeline.scoring.options import EvaluateOptions


def settle_classes(pair: LabelPair, options: EvaluateOptions) -> tuple[EvaluateOptions, tuple[str, ...]]:
    """Replace the class of objects on a side that has no such class but only one value beside 0, as masks have.

    Planes are read until one holds the class; usually the first does.

    Returns
    -------
    options : EvaluateOptions
        With the classes to split into components.
    notes : tuple of str
        What was replaced, or which class is missing.
    """
    notes = []
    for name, source, wanted in (
        ("predicted", pair.predicted, options.predicted_class),
        ("truth", pair.truth, options.truth_class),
    ):
        if wanted is None:
            continue
        ends = _other_values(pair, source, wanted, options.ignored if name == "truth" else None)
        if ends is None:
            continue
        lowest, highest = ends
        if lowest == highest:
            is_truth = name == "truth"
            options = replace(options, truth_class=lowest) if is_truth else replace(options, predicted_class=lowest)
            notes.append(f"{name} has no class {wanted}, only 0 and {lowest}: its objects are components of {lowest}")
        else:
            notes.append(
                f"{name}={location_of(source)} has no class {wanted}, but values up to {highest}: choose the class of "
                f"the objects with `value`"
            )
    return options, tuple(notes)


def _other_values(pair: LabelPair, source: Source, wanted: int, ignored: int | None) -> tuple[int, int] | None:
    """Lowest and highest value beside 0 if no pixel has the wanted one; None if one has it, or if all are 0."""
    found: list[int] = []
    for part in pair.planes():
        values = read_part(source, part)
        if (values == wanted).any():
            return None
        others = values[(values != 0) & (values != ignored)] if ignored is not None else values[values != 0]
        if others.size:
            found += [int(np.min(others)), int(np.max(others))]
    return (min(found), max(found)) if found else None
