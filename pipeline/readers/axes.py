"""Axes that a user names for pages that have their own (PNG, JPEG), and for each page of a stack."""

from segment_slide.pipeline.errors import InputError


def check_page_axes(path: str, axes: str | None, n_samples: int) -> None:
    """Refuse axes that a page of PNG or JPEG does not have.

    Parameters
    ----------
    path : str
        The file, for the message.
    axes : str, optional
        What the user named, in any order.
    n_samples : int
        Samples of a pixel; with 2 (grey and alpha), "yx" leaves out the second.

    Raises
    ------
    InputError
        If they are not y and x, with a c if a pixel has several samples.
    """
    allowed = {1: ("yx", "yxc"), 2: ("yx", "yxc")}.get(n_samples, ("yxc",))
    if axes is not None and sorted(axes) not in [sorted(one) for one in allowed]:
        expected = " or ".join(map(repr, allowed))
        raise InputError(
            f"input={path}: axes={axes!r}, expected {expected}, because a pixel has {n_samples} sample(s)."
        )


def axes_of_page(axes: str | None, stack_axis: str) -> str | None:
    """The axes of one page, if the user named those of a stack of pages.

    >>> axes_of_page("zyx", "z"), axes_of_page("yxc", "z"), axes_of_page(None, "z")
    ('yx', 'yxc', None)
    """
    return axes.replace(stack_axis, "") if axes else None
