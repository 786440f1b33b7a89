"""Which label image belongs to which image, decided from their names alone."""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from segment_slide.pipeline.errors import InputError
from segment_slide.pipeline.training.name_rules import (
    Partners,
    Rule,
    alike,
    bare_name,
    by_beginning_or_end,
    by_common_frames,
    by_equal_names,
    by_numbers,
    complete,
)

_SHOWN = 5
_EQUAL, _ALIKE = "same name", "same name, but for case, separators and leading zeros"
_MORE, _FRAMES = "one name is the other with more before or after it", "same name between a common beginning and end"
_NUMBERS = "same numbers in all places"
_RULES: tuple[tuple[str, Rule, bool], ...] = (  # title, rule, whether names are written alike first
    (_EQUAL, by_equal_names, False),
    (_ALIKE, by_equal_names, True),
    (_MORE, by_beginning_or_end, False),
    (_MORE, by_beginning_or_end, True),
    (_NUMBERS, by_numbers, False),
)
_BY_WHOLE_NAME = (_ALIKE, _MORE)


def pair_files(
    images: Sequence[str], labels: Sequence[str], *, label_suffix: str | None = None, inside: bool = False
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Pair images with label images, and name the pairs.

    A rule is used only if it gives every label image an image of its own. Equal names without endings come first. Then
    one name is the other with more before or after it (``img_a.tif`` and ``img_a_mask.png``, ``x_001_0000`` and
    ``x_001``), or if no name is, names are the same between a beginning and an end that all images share, and all label
    images share (``a_img`` and ``a_mask``). If all numbers are the same (``t002`` and ``man_seg002``), this is a rule
    too, and has to agree with the others. If none fits, folders are paired by the same rules, and then the files in
    them; at last, one image and one label image are a pair. The order of files is never used: one more or one missing
    file would shift it.

    Parameters
    ----------
    images, labels : sequence of str
        Paths, each named once.
    label_suffix : str, optional
        How the names of label images end beyond their image's; it is cut off before names are compared. Files in both
        lists are label images if they end so, and images if not.
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
        If label images have no partner or several, or if two rules disagree. The message names them.

    Examples
    --------
    >>> pair_files(["a/t000.tif", "a/t001.tif"], ["b/man_seg001.tif"])
    ([('t001', 'a/t001.tif', 'b/man_seg001.tif')], ['a/t000.tif'])
    >>> pair_files(["m1_w2.tif", "m2_w1.tif"], ["m1_gt.tif", "m2_gt.tif"], label_suffix="_gt")[0][0]
    ('m1_w2', 'm1_w2.tif', 'm1_gt.tif')
    """
    if inside:
        partners = dict(zip(images, labels, strict=True))
    else:
        images, labels = _separate(images, labels, label_suffix)
        ends = () if label_suffix is None else (_bare_suffix(label_suffix),)
        partners = _match(images, labels, *ends)
    shown = list(partners)
    pairs = [(name, image, partners[image]) for name, image in zip(_name(shown), shown, strict=True)]
    return pairs, [image for image in images if image not in partners]


def describe_pairs(pairs: Sequence[tuple[str, str]], most: int = 10) -> str:
    """Say which label image belongs to which image, for people.

    >>> describe_pairs([("i/a.tif", "m/a_mask.tif"), ("i/b.tif", "m/b_mask.tif")], most=1)
    'a.tif with a_mask.tif, and 1 more'
    """
    sides = [tell_apart([pair[side] for pair in pairs]) for side in (0, 1)]
    shown = ", ".join(f"{image} with {label}" for image, label in itertools.islice(zip(*sides, strict=True), most))
    return shown + (f", and {len(pairs) - most:,} more" if len(pairs) > most else "")


def list_names(paths: Sequence[str]) -> str:
    """Name the first files of a list, for messages.

    >>> list_names(["i/a.tif", "i/b.tif"])
    'a.tif, b.tif'
    """
    return _list(tell_apart(paths))


def tell_apart(paths: Sequence[str]) -> list[str]:
    """Names of files or Zarrs with their endings, and with as many folders in front as all of them need to differ.

    >>> tell_apart(["d/a.tif", "d/b.tif"]), tell_apart(["d/1/x.tif", "d/2/x.tif"])
    (['a.tif', 'b.tif'], ['1/x.tif', '2/x.tif'])
    """
    parts = [path.rstrip("/").split("/") for path in paths]
    n_different = len(set(paths))
    for depth in range(1, max(map(len, parts), default=0)):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == n_different:
            return names
    return list(paths)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def stem(path: str) -> str:
    """A file's name without endings, as images of a set are named.

    >>> stem("/data/slide.v2.ome.zarr"), stem("cells.tif")
    ('slide.v2', 'cells')
    """
    return re.sub(r"(\.ome)?\.[A-Za-z0-9]+$", "", os.path.basename(path)) or os.path.basename(path)


def _separate(images: Sequence[str], labels: Sequence[str], suffix: str | None) -> tuple[list[str], list[str]]:
    """Images and label images, without those that were named as both and are the other by their end."""
    both = set(images) & set(labels)
    if suffix is None or not both:
        return list(images), list(labels)
    ends = {path for path in both if _cut_off(bare_name(path), _bare_suffix(suffix)) is not None}
    return [path for path in images if path not in ends], [p for p in labels if p not in both or p in ends]


def _match(images: Sequence[str], labels: Sequence[str], suffix: str = "") -> dict[str, str]:
    """Partners of images, in their order."""
    names, label_names = list(map(bare_name, images)), list(map(bare_name, labels))
    if suffix:
        label_names = _without_suffix(label_names, labels, suffix)
    found = _pair_names(names, label_names) or _pair_in_folders(images, labels, names, label_names)
    if len(found) > 1:
        raise InputError(_explain_disagreement(found, images, labels))
    if found:
        label_of = {images[place]: label for place, label in zip(next(iter(found)), labels, strict=True)}
        return {image: label_of[image] for image in images if image in label_of}
    if len(images) == len(labels) == 1:
        return {images[0]: labels[0]}
    raise InputError(_explain(images, labels, names, label_names))


def _pair_names(images: Sequence[str], labels: Sequence[str]) -> dict[Partners, str]:
    """Pairings that rules find, and the first rule that finds each. Equal names need no other rule to agree."""
    found: dict[Partners, str] = {}
    for title, candidates in _candidates(images, labels):
        partners = complete(candidates)
        if partners is not None:
            found.setdefault(partners, title)
            if title == _EQUAL:
                return found
    if not any(title in _BY_WHOLE_NAME for title in found.values()) and images and labels:
        found |= {partners: _FRAMES for partners in by_common_frames(images, labels) if partners not in found}
    return found


def _candidates(images: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, list[list[int]]]]:
    written_alike = list(map(alike, images)), list(map(alike, labels))
    for title, rule, is_alike in _RULES:
        yield title, rule(*written_alike) if is_alike else rule(images, labels)


def _pair_in_folders(
    images: Sequence[str], labels: Sequence[str], names: Sequence[str], label_names: Sequence[str]
) -> dict[Partners, str]:
    """Pairings of files in paired folders, or by names with their folders in front."""
    folders, label_folders = _folders(images, labels)
    if len(set(folders)) == len(set(label_folders)) == 1:
        return {}
    unique, unique_labels = sorted(set(folders)), sorted(set(label_folders))
    found = {}
    for pairing, title in _pair_names(unique, unique_labels).items():
        partners: dict[int, int] = {}
        for place, label_folder in zip(pairing, unique_labels, strict=True):
            inside = [n for n, folder in enumerate(folders) if folder == unique[place]]
            labels_inside = [n for n, folder in enumerate(label_folders) if folder == label_folder]
            within = _pair_names([names[n] for n in inside], [label_names[n] for n in labels_inside])
            if not within and len(inside) == len(labels_inside) == 1:
                within = {(0,): ""}
            if len(within) == 1:
                chosen = next(iter(within))
                partners |= {n: inside[number] for n, number in zip(labels_inside, chosen, strict=True)}
        if len(partners) == len(labels):
            found[tuple(partners[n] for n in range(len(labels)))] = f"folders: {title}"
    if found:
        return found
    long, long_labels = (
        [f"{folder}/{name}" for folder, name in zip(folders_of, names_of, strict=True)]
        for folders_of, names_of in ((folders, names), (label_folders, label_names))
    )
    return _pair_names(long, long_labels)


def _folders(images: Sequence[str], labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders of images and of label images, without what all of them begin with."""
    folders = [unicodedata.normalize("NFC", os.path.dirname(path.rstrip("/"))) for path in (*images, *labels)]
    parts = [folder.split("/") for folder in folders]
    n_common = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False)))
    below = ["/".join(part[n_common:]) for part in parts]
    return below[: len(images)], below[len(images) :]


