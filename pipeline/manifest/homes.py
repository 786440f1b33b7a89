"""Where the manifests of a stage lie: at the output, or, in a store of another tool, in each folder of ours."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from segment_slide.pipeline.manifest.manifest import FILE, is_below, read_manifest
from segment_slide.pipeline.storage import store
from segment_slide.pipeline.storage.files import exists
from segment_slide.pipeline.storage.record import has_mark
from segment_slide.pipeline.zarr_stores.written import read_open_folders


@dataclass(frozen=True)
class Made:
    """What a stage makes in an output.

    Parameters
    ----------
    location : str
        The output.
    folders : tuple of str
        Folders that are the stage's own, with all that is in them; "" is the whole output.
    files : tuple of str
        Other files that the stage may write, like the metadata of groups that it shares with other stages.
    once : tuple of str
        Names of arrays that the stage writes when it creates them: a shard that is deleted is not made again.
    """

    location: str
    folders: tuple[str, ...]
    files: tuple[str, ...] = ()
    once: tuple[str, ...] = ()

    def has(self, key: str) -> bool:
        """Whether a file is one of them."""
        return key in self.files or any(is_below(key, folder) for folder in self.folders)


@dataclass
class Home:
    """A folder with a manifest, and what of the stage it lists; all paths relative to the output."""

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def has(self, key: str) -> bool:
        """Whether its manifest lists a file."""
        return key in self.files or any(is_below(key, folder) for folder in self.folders)


def is_sealed(location: str, folder: str) -> bool:
    """Whether a stage finished a folder of an output, and nothing has begun to change it since.

    Outputs of versions before the manifest are not sealed, however complete they are.

    Raises
    ------
    OutputError
        If the manifest is damaged.
    """
    if not store.is_remote(location) and folder in read_open_folders(Path(location)):
        return False
    for home in _homes_of(folder):
        manifest = read_manifest(store.join(location, home))
        if manifest is not None:
            return manifest.is_sealed(inside(home, folder))
    return False


def find_homes(made: Made) -> dict[str, Home]:
    """Folders whose manifests list what a stage makes: the output, or, in a store of another tool, each of ours."""
    if has_mark(made.location) or "" in made.folders:
        return {"": Home(list(made.folders), list(made.files))}
    homes = {folder: Home([folder]) for folder in made.folders}
    for key in made.files:
        for home in reversed(_homes_of(key)):
            if home and (home in homes or exists(store.join(made.location, home, FILE))):
                homes.setdefault(home, Home()).files.append(key)
                break
    return homes


def _homes_of(path: str) -> list[str]:
    """All folders that a path lies in or is, the output first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(len(parts) + 1)] if path else [""]


def inside(home: str, path: str) -> str:
    """A path relative to a folder that it lies in."""
    return path if not home else path.removeprefix(home).lstrip("/")


def inside_all(home: str, paths: Iterable[str]) -> list[str]:
    """The same for several."""
    return [inside(home, path) for path in paths]
