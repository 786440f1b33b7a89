"""Check that all processes of a cluster run the same packages.

Tasks are pickled functions. With other versions they fail late, with errors that do not name the cause.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

# Packages that tasks are sent with, and packages that decide the pixels that tasks compute.
CHECKED = ("dask", "distributed", "cloudpickle", "msgpack", "tornado", "toolz", "numpy", "zarr", "torch")
OURS = "segment-slide"
_SHOWN = 3


def check_versions(client: "Client") -> None:
    """Refuse a cluster whose versions differ from this process's.

    Raises
    ------
    ClusterError
        If a version differs. The message names worker, package and both versions.
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
    """List the packages that differ, one sentence each.

    Python must agree in its first two numbers, because pickled code depends on them. The part after a plus, as in
    ``torch 2.13.0+cpu``, names a build of the same version and is ignored.

    Parameters
    ----------
    here, there : dict
        Version by package; None where it is not installed.
    who : str
        The process that has the versions `there`.
    scheduler : bool
        Whether that process is a scheduler. It runs no tasks, so only Dask and Python matter.

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