def _bare_suffix(suffix: str) -> str:
    """The end of names as the user gave it, without a file's ending."""
    bare = bare_name(f"x{suffix}")[1:]
    if not bare:
        raise InputError(
            f"label_suffix={suffix!r}, expected how names of label images end beyond their image's, before the file's "
            f"ending, for example '_mask'."
        )
    return bare


def _cut_off(name: str, suffix: str) -> str | None:
    has_it = len(name) > len(suffix) and name.lower().endswith(suffix.lower())
    return name[: len(name) - len(suffix)] if has_it else None


def _without_suffix(names: Sequence[str], paths: Sequence[str], suffix: str) -> list[str]:
    cut = [_cut_off(name, suffix) for name in names]
    wrong = [path for path, name in zip(paths, cut, strict=True) if name is None]
    if wrong:
        raise InputError(
            f"label_suffix={suffix!r}: {len(wrong)} of {len(paths)} label images do not end so: {list_names(wrong)}. "
            f"Name only label images that do, or another end."
        )
    return [name for name in cut if name is not None]


def _explain_disagreement(found: Mapping[Partners, str], images: Sequence[str], labels: Sequence[str]) -> str:
    (first, rule), (second, other), *_ = found.items()
    images, labels = tell_apart(images), tell_apart(labels)
    places = [n for n in range(len(labels)) if first[n] != second[n]][:_SHOWN]
    ways = (
        f"{title}: {', '.join(f'{images[partners[n]]} with {labels[n]}' for n in places)}"
        for partners, title in ((first, rule), (second, other))
    )
    return (
        f"images and label images can be paired in two ways, and one of them is wrong. {'; or '.join(ways)}. Rename "
        f"the files so that a label image's name is its image's with more after it, or give `label_suffix`."
    )


