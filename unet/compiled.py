"""Loops over pixels that numpy cannot express. numba compiles them at the first call and keeps the result on disk."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """Compile a loop to machine code that runs without Python's lock.

    The compiled code is kept beside the module or in the user's cache folder. If neither is writable (a compute node
    with a read-only home), each process compiles it again, which takes some seconds.
    """
    try:
        return cast(Loop, njit(cache=True, nogil=True)(loop))
    except RuntimeError:  # numba found no writable folder
        return cast(Loop, njit(nogil=True)(loop))
