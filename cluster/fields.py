"""The keys of a description file, and how each value is read. Each kind lists the keys that it knows."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h|d)")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")


class WrongValueError(ValueError):
    """A value is not what its key expects; the message says what that is."""


@dataclass(frozen=True)
class Field:
    """One key.

    Parameters
    ----------
    name : str
        Attribute of `ClusterSpec`, or a name in its `own` values.
    read : callable
        Converts the value from YAML to the attribute's type; raises WrongValueError.
    is_own : bool
        Only one or a few kinds use this key, so its value is kept in `ClusterSpec.own`.
    """

    name: str
    read: Callable[[Any], Any]
    is_own: bool = False


def read_count(value: Any) -> int:
    """A whole number, zero or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WrongValueError("a whole number")
    return value


def read_size(value: Any) -> int:
    """Bytes, from a number or a text.

    Examples
    --------
    >>> read_size("2 GiB"), read_size(1024)
    (2147483648, 1024)
    """
    from dask.utils import parse_bytes

    expected = "a size as 64GB or 2 GiB"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise WrongValueError(expected)
    try:
        size = int(parse_bytes(value))
    except ValueError:
        raise WrongValueError(expected) from None
    if size < 1:
        raise WrongValueError(expected)
    return size


def read_duration(value: Any) -> int:
    """Seconds, from a number, a number with a unit, or SLURM's notation of hours, minutes and seconds.

    A text that is only a number is refused, because it is ambiguous: SLURM reads it as minutes, Dask as seconds.

    Examples
    --------
    >>> read_duration("01:30:00"), read_duration("1-00:00:00"), read_duration("90 min"), read_duration(20)
    (5400, 86400, 5400, 20)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    clock = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    amount = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if amount:
        return int(float(amount[1]) * _UNITS_S[amount[2]])
    raise WrongValueError("a duration as 90min, 02:30:00 or 1-00:00:00, or a number of seconds")


def read_text(value: Any) -> str:
    """A text of one line that is not empty."""
    if not isinstance(value, str) or not value.strip() or "\n" in value:
        raise WrongValueError("a text of one line")
    return value.strip()


def read_path(value: Any) -> str:
    """An absolute path; ``~`` and environment variables are expanded on this machine."""
    return os.path.abspath(os.path.expanduser(os.path.expandvars(read_text(value))))


def read_lines(value: Any) -> tuple[str, ...]:
    """Lines, from a list."""
    if not isinstance(value, list):
        raise WrongValueError("a list of texts, each on a line that begins with '- '")
    try:
        return tuple(read_text(line) for line in value)
    except WrongValueError:
        raise WrongValueError("a list of texts of one line each") from None


def read_flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise WrongValueError("true or false")
    return value


# Keys that several kinds share. A kind may have keys of its own besides.
FIELDS = {
    "workers": Field("workers", read_count),
    "memory": Field("memory_bytes", read_size),
    "cores": Field("cores", read_count),
    "jobs": Field("jobs", read_count),
    "minimum": Field("minimum", read_count),
    "maximum": Field("maximum", read_count),
    "processes": Field("processes", read_count),
    "job_cores": Field("job_cores", read_count),
    "job_memory": Field("job_memory_bytes", read_size),
    "gpus": Field("gpus", read_count),
    "gres": Field("gres", read_text),
    "dask_cuda": Field("dask_cuda", read_flag),
    "partition": Field("partition", read_text),
    "account": Field("account", read_text),
    "walltime": Field("walltime_s", read_duration),
    "directives": Field("directives", read_lines),
    "omit_directives": Field("omit_directives", read_lines),
    "interface": Field("interface", read_text),
    "host": Field("host", read_text),
    "lifetime": Field("lifetime_s", read_duration),
    "stagger": Field("stagger_s", read_duration),
    "wait": Field("wait_s", read_duration),
    "death_timeout": Field("death_timeout_s", read_duration),
    "python": Field("python", read_text),
    "prologue": Field("prologue", read_lines),
    "shared_directory": Field("shared_directory", read_path),
    "log_directory": Field("log_directory", read_path),
    "local_directory": Field("local_directory", read_text),
    "address": Field("address", read_text),
    "allow_unencrypted": Field("allow_unencrypted", read_flag),
    "tls_ca_file": Field("tls_ca_file", read_path),
    "tls_cert": Field("tls_cert", read_path),
    "tls_key": Field("tls_key", read_path),
    "block_time_limit": Field("block_time_limit_s", read_duration),
}


def choose_fields(*keys: str) -> dict[str, Field]:
    """Select some of `FIELDS` by key.

    Examples
    --------
    >>> list(choose_fields("workers", "memory"))
    ['workers', 'memory']
    """
    return {key: FIELDS[key] for key in keys}
