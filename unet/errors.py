"""Errors that `unet` raises for input it cannot use.

::

    UnetError
    ├── GeometryError (ValueError)    a size or a depth that the network's arithmetic does not allow
    ├── CheckpointError (ValueError)  a file that is not a whole, safe checkpoint of ours
    ├── NotLocalError (ValueError)    a network of which no tile gives the whole image's result
    ├── DeviceError (RuntimeError)    a device or precision that this machine does not have
    ├── TrainingDataError (ValueError) images, labels or settings that nothing can be learnt from
    ├── OptionError (ValueError)      a text that is no valid value of an option
    ├── ScoresError (ArithmeticError) a network that answers NaN or infinity
    ├── RankError (RuntimeError)      one of several processes that train together ended
    └── DivergedError (RuntimeError)  a training whose loss became NaN or infinite
"""

from typing import Any


class UnetError(Exception):
    """Base of all errors of this package; the command line ends with exit code 2 for each of them."""


class GeometryError(UnetError, ValueError):
    """A size, depth or tile for which valid convolutions and 2x2 pooling do not work out."""


class CheckpointError(UnetError, ValueError):
    """A file that cannot be used as a checkpoint: missing, truncated, a pickle, or of another format."""


class NotLocalError(UnetError, ValueError):
    """A network whose result on a part of the image is not that of the whole image, whatever the context."""


class DeviceError(UnetError, RuntimeError):
    """A device or a precision that was requested and that this machine does not have."""


class TrainingDataError(UnetError, ValueError):
    """Images, labels or settings that a network cannot be trained with."""


class OptionError(UnetError, ValueError):
    """A text that is no valid value of an option.

    Parameters
    ----------
    name : str
        Name of the option.
    sentence : str
        The given text, and what was expected.
    """

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(f"{name}={sentence}")
        self.name, self.sentence = name, sentence


class ScoresError(UnetError, ArithmeticError):
    """A network's scores are NaN or infinite, so no class can be chosen.

    Parameters
    ----------
    message : str
        What was found, and the likely cause.
    is_of_input : bool
        Whether the intensities are the likely cause. If not, the weights are, and every other tile would fail too.
    """

    def __init__(self, message: str, *, is_of_input: bool) -> None:
        super().__init__(message)
        self.message, self.is_of_input = message, is_of_input

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_scores_error, (self.message, self.is_of_input)


def _make_scores_error(message: str, is_of_input: bool) -> ScoresError:
    return ScoresError(message, is_of_input=is_of_input)


class RankError(UnetError, RuntimeError):
    """One of several processes that train together ended; the last state is kept."""


class DivergedError(UnetError, RuntimeError):
    """The loss became NaN or infinite; the weights are of no use.

    Parameters
    ----------
    message : str
        What happened and what to do.
    step, sample : int
        Where the loss became infinite or NaN: the step, from 1, and the number of the sample.
    """

    def __init__(self, message: str, *, step: int, sample: int) -> None:
        super().__init__(message)
        self.step, self.sample = step, sample
