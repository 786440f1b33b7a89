"""Loops over pixels that numpy cannot say, compiled by numba at their first call and then kept on disk."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """A loop as machine code that does not hold Python's lock.

    What was compiled is kept beside the module or in the user's cache folder; where neither can be written (a compute
    node with a read-only home), it is compiled anew in each process, which takes some seconds.
    """
    try:
        return cast(Loop, njit(cache=True, nogil=True)(loop))
    except RuntimeError:  # numba found no folder to keep it in
        return cast(Loop, njit(nogil=True)(loop))
