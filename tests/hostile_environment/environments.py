"""Environments that a user does not choose, one line each: what a shell puts around a command, and what it sets."""

import os
from dataclasses import dataclass, field
from pathlib import Path

# Replaced by a folder of the test.
FOLDER = "{folder}"


@dataclass(frozen=True)
class Environment:
    """What differs from an ordinary shell.

    Parameters
    ----------
    shell : str
        Line of bash; "$@" stands for the command.
    variables : dict
        Environment variables; None takes one away.
    files : dict
        Contents by path relative to the home folder.
    space : str, optional
        Option of ``unshare``: what the command has for itself alone, such as its mounts. Only root may do that.
    """

    shell: str = '"$@"'
    variables: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    space: str | None = None

    def words(self, command: list[object]) -> list[str | bytes]:
        """The command as it is started."""
        own_space = ["unshare", self.space] if self.space else []
        return [*own_space, "bash", "-c", self.shell, "bash", *(os.fsencode(str(word)) for word in command)]

    def prepare(self, folder: Path) -> dict[str, str]:
        """Write the files, and return the whole environment of the command."""
        for name, content in self.files.items():
            path = folder / "home" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        home = {"HOME": str(folder / "home")} if self.files else {}
        changed = {**os.environ, **home, **self.variables}
        return {name: value.replace(FOLDER, str(folder)) for name, value in changed.items() if value is not None}


def _dask(content: str, **variables: str) -> Environment:
    return Environment(files={".config/dask/own.yaml": content.encode("latin-1")}, variables=dict(variables))


STREAMS = {
    "stdout is closed": Environment('"$@" >&-'),
    "stderr is closed": Environment('"$@" 2>&-'),
    "stdin is closed": Environment('"$@" <&-'),
    "all streams are closed": Environment('"$@" <&- >&- 2>&-'),
    "the disk of stdout is full": Environment('"$@" >/dev/full'),
    "the disk of both is full": Environment('"$@" >/dev/full 2>&1'),
    "the reader of stdout leaves": Environment('set -o pipefail; "$@" | true'),
}
TEXT = {
    "LANG=C and TERM=dumb": Environment(variables={"LANG": "C", "LC_ALL": "C", "TERM": "dumb"}),
    "an encoding of 128 signs": Environment(variables={"PYTHONIOENCODING": "ascii", "COLUMNS": "70"}),
    "an encoding of 256 signs": Environment(variables={"PYTHONIOENCODING": "latin-1"}),
}
FOLDERS = {
    "files named like modules of Python": Environment(
        'for name in copy pickle random socket struct; do echo "raise RuntimeError" >$name.py; done; "$@"'
    ),
    "no HOME": Environment(variables={"HOME": None}),
    "neither HOME nor TMPDIR is there": Environment(variables={"HOME": f"{FOLDER}/none", "TMPDIR": f"{FOLDER}/none"}),
    "HOME cannot be written": Environment(
        'mkdir "$HOME" && mount -t tmpfs -o ro tmpfs "$HOME" && exec "$@"',
        variables={"HOME": f"{FOLDER}/home"},
        space="--mount",
    ),
}
SHARED_MEMORY = {
    "/dev/shm is read-only": Environment('mount -t tmpfs -o ro tmpfs /dev/shm && exec "$@"', space="--mount"),
    "/dev/shm is full": Environment('mount -t tmpfs -o size=4k tmpfs /dev/shm && exec "$@"', space="--mount"),
}
DASK = {
    "workers that leave": _dask(
        "distributed: {worker: {lifetime: {duration: 1s}}, scheduler: {idle-timeout: 1s, worker-ttl: 1s}}"
    ),
    "encryption": _dask("distributed: {comm: {require-encryption: true, timeouts: {connect: 1ms, tcp: 1ms}}}"),
    "preloads": _dask(
        "distributed: {worker: {preload: [none.such]}, nanny: {preload: [none.such], environ: {OMP_NUM_THREADS: 7}}, "
        "scheduler: {preload: [none.such]}, client: {preload: [none.such]}}"
    ),
    "memory and folders": _dask(
        "distributed: {worker: {memory: {terminate: 0.001, pause: 0.001}, multiprocessing-method: fork}}\n"
        "temporary-directory: /none/such\nscheduler-address: tcp://192.0.2.1:1"
    ),
    "levels of logging": _dask("logging: {distributed: loud}\nlogging-file-config: /none/such"),
    "no YAML": _dask("distributed: [1, \n a: {"),
    "no text": _dask("name: \xe9"),
    "variables": _dask(
        "{}",
        DASK_DISTRIBUTED="1",
        DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION="1s",
        DASK_INTERNAL_INHERIT_CONFIG="?",
        DASK_CONFIG="/dev/null",
    ),
}
# Environments in which no worker can start, and how the sentence begins that says so.
REFUSED = {
    "there is no loopback": (
        Environment(space="--net"),
        "Error: workers need the network interface of this machine alone, and 127.0.0.1 cannot be used: ",
    ),
}
