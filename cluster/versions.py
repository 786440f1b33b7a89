"""Do all processes of a cluster run the same packages? Tasks are pickled functions: others fail late and oddly."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

# What tasks are sent with, and what decides the pixels that they compute.
CHECKED = ("dask", "distributed", "cloudpickle", "msgpack", "tornado", "toolz", "numpy", "zarr", "torch")
OURS = "segment-slide"
_SHOWN = 3


def check_versions(client: "Client") -> None:
    """Refuse a cluster whose versions are not this process's.

    Raises
    ------
    ClusterError
        Naming worker, package and both versions.
    """
    found: Any = client.get_versions(packages=[*CHECKED, OURS])
    here = {**found["client"]["packages"], OURS: _version_here()}
    differences = compare_versions(here, "the scheduler", found["scheduler"]["packages"], scheduler=True)
    for address, report in found["workers"].items():
        differences += compare_versions(here, f"worker {address}", report["packages"])
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise ClusterError(
            f"versions do not agree: {'; '.join(differences[:_SHOWN])}{more}. Install there what is installed here: "
            "pip install -c constraints.txt segment-slide"
        )


def compare_versions(here: dict[str, Any], who: str, there: dict[str, Any], *, scheduler: bool = False) -> list[str]:
    """Packages that differ, one sentence each.

    Python has to agree in its first two numbers, on which pickled code depends. What stands after a plus, as in
    ``torch 2.13.0+cpu``, names a build of the same version.

    Parameters
    ----------
    here, there : dict
        Version by package; None where it is not installed.
    who : str
        Whose are `there`.
    scheduler : bool
        A scheduler runs no tasks: only Dask and Python matter.

    Examples
    --------
    >>> compare_versions({"numpy": "2.4.0"}, "worker w", {"numpy": "2.3.1"})
    ['worker w has numpy 2.3.1, here it is 2.4.0']
    """
    wanted = ("dask", "distributed") if scheduler else (*CHECKED, OURS)
    differences = []
    for package in ("python", *wanted):
        mine, theirs = (_comparable(package, versions.get(package)) for versions in (here, there))
        if mine is not None and mine != theirs:
            differences.append(f"{who} has {package} {theirs or '(not installed)'}, here it is {mine}")
    return differences


def _comparable(package: str, text: Any) -> str | None:
    if text is None:
        return None
    return ".".join(str(text).split(".")[:2]) if package == "python" else str(text).partition("+")[0]


def _version_here() -> str | None:
    try:
        return version(OURS)
    except PackageNotFoundError:
        return None
