"""Which settings of Dask count: for workers on this machine ours alone, elsewhere the documented ones of the site too.

Dask reads YAML files (``~/.config/dask``, ``/etc/dask`` …) and the variables ``DASK_…`` when it is imported. A
lifetime of workers, a preload or a plugin from there would reach our workers, and a file that is not YAML would keep
Dask from being imported. So there are three steps::

    keep_files_out   a command imports Dask without files and variables; so do the workers that it starts
    exactly          while a cluster of ours runs: Dask's own defaults, our settings, and nothing else
    adopt_site       kinds that run elsewhere read the sections of the files that the documentation names

A program that imports Dask before us, such as Prefect, has read the files already. There `exactly` still holds.
"""

import contextlib
import copy
import functools
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from segment_slide.cluster.errors import ClusterError

log = logging.getLogger(__name__)

# The section on the network: addresses, certificates, time limits. It counts wherever workers are on other machines.
NETWORK = "distributed.comm"

_MODULE = "dask.config"
_PREFIX = "DASK_"

# Variables that say where the files are.
_PLACES = ("DASK_CONFIG", "DASK_ROOT_CONFIG")

# What was kept out: the places of files, and the variables.
_paths: list[str] = []
_variables: dict[str, str] = {}

# The configurations that are in force, the newest last, and what there was before the first.
_in_force: list[dict[str, Any]] = []
_before: dict[str, Any] = {}
_lock = threading.Lock()


def keep_files_out() -> None:
    """Let this process import Dask without its files and variables. If Dask is imported already, nothing changes."""
    if _MODULE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds Dask's module of settings as Python would, and loads it without files."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(fullname)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: _load(load, module)
        return spec


def _load(load: Callable[[ModuleType], None], module: Any) -> None:
    """Load Dask's module of settings, which reads files and variables, while there seem to be none."""
    places = {name: os.environ[name] for name in _PLACES if name in os.environ}
    _variables.update({name: os.environ.pop(name) for name in list(os.environ) if name.startswith(_PREFIX)})
    os.environ.update(places)
    exists = os.path.exists
    os.path.exists = lambda path: False  # its one look at a path before it opens a file
    try:
        load(module)
    finally:
        os.path.exists = exists
        for name in places:
            del os.environ[name]
    _paths.extend(module.paths)
    module.paths.clear()  # of this list a worker reads the files again


def _collect() -> dict[str, Any]:
    """Read what was kept out.

    Raises
    ------
    ClusterError
        If a file is not YAML, or if variables contradict each other.
    """
    import dask

    try:
        return dict(dask.config.collect(paths=_paths, env=_variables))
    except (ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split()).removeprefix("A dask config file at ")
        raise ClusterError(f"Dask's own configuration cannot be read: {reason}") from None


@functools.cache
def note_broken_files() -> None:
    """Warn once of files that cannot be read, where they do not count: their owner needs them sooner or later."""
    try:
        _collect()
    except ClusterError as error:
        log.warning("%s. Workers on this machine do not need it.", error)


def adopt_site(*sections: str) -> None:
    """Add sections of the site's files and variables to Dask's configuration.

    Parameters
    ----------
    sections : str
        Dotted names, as "jobqueue".

    Raises
    ------
    ClusterError
        If a file is not YAML. The message names it.
    """
    import dask

    collected = _collect()
    for section in sections:
        found = dask.config.get(section, None, config=collected)
        if found is not None:
            dask.config.update(dask.config.config, _nest(section, found))


@contextlib.contextmanager
def exactly(settings: Mapping[str, Any], keep: tuple[str, ...] = ()) -> Iterator[None]:
    """While the body runs, Dask's configuration in this process is its own defaults and these settings, nothing else.

    Workers that are started in the body get a copy.

    Parameters
    ----------
    settings : mapping
        By dotted name.
    keep : tuple of str
        Sections that stay as they are, such as the site's.
    """
    import dask
    import distributed  # noqa: F401, its defaults join Dask's when it is imported

    ours: dict[str, Any] = copy.deepcopy(dask.config.merge(*dask.config.defaults))
    for section in keep:
        dask.config.update(ours, _nest(section, copy.deepcopy(dask.config.get(section, {}))))
    dask.config.set(copy.deepcopy(dict(settings)), config=ours)  # Dask appends to lists of routes
    with _lock:
        if not _in_force:
            _before.update(dask.config.config)
        _in_force.append(ours)
        _install(ours)
    try:
        yield
    finally:
        with _lock:
            was_last = _in_force[-1] is ours
            _in_force[:] = [other for other in _in_force if other is not ours]
            # with the defaults of what was imported in the body, such as dask-jobqueue
            if not _in_force:
                _install(dask.config.merge(*dask.config.defaults, _before))
                _before.clear()
            elif was_last:
                _install(dask.config.merge(*dask.config.defaults, _in_force[-1]))


def _install(content: Mapping[str, Any]) -> None:
    """Put the content into Dask's one dictionary, which other modules hold too."""
    import dask

    content = dict(content)
    dask.config.config.clear()
    dask.config.config.update(content)


def _nest(name: str, value: Any) -> dict[str, Any]:
    """A value below its dotted name.

    Examples
    --------
    >>> _nest("distributed.comm", 1)
    {'distributed': {'comm': 1}}
    """
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)
