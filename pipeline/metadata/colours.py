"""Colours of classes: one palette for metadata, pages and pictures."""

# Okabe & Ito's palette, whose colours colour-blind readers can tell apart, in the order of label values 7, 1, 2, …
_PALETTE = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)


def class_colour(value: int) -> tuple[int, int, int]:
    """Red, green and blue (0-255) of a label value above 0.

    >>> class_colour(1), class_colour(8)
    ((230, 159, 0), (230, 159, 0))
    """
    return _PALETTE[value % len(_PALETTE)]


def hex_colour(value: int) -> str:
    """The same colour in HTML notation.

    >>> hex_colour(1)
    '#e69f00'
    """
    return "#{:02x}{:02x}{:02x}".format(*class_colour(value))