def _explain(images: Sequence[str], labels: Sequence[str], names: Sequence[str], label_names: Sequence[str]) -> str:
    images, labels = tell_apart(images), tell_apart(labels)
    fits: list[list[int]] = [[] for _ in labels]
    for _, candidates in _candidates(names, label_names):
        fits = [known or more for known, more in zip(fits, candidates, strict=True)]
    labels_of = {place: [n for n, found in enumerate(fits) if found == [place]] for place in range(len(images))}
    shared = {place: found for place, found in labels_of.items() if len(found) > 1}
    alone = [n for n, found in enumerate(fits) if len(found) != 1 or found[0] in shared] or list(range(len(labels)))
    taken = {found[0] for n, found in enumerate(fits) if n not in alone}
    free = [image for place, image in enumerate(images) if place not in taken]
    several = [(labels[n], [images[place] for place in fits[n]]) for n in alone if len(fits[n]) > 1]
    several += [(images[place], [labels[n] for n in found]) for place, found in shared.items()]
    why = "".join(f" {one} fits {_list(many)}." for one, many in several[:_SHOWN])
    return (
        f"{len(alone)} of {len(labels)} label images have no clear partner among {len(images)} images: "
        f"{_list([labels[n] for n in alone])}.{why} Images without label image: {_list(free) or 'none'}. "
        f"A label image's name has to be its image's with more before or after it (cells_1.tif and cells_1_mask.tif), "
        f"or to have the same numbers in all places (t002.tif and man_seg002.tif). If names end in their own way, "
        f"give `label_suffix`."
    )


def _name(images: Sequence[str]) -> list[str]:
    """Unique names: the stem, with as many folders in front of it as needed."""
    parts = [[*os.path.dirname(path).split("/"), stem(path)] for path in images]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["-".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{number}-{part[-1]}" for number, part in enumerate(parts)]  # files that differ only in their endings
