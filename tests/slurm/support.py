"""What is seen of SLURM, and of the processes of its jobs, which run on this machine."""

import subprocess
import time

import psutil

HANGS_AFTER_S = 90


def wait_until(condition, what: str) -> float:
    """Poll; the seconds it took. The limit is for what hangs, not a promise."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < HANGS_AFTER_S, f"never: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


def all_jobs() -> str:
    """What squeue shows, of whatever name."""
    done = subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def worker_processes() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if "distributed.cli.dask_worker" in process.cmdline():
                found.append(process)
        except psutil.Error:  # gone in the meantime
            continue
    return found


def open_ports(processes) -> set[tuple[str, int]]:
    """Addresses beyond loopback on which processes take connections."""
    sockets = [connection for process in processes for connection in process.net_connections("inet")]
    listening = {tuple(socket.laddr) for socket in sockets if socket.status == psutil.CONN_LISTEN}
    return {(host, port) for host, port in listening if host not in ("127.0.0.1", "::1")}
