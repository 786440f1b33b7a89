"""A task that fails: once, always for one item, or by ending its process once. Light enough for workers to import."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONCE, ALWAYS, DIES, NEVER = "once", "always", "dies", "never"
REASON = "the share is away"


class Disturbed:
    """Calls a function, and fails for the item that comes first.

    Parameters
    ----------
    function : callable
        The task: of an item, or as `map_overlap` calls it.
    how : str
        How it fails.
    folder : Path
        Files here tell all processes which item it is, and count the calls that ended well.
    task : str
        Name of the function.
    """

    def __init__(self, function: Callable[..., Any], how: str, folder: Path, task: str) -> None:
        self.function, self.how, self.folder, self.task = function, how, folder, task
        self.here = os.getpid()

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """As the function, but for one item."""
        if self.how != NEVER and self._is_its_turn(repr(more.get("block_id", arguments[-1]))):
            if self.how == DIES:
                assert os.getpid() != self.here, "no worker runs this"
                os._exit(1)
            raise OSError(5, REASON)
        result = self.function(*arguments, **more)
        with (self.folder / "done").open("a") as file:
            file.write(f"{self.task}\n")
        return result

    def _is_its_turn(self, item: str) -> bool:
        """Whether this call fails: the first of all, and if it is to last those of the same item."""
        chosen = self.folder / "chosen"
        try:
            with chosen.open("x") as file:
                file.write(item)
        except FileExistsError:
            return self.how == ALWAYS and chosen.read_text() == item
        return True


def count_done(folder: Path) -> Counter[str]:
    """Calls that ended well, by task."""
    done = folder / "done"
    return Counter(done.read_text().splitlines() if done.exists() else [])
