"""Which label image belongs to which image, decided from their names alone."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence

from segment_slide.pipeline.errors import InputError

_SHOWN = 5
Key = Callable[[str], str]


def pair_files(
    images: Sequence[str], labels: Sequence[str], *, inside: bool = False
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Pair images with label images, and name the pairs.

    These rules are tried in order, and the first that gives every label image exactly one partner is used: equal names
    without endings; equal last numbers (``t002.tif`` and ``man_seg002.tif``, as in the Cell Tracking Challenge); the
    same folder; one image and one label image. The order of files is never used: one more or one missing file would
    shift it.

    Parameters
    ----------
    images, labels : sequence of str
        Paths, each named once.
    inside : bool
        Whether each label image lies inside the image at the same position of the list.

    Returns
    -------
    pairs : list of (name, image, labels)
        Names are unique: the image's name without endings, with its folder in front if several have the same name.
    without_labels : list of str
        Images that no label image belongs to.

    Raises
    ------
    InputError
        If label images have no partner. The message names them.

    Examples
    --------
    >>> pair_files(["a/t000.tif", "a/t001.tif"], ["b/man_seg001.tif"])
    ([('t001', 'a/t001.tif', 'b/man_seg001.tif')], ['a/t000.tif'])
    """
    partners = dict(zip(images, labels, strict=True)) if inside else _match(images, labels)
    names = _name(list(partners))
    pairs = [(name, image, partners[image]) for name, image in zip(names, partners, strict=True)]
    return pairs, [image for image in images if image not in partners]


def stem(path: str) -> str:
    """A file's name without endings.

    >>> stem("/data/slide.v2.ome.zarr"), stem("cells.tif")
    ('slide.v2', 'cells')
    """
    return re.sub(r"(\.ome)?\.[A-Za-z0-9]+$", "", os.path.basename(path)) or os.path.basename(path)


def last_number(path: str) -> str:
    """The last number in a file's name, without leading zeros; empty if there is none.

    >>> last_number("man_seg002.tif"), last_number("t01_b10.ome.tif"), last_number("x.png")
    ('2', '10', '')
    """
    numbers = re.findall(r"\d+", stem(path))
    return (numbers[-1].lstrip("0") or "0") if numbers else ""


def _match(images: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    keys: tuple[Key, ...] = (stem, last_number, os.path.dirname)
    for key in keys:
        partners = _match_by(key, images, labels)
        if partners is not None:
            return partners
    if len(images) == len(labels) == 1:
        return {images[0]: labels[0]}
    raise InputError(_explain(images, labels))


def _match_by(key: Key, images: Sequence[str], labels: Sequence[str]) -> dict[str, str] | None:
    """Partners by equal keys, in the order of the images; None if any label image has no partner or several."""
    label_of = {key(path): path for path in labels}
    count = Counter(map(key, images))
    if "" in label_of or len(label_of) < len(labels) or any(count[value] != 1 for value in label_of):
        return None
    return {path: label_of[key(path)] for path in images if key(path) in label_of}


def _explain(images: Sequence[str], labels: Sequence[str]) -> str:
    by_stem, by_number = (Counter(map(key, images)) for key in (stem, last_number))
    alone = [path for path in labels if by_stem[stem(path)] != 1 and by_number[last_number(path)] != 1]
    alone = alone or list(labels)
    more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
    return (
        f"{len(alone)} of {len(labels)} label images have no clear partner among {len(images)} images: "
        f"{', '.join(map(os.path.basename, alone[:_SHOWN]))}{more}. Image and label image need the same name without "
        f"endings, or the same last number (t002.tif and man_seg002.tif), in one series each."
    )


def _name(images: Sequence[str]) -> list[str]:
    """Unique names: the stem, with as many folders in front of it as needed."""
    parts = [[*os.path.dirname(path).split("/"), stem(path)] for path in images]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["-".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}-{part[-1]}" for number, part in enumerate(parts)]  # files that differ only in their endings
