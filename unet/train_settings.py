"""Settings of a training: every choice that affects the weights, checked before the first step (without torch)."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from segment_slide.unet.errors import TrainingDataError
from segment_slide.unet.options import Option

if TYPE_CHECKING:  # the command line reads the settings at each start, and needs no arrays for that
    import numpy as np

    from segment_slide.unet.sample import Sample, Samples

OPTIMISERS = ("sgd", "adamw")
SCHEDULES = ("constant", "linear", "cosine")
MONITORS = ("loss", "iou")
TRAIN_PRECISIONS = ("float32", "bfloat16", "auto")
# With momentum 0.99 each gradient acts about 100 times, so SGD's rate acts about 100 times stronger than it looks.
DEFAULT_RATES = {"sgd": 1e-3, "adamw": 1e-3}
MEETING_PREFIX = "ranks-"  # of the folders in which several processes find each other, see `unet.ranks`
_WARM_UP = 0.05  # share of the steps in which the rate rises; without it, ReLUs may die in the first steps
_ORDER = 1  # number of this file's use of the seed, beside those of the steps (`step_seed`)


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training. Equal settings and samples give equal weights on equal processors (on GPUs nearly equal).

    Parameters
    ----------
    steps : int
        Number of updates of the weights.
    batch : int
        Tiles per update and process: "a batch of one large tile" (Ronneberger 2015, Sec. 3).
    optimiser : {"sgd", "adamw"}
        The paper uses "sgd" with momentum 0.99; "adamw" needs fewer steps if time is short.
    learning_rate : float or None
        Highest learning rate; None for one that suits the optimiser. The paper does not give its own.
    momentum : float
        Momentum of "sgd".
    weight_decay : float
        Weight decay of either optimiser.
    schedule : {"constant", "linear", "cosine"}
        After rising over the first twentieth of the steps, the rate stays constant or falls to 0.
    clip_norm : float
        Gradients with a larger norm are scaled down to it; 0 leaves all as they are (the paper).
    precision : {"float32", "bfloat16", "auto"}
        "bfloat16" multiplies in bfloat16, and keeps weights, sums and the loss in float32. "auto" is bfloat16 where the
        processor has instructions for it, else float32; a training that resumes keeps the precision that it has.
    validate_every : int
        Steps between validations; 0 validates after the last step only.
    patience : int
        Training stops early after this many validations without a better value; 0 never stops early.
    monitor : {"loss", "iou"}
        What "better" means: the weighted loss (lower), or the mean IoU of the foreground classes (higher).
    save_every : int
        Steps between saved states, from which a killed training resumes; 0 saves at validations only.
    seed : int
        Determines the order of samples and dropout.

    Raises
    ------
    TrainingDataError
        If a value is out of range.
    """

    steps: Annotated[int, Option("Number of updates of the weights.", at_least=1)] = 5000
    batch: Annotated[int, Option("Samples per update and GPU; the paper has 1.", at_least=1)] = 1
    optimiser: Annotated[
        str, Option("Optimiser: sgd (the paper's) or adamw (needs fewer steps).", choices=OPTIMISERS)
    ] = "sgd"
    learning_rate: Annotated[
        float | None, Option("Highest learning rate (by default chosen for the optimiser).", above=0)
    ] = None
    momentum: Annotated[float, Option("Momentum of sgd; the paper has 0.99.", at_least=0, below=1)] = 0.99
    weight_decay: Annotated[float, Option("Weight decay of either optimiser.", at_least=0)] = 0.0
    schedule: Annotated[
        str, Option("Learning rate after its initial rise: constant, linear or cosine.", choices=SCHEDULES)
    ] = "linear"
    clip_norm: Annotated[float, Option("Scale larger gradients down to this norm; 0 never does.", at_least=0)] = 0.0
    precision: Annotated[
        str,
        Option(
            "Precision: float32; bfloat16 (mixed: faster where the processor has instructions for it, several times "
            "slower elsewhere); or auto (bfloat16 where the processor has them, else float32).",
            choices=TRAIN_PRECISIONS,
        ),
    ] = "float32"
    validate_every: Annotated[int, Option("Steps between validations; 0 for one at the end.", at_least=0)] = 250
    patience: Annotated[
        int, Option("Stop after this many validations without a better one; 0 never stops early.", at_least=0)
    ] = 0
    monitor: Annotated[str, Option("Which score decides the best validation: loss or iou.", choices=MONITORS)] = "loss"
    save_every: Annotated[
        int, Option("Steps between saved states, from which training resumes after a crash.", at_least=0)
    ] = 250
    seed: Annotated[int, Option("Seed of all random choices.", at_least=0)] = 0

    def __post_init__(self) -> None:
        _expect_one_of("optimiser", self.optimiser, OPTIMISERS)
        _expect_one_of("schedule", self.schedule, SCHEDULES)
        _expect_one_of("precision", self.precision, TRAIN_PRECISIONS)
        _expect_one_of("monitor", self.monitor, MONITORS)
        for name, least in (("steps", 1), ("batch", 1), ("validate_every", 0), ("patience", 0), ("save_every", 0)):
            if getattr(self, name) < least:
                raise TrainingDataError(f"{name}={getattr(self, name)}, expected at least {least}.")
        if not (math.isfinite(self.peak_rate) and self.peak_rate > 0):
            raise TrainingDataError(f"learning_rate={self.learning_rate}, expected a finite number above 0.")
        if not 0 <= self.momentum < 1:
            raise TrainingDataError(f"momentum={self.momentum}, expected 0 to below 1; the paper's is 0.99.")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingDataError(f"{name}={value}, expected a finite number, at least 0.")
        if not 0 <= self.seed < 1 << 32:
            raise TrainingDataError(f"seed={self.seed}, expected 0 to 2^32 - 1.")

    @property
    def peak_rate(self) -> float:
        """Highest learning rate."""
        return DEFAULT_RATES[self.optimiser] if self.learning_rate is None else self.learning_rate

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0; it never reaches 0.

        >>> settings = TrainSettings(steps=100, learning_rate=1.0, schedule="linear")
        >>> [round(settings.rate(step), 2) for step in (0, 4, 5, 52, 99)]
        [0.2, 1.0, 1.0, 0.51, 0.01]
        """
        rising = max(1, round(self.steps * _WARM_UP))
        left = min((self.steps - step) / max(1, self.steps - rising), 1.0)
        fall = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[self.schedule]
        return self.peak_rate * min((step + 1) / rising, fall)

    def is_validated(self, step: int) -> bool:
        """Whether a validation follows a step, counted from 0."""
        return step + 1 == self.steps or (self.validate_every > 0 and (step + 1) % self.validate_every == 0)

    def is_saved(self, step: int) -> bool:
        """Whether the state is saved after a step, counted from 0."""
        return self.is_validated(step) or (self.save_every > 0 and (step + 1) % self.save_every == 0)


@dataclass(frozen=True)
class Training:
    """What to train on and where to save the state; picklable, because each process gets a copy.

    Parameters
    ----------
    samples, validation : Samples
        Samples to learn from, and samples to validate with; `validation` may be empty.
    settings : TrainSettings
        Settings of the training.
    device : str
        "auto", "cpu" or "cuda".
    processes : int or None
        Number of processes that train together; by default one per GPU.
    state_path : Path or None
        File from which a killed training resumes; None saves nothing.
    identity : dict
        What the samples are, as JSON: a state of other samples is refused.
    compared : callable
        From an identity to what of it is compared: others of its values are only noted. By default all are.
    accept_processor : bool
        Resume although the state is of another device or another version of torch (`unet.train_elsewhere`).

    Raises
    ------
    TrainingDataError
        If `processes` is below 1.
    """

    samples: "Samples"
    settings: TrainSettings
    validation: "Samples | tuple[Sample, ...]" = ()
    device: str = "auto"
    processes: int | None = None
    state_path: Path | None = None
    identity: Mapping[str, Any] | None = None
    compared: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    accept_processor: bool = False

    def __post_init__(self) -> None:
        if self.processes is not None and self.processes < 1:
            raise TrainingDataError(f"processes={self.processes}, expected at least 1, or none for one per GPU.")


def sample_number(settings: TrainSettings, n_samples: int, position: int) -> int:
    """Number of the sample at a position of the training: in each epoch all samples once, in a new random order.

    >>> settings = TrainSettings(seed=3)
    >>> [sample_number(settings, 3, position) for position in range(9)]
    [0, 1, 2, 0, 2, 1, 0, 2, 1]
    """
    epoch, place = divmod(position, n_samples)
    return int(_order(settings.seed, n_samples, epoch)[place])


@functools.lru_cache(maxsize=4)
def _order(seed: int, n_samples: int, epoch: int) -> "np.ndarray":
    import numpy as np

    return np.random.default_rng([seed, _ORDER, epoch]).permutation(n_samples)


def step_seed(settings: TrainSettings, step: int, rank: int) -> int:
    """Seed for everything random inside the network in one step of one process: dropout.

    >>> step_seed(TrainSettings(seed=3), step=7, rank=0) == step_seed(TrainSettings(seed=3), step=7, rank=1)
    False
    """
    import numpy as np

    return int(np.random.SeedSequence([settings.seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _expect_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise TrainingDataError(f"{name}={value!r}, expected one of {', '.join(allowed)}.")
