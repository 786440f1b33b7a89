"""What listens, as the kernel says, and a second user of the machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

NOBODY = 65534
LISTENS = "0A"

#: A module that leaves a trace beside itself when it is imported.
PLANTED = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()"

PROBE = Path(__file__).with_name("probe.py")


def semaphores(processes: list[psutil.Process]) -> set[str]:
    """Files in /dev/shm that processes have opened as semaphores."""
    maps = "".join(Path(f"/proc/{process.pid}/maps").read_text() for process in processes)
    return set(re.findall(r"/dev/shm/sem\.mp-\w+", maps))


def listening_ports(root: psutil.Process) -> set[str]:
    """Host and port of each TCP socket on which a process or one below it takes connections."""
    inodes = set()
    for process in (root, *root.children(recursive=True)):
        folder = f"/proc/{process.pid}/fd"
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            try:
                target = os.readlink(f"{folder}/{name}")
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table, any_host in (("tcp", "127.0.0.1"), ("tcp6", "::1")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and words[9] in inodes:
                host, _, port = words[1].partition(":")
                found.add(f"{_read_host(host) or any_host}:{int(port, 16)}")
    return found


def _read_host(text: str) -> str:
    """An address of IPv4 as the kernel writes it; empty for every other, which is reached by loopback here."""
    if len(text) != 8 or set(text) == {"0"}:
        return ""
    return ".".join(str(part) for part in reversed(bytes.fromhex(text)))


def probe(ports: set[str], *, as_uid: int | None = None) -> dict[str, list[str]]:
    """What strangers get from the ports, by port; only those that gave something.

    Parameters
    ----------
    as_uid : int, optional
        Ask as this user; only root may choose.
    """
    python = sys.executable if as_uid is None else _python_of_all()
    command = [python, "-I", "-", *sorted(ports)]
    if as_uid is not None:
        command = [*_as_user(as_uid), *command]
    done = subprocess.run(command, input=PROBE.read_text(), capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["uid"] == (os.getuid() if as_uid is None else as_uid)
    return {port: given for port, given in said["given"].items() if given}


def _as_user(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def _python_of_all() -> str:
    """An interpreter that another user may run; that of the tests may lie in a private home folder."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be another user, and setpriv is needed")
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        trial = [*_as_user(NOBODY), python, "-I", "-c", "import ssl"]
        if os.path.exists(python) and subprocess.run(trial, capture_output=True, check=False, cwd="/").returncode == 0:
            return python
    pytest.skip("no interpreter here can be run by another user")
