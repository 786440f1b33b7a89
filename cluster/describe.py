"""A description of a cluster, from a word of the command line or a YAML file."""

from pathlib import Path
from typing import Any, cast

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import FIELDS, WrongValueError
from segment_slide.cluster.spec import KINDS, ClusterSpec, Kind

_STARTED: tuple[Kind, ...] = ("local", "cuda", "slurm")
_SHOWN = 200


def describe_cluster(text: str, workers: int | None = None) -> ClusterSpec:
    """Read which cluster to use.

    Parameters
    ----------
    text : str
        ``local``, ``cuda``, ``slurm``, an address as ``tcp://host:port``, or the path of a YAML file.
    workers : int, optional
        Workers (local, cuda) or jobs (slurm), whatever the file says.

    Returns
    -------
    ClusterSpec
        What was said and no more; `cluster.complete.complete_spec` fills in the rest.

    Raises
    ------
    ClusterError
        Naming key, value and what was expected.

    Examples
    --------
    >>> describe_cluster("slurm", workers=4).jobs
    4
    """
    content, origin = _read_content(text)
    values = _read_values(content, origin)
    if workers is not None:
        values = _with_workers(values, workers)
    try:
        return ClusterSpec(**values)
    except ClusterError as error:
        raise ClusterError(f"{origin}{error}") from None


def _read_content(text: str) -> tuple[dict[str, Any], str]:
    """The keys, and how messages begin."""
    if text in _STARTED:
        return {"kind": text}, ""
    if "://" in text:
        return {"kind": "address", "address": text}, ""
    path = Path(text).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml") and not path.is_file():
        raise ClusterError(
            f"cluster={text!r}, expected local, cuda, slurm, an address as tcp://host:port, or the path of a YAML file."
        )
    return _read_yaml(path), f"{path}: "


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ClusterError(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        raise ClusterError(f"{path}: is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ClusterError(f"{path}: expected lines as `kind: slurm`, one key each.")
    return content


def _read_values(content: dict[str, Any], origin: str) -> dict[str, Any]:
    kind = content.get("kind")
    if kind not in KINDS:
        raise ClusterError(f"{origin}kind={kind!r}, expected one of {', '.join(KINDS)}.")
    values: dict[str, Any] = {"kind": kind}
    given = {key: value for key, value in content.items() if key != "kind" and value is not None}
    for key, value in given.items():
        field = FIELDS.get(key)
        if field is None or kind not in field.kinds:
            raise ClusterError(f"{origin}{_describe_stranger(key, kind)}")
        try:
            values[field.name] = field.read(value)
        except WrongValueError as error:
            raise ClusterError(f"{origin}{key}={str(value)[:_SHOWN]!r}, expected {error}.") from None
    return values


def _describe_stranger(key: Any, kind: Kind) -> str:
    """What to say of a key that the kind does not know."""
    import difflib

    known = sorted(name for name, field in FIELDS.items() if kind in field.kinds)
    near = difflib.get_close_matches(str(key), known, n=1)
    if near:
        return f"{key} is no key of kind {kind}; did you mean {near[0]}?"
    return f"{key} is no key of kind {kind}; expected one of {', '.join(known)}."


def _with_workers(values: dict[str, Any], workers: int) -> dict[str, Any]:
    kind = cast(Kind, values["kind"])
    if kind == "address":
        raise ClusterError(f"workers={workers}: a scheduler that runs already has the workers that it has.")
    if kind != "slurm":
        return {**values, "workers": workers}
    kept = {name: value for name, value in values.items() if name not in ("minimum", "maximum")}
    return {**kept, "jobs": workers}
