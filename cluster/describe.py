"""Read the description of a cluster from a word of the command line or from a YAML file."""

from pathlib import Path
from typing import Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.fields import WrongValueError
from segment_slide.cluster.kind import Kind
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.table import STARTED, find_kind

_SHOWN = 200


def describe_cluster(text: str, workers: int | None = None) -> ClusterSpec:
    """Read which cluster to use.

    Parameters
    ----------
    text : str
        A word of `cluster.table.STARTED` (``local``, ``slurm`` …), an address as ``tcp://host:port``, or the path of a
        YAML file.
    workers : int, optional
        Number of workers, or of jobs of a batch system. It overrides the file.

    Returns
    -------
    ClusterSpec
        Only what was given; `cluster.complete.complete_spec` fills in the rest.

    Raises
    ------
    ClusterError
        If a key or value is wrong. The message names the key, the value and what was expected.

    Examples
    --------
    >>> describe_cluster("slurm", workers=4).jobs
    4
    """
    content, origin = _read_content(text)
    try:
        kind = find_kind(content.get("kind"))
        values = _read_values(content, kind)
        spec = ClusterSpec(**values if workers is None else _with_workers(values, kind, workers))
        kind.check(spec)
        return spec
    except ClusterError as error:
        raise ClusterError(f"{origin}{error}") from None


def _read_content(text: str) -> tuple[dict[str, Any], str]:
    """Return the keys with their values, and the text that error messages begin with."""
    if text in STARTED:
        return {"kind": text}, ""
    if "://" in text:
        return {"kind": "address", "address": text}, ""
    path = Path(text).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml") and not path.is_file():
        raise ClusterError(
            f"cluster={text!r}, expected {', '.join(STARTED)}, an address as tcp://host:port, or the path of a YAML "
            "file."
        )
    return _read_yaml(path), f"{path}: "


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        _check_keys(text, path)
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise ClusterError(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        raise ClusterError(f"{path}: is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ClusterError(f"{path}: expected lines as `kind: slurm`, one key each.")
    return content


def _check_keys(text: str, path: Path) -> None:
    """Refuse a key that is there twice: YAML would take the last one and forget the others."""
    import yaml

    document: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    lines: dict[Any, int] = {}
    for key, _ in document.value if isinstance(document, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise ClusterError(f"{path}: {key.value} is there twice, in lines {lines[key.value]} and {line}; keep one.")
        lines[key.value] = line


def _read_values(content: dict[str, Any], kind: Kind) -> dict[str, Any]:
    name = content["kind"]
    values: dict[str, Any] = {"kind": name}
    own: dict[str, Any] = {}
    given = {key: value for key, value in content.items() if key != "kind" and value is not None}
    for key, value in given.items():
        field = kind.fields.get(key)
        if field is None:
            raise ClusterError(_describe_stranger(key, name, kind))
        try:
            (own if field.is_own else values)[field.name] = field.read(value)
        except WrongValueError as error:
            raise ClusterError(f"{key}={str(value)[:_SHOWN]!r}, expected {error}.") from None
    return {**values, "own": tuple(own.items())}


def _describe_stranger(key: Any, name: str, kind: Kind) -> str:
    """The error message for a key that the kind does not know."""
    import difflib

    known = sorted(kind.fields)
    near = difflib.get_close_matches(str(key), known, n=1)
    if near:
        return f"{key} is no key of kind {name}; did you mean {near[0]}?"
    return f"{key} is no key of kind {name}; expected one of {', '.join(known)}."


def _with_workers(values: dict[str, Any], kind: Kind, workers: int) -> dict[str, Any]:
    if kind.counted is None:
        raise ClusterError(f"workers={workers}: a scheduler that runs already keeps its workers; leave the number out.")
    kept = {name: value for name, value in values.items() if name not in ("minimum", "maximum")}
    return {**kept, kind.counted: workers}
