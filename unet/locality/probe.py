"""Run a network of which nothing is known: check what it answers, count the passes, keep the memory in bounds."""

import resource
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from segment_slide.unet.errors import NotLocalError

Function = Callable[[np.ndarray], np.ndarray]
"""A network: (1, channels, *spatial) in, (1, channels, *spatial) out. It raises whatever it likes for a wrong size."""

MOST_BYTES = 4 << 30  # of one pass; the network itself is not counted
_KIB = 1024


class Probe:
    """A network to be measured.

    Parameters
    ----------
    function : callable
        The network; see `Function`.
    in_channels, ndim : int
        Channels and spatial axes of its input.
    dtype : numpy dtype
        Floating-point type of its input.
    report : callable, optional
        Called with the number of passes after each pass.
    explain : callable, optional
        Says in a few words what in the network looks at the whole image; "" if it cannot tell.
    """

    def __init__(
        self,
        function: Function,
        in_channels: int,
        ndim: int,
        *,
        dtype: np.dtype | type = np.float32,
        report: Callable[[int], None] | None = None,
        explain: Callable[[], str] | None = None,
    ) -> None:
        self.function, self.in_channels, self.ndim, self.dtype = function, in_channels, ndim, np.dtype(dtype)
        self.n_passes = 0
        self.last_error: Exception | None = None
        self._report, self._explain = report, explain
        self._random = np.random.default_rng(0)

    def noise(self, sizes: Sequence[int], amplitude: float = 1.0) -> np.ndarray:
        """Pixels of a normal distribution, (1, in_channels, *sizes)."""
        pixels = self._random.standard_normal((1, self.in_channels, *sizes)) * amplitude
        return pixels.astype(self.dtype)

    def run(self, image: np.ndarray) -> np.ndarray:
        """The network's answer, checked.

        Raises
        ------
        NotLocalError
            If it is no map of scores.
        """
        answer: Any = self.function(np.ascontiguousarray(image))
        self.n_passes += 1
        if self._report is not None:
            self._report(self.n_passes)
        if not isinstance(answer, np.ndarray) or answer.ndim != self.ndim + 2 or answer.shape[0] != 1:
            shape = f" of shape {answer.shape}" if isinstance(answer, np.ndarray) else ""
            raise NotLocalError(f"its output is {type(answer).__name__}{shape}, expected one array (n, c, *spatial).")
        if not np.issubdtype(answer.dtype, np.floating):
            raise NotLocalError(
                f"its output is {answer.dtype}. Whole numbers tell neither what influences them nor how sure they are; "
                f"give scores or probabilities."
            )
        return answer

    def sizes_out(self, sizes: Sequence[int]) -> tuple[int, ...] | None:
        """Spatial sizes of the output for these of the input; None if the network does not run on them."""
        try:
            answer = self.run(np.zeros((1, self.in_channels, *sizes), self.dtype))
        except NotLocalError:
            raise
        except Exception as error:  # noqa: BLE001 - a foreign network refuses a size as it likes
            self.last_error = error
            return None
        return answer.shape[2:] if min(answer.shape[2:]) > 0 else None

    def whole_image(self) -> str:
        """What in the network looks at the whole image, for a message."""
        cause = self._explain() if self._explain is not None else ""
        return cause or "a normalisation over the image, global pooling or attention"


def peak_bytes() -> int:
    """Most bytes that this process had in memory at a time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
