"""Rules that find, for each label image, the images that its name fits. Only names are compared, nothing is read.

A rule gets the names of images and of label images, and returns candidates: for each label image, the positions of the
images that fit it. A rule pairs a set only if each label image has exactly one candidate, and no two have the same.
Names are cut at boundaries only: between letters, digits and other characters, and before a capital letter. So `img1`
is no beginning of `img10_mask`.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from segment_slide.pipeline.ingest.formats import FORMATS

Candidates = list[list[int]]  # for each label image: positions of images
Partners = tuple[int, ...]  # for each label image: the position of its image
Key = TypeVar("Key", bound=Hashable)
Rule = Callable[[Sequence[str], Sequence[str]], Candidates]

_ENDINGS = {".zarr", ".ome", ".jpg", ".jpeg", *(suffix for row in FORMATS for suffix in row.suffixes)}
_OTHER_ENDING = re.compile(r"\.(?!v\d)[A-Za-z][A-Za-z0-9]{1,4}$")  # slide.oib, but not slide.v2
_NUMBER, _WORD = re.compile(r"\d+"), re.compile(r"[^\W\d_]+")
_WHOLE_NUMBER = re.compile(r"(?<!\d\.)(?<!\d,)\d+")  # not the decimals of 0.05


def bare_name(path: str) -> str:
    """The name of a file or Zarr without its endings, in composed Unicode (NFC), as file systems differ in that.

    Examples
    --------
    >>> bare_name("/data/slide.v2.ome.zarr"), bare_name("cells.tif.png"), bare_name("a.oib"), bare_name("slide.v2")
    ('slide.v2', 'cells', 'a', 'slide.v2')
    """
    whole = name = unicodedata.normalize("NFC", os.path.basename(path.rstrip("/")))
    while (parts := os.path.splitext(name))[0] and parts[1].lower() in _ENDINGS:
        name = parts[0]
    return (_OTHER_ENDING.sub("", name) or name) if name == whole else name


def alike(name: str) -> str:
    """Write names that differ in case, in separators or in leading zeros only in the same way.

    >>> alike("Img-007 a"), alike("img_7_A"), alike("dose 0.05")
    ('img_7_a', 'img_7_a', 'dose_0_05')
    """
    return re.sub(r"[\W_]+", "_", _without_zeros(name)).lower()


def numbers(name: str) -> tuple[str, ...]:
    """All numbers in a name, in their order, without leading zeros. Decimals keep theirs: 0.5 is not 0.05.

    >>> numbers("mouse1_week02"), numbers("dose0.05")
    (('1', '2'), ('0', '05'))
    """
    return tuple(_NUMBER.findall(_without_zeros(name)))


def _without_zeros(name: str) -> str:
    return _WHOLE_NUMBER.sub(lambda found: str(int(found[0])), name)


def complete(candidates: Candidates) -> Partners | None:
    """The partners, if each label image has exactly one candidate and no two have the same.

    >>> complete([[1], [0]]), complete([[1], [1]]), complete([[0, 1]])
    ((1, 0), None, None)
    """
    partners = tuple(found[0] for found in candidates if len(found) == 1)
    return partners if len(partners) == len(candidates) == len(set(partners)) else None


def by_equal_names(images: Sequence[str], labels: Sequence[str]) -> Candidates:
    """Images with the same name.

    >>> by_equal_names(["b", "a"], ["a", "c"])
    [[1], []]
    """
    places = _places((name, place) for place, name in enumerate(images))
    return [places.get(name, []) for name in labels]


def by_beginning_or_end(images: Sequence[str], labels: Sequence[str]) -> Candidates:
    """Images whose name is the label image's plus something before or after it, or the reverse.

    Of several beginnings, the longest is kept, and so of several ends. So `img_1_mask` fits `img_1` and not `img`, but
    `100_3` fits `100` and `3`.

    Examples
    --------
    >>> by_beginning_or_end(["img1", "img10", "img"], ["img10_mask", "mask_img1", "img"])
    [[1], [0], [2]]
    >>> by_beginning_or_end(["100", "3"], ["100_3"])
    [[0, 1]]
    >>> by_beginning_or_end(["x_001_0000", "x_002_0000"], ["x_002"])
    [[1]]
    """
    exact = _places((_fold(name), place) for place, name in enumerate(images))
    longer = _places(
        (part, place)
        for place, name in enumerate(images)
        for part in {*_parts(name, at_end=False), *_parts(name, at_end=True)}
    )
    found = []
    for label in labels:
        name = _fold(label)
        if name in longer or name in exact:
            found.append(exact.get(name) or longer[name])
            continue
        fits: set[int] = set()
        for at_end in (False, True):
            longest = max((part for part in _parts(label, at_end=at_end) if part in exact), key=len, default="")
            fits.update(exact.get(longest, ()))
        found.append(sorted(fits))
    return found


def by_numbers(images: Sequence[str], labels: Sequence[str]) -> Candidates:
    """Images whose numbers are all the same as the label image's, in the same order.

    There is no candidate if words differ among images and among label images too, because then words matter.

    Examples
    --------
    >>> by_numbers(["t1", "t2"], ["man_seg002"]), by_numbers(["mouse1_week2"], ["week2"])
    ([[1]], [[]])
    """
    if min(len(set(map(_words, names))) for names in (images, labels)) > 1:
        return [[] for _ in labels]
    places = _places((numbers(name), place) for place, name in enumerate(images) if numbers(name))
    return [places.get(numbers(name), []) for name in labels]


def by_common_frames(images: Sequence[str], labels: Sequence[str]) -> set[Partners]:
    """All pairings by what is left of names without a beginning and an end that all images, or all labels, share.

    Numbers that are left out have to be the same on both sides. If no pairing fulfils this, one side may have more of
    them, as in `C1-img1` and `img1_mask`. Then what is left has to begin with a word, or begin or end both names: the
    `1` of `mouse1_week1` is not that of `week1_mask`.

    Examples
    --------
    >>> by_common_frames(["img_a", "img_b"], ["b_mask", "a_mask"])
    {(1, 0)}
    >>> by_common_frames(["C1-img1", "C1-img2"], ["img1_mask", "img2_mask"])
    {(0, 1)}
    >>> by_common_frames(["mouse1_week2", "mouse2_week1"], ["mouse1_labels", "mouse2_labels"])
    set()
    """
    places_of_cores = [(core, _places((text, n) for n, text in enumerate(core.texts))) for core in _cores(images)]
    places_of_cores = [(core, places) for core, places in places_of_cores if len(places) == len(images)]
    found: set[Partners] = set()
    with_more: set[Partners] = set()
    for label_core in _cores(labels):
        for core, places in places_of_cores:
            if label_core.texts[0] not in places:
                continue
            partners = complete([places.get(text, []) for text in label_core.texts])
            if partners is None:
                continue
            sides = [(numbers(images[i]), numbers(name)) for i, name in zip(partners, labels, strict=True)]
            if all(one == other for one, other in sides):
                found.add(partners)
            elif core.has_place_of(label_core) and all(_is_part(*sorted(both, key=len)) for both in sides):
                with_more.add(partners)
    return found or with_more


class _Core(NamedTuple):
    """What is left of names without their first `start` and their last `end` characters."""

    start: int
    end: int
    texts: list[str]

    def has_place_of(self, other: "_Core") -> bool:
        """Whether equal texts mean the same in both sets of names, by their first word or by their place."""
        is_at_an_end = self.start == other.start == 0 or self.end == other.end == 0
        return is_at_an_end or all(text[0].isalpha() for text in self.texts)


def _cores(names: Sequence[str]) -> Iterator[_Core]:
    """What is left of names without a common beginning and end, for each choice of these."""
    folded = list(map(_fold, names))
    cuts = [set(_cuts(name)) for name in names]
    first = folded[0]
    starts = [c for c in cuts[0] if all(c in mine and n[:c] == first[:c] for n, mine in zip(folded, cuts, strict=True))]
    ends = [
        len(first) - c
        for c in cuts[0]
        if all(len(n) - len(first) + c in mine and n.endswith(first[c:]) for n, mine in zip(folded, cuts, strict=True))
    ]
    for start in starts:
        for end in ends:
            texts = [name[start : len(name) - end] for name in folded]
            if min(map(len, folded)) > start + end and all(re.search(r"[^\W_]", text) for text in texts):
                yield _Core(start, end, texts)


def _is_part(few: tuple[str, ...], many: tuple[str, ...]) -> bool:
    """Whether all of the few come among the many, in the same order."""
    rest = iter(many)
    return all(number in rest for number in few)


def _parts(name: str, *, at_end: bool) -> Iterator[str]:
    """All parts of a name before a boundary, or all after one; the name itself is one of them."""
    folded = _fold(name)
    for cut in _cuts(name):
        part = folded[cut:] if at_end else folded[:cut]
        if re.search(r"[^\W_]", part):
            yield part


def _cuts(name: str) -> Iterator[int]:
    """Boundaries in a name, its beginning and its end included."""
    yield 0
    for place in range(1, len(name)):
        before, after = _class_of(name[place - 1]), _class_of(name[place])
        is_capital = name[place].isupper() and (name[place - 1].islower() or name[place + 1 : place + 2].islower())
        if before != after or is_capital or after == "other":  # so that `GFP+_mask` begins with `GFP+`
            yield place
    if name:
        yield len(name)


def _class_of(character: str) -> str:
    return "digit" if character.isdecimal() else "letter" if character.isalpha() else "other"


def _fold(name: str) -> str:
    """Lower case, of the same length."""
    folded = name.lower()
    return folded if len(folded) == len(name) else name


def _words(name: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(_fold(name)))


def _places(entries: Iterable[tuple[Key, int]]) -> dict[Key, list[int]]:
    found: dict[Key, list[int]] = {}
    for key, place in entries:
        found.setdefault(key, []).append(place)
    return found
