"""What is seen of SLURM, and of the processes of its jobs, which run on this machine."""

import subprocess
import time
from pathlib import Path

import psutil
import yaml

HANGS_AFTER_S = 360
LABELS = "labels/segmentation/0"


def write_cluster(folder: Path, **changes) -> Path:
    """A description of two jobs of one core each; keywords change it, None removes a key."""
    values = {
        "kind": "slurm",
        "jobs": 2,
        "job_cores": 1,
        "job_memory": "3GiB",
        "partition": "cpu",
        "walltime": "00:10:00",
        "wait": HANGS_AFTER_S,
        "death_timeout": 20,
        "shared_directory": str(folder / "shared"),
        "log_directory": str(folder / "logs"),
        **changes,
    }
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return path


def segment_arguments(slide, model, output, *more):
    """A command of many small blocks."""
    return ("segment", slide, "--axes", "yx", "--model", model, "-o", output, "--block", "32", *more)


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


def running_jobs(node: str = "n1,n2") -> list[str]:
    """Numbers of the jobs that run, on one node or on both."""
    command = ["squeue", "--noheader", "--states", "RUNNING", "--format", "%i", "--nodelist", node]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def reach_wall_time(jobs: list[str]) -> None:
    """Let the time limit of jobs be over now: SLURM ends them as it does then."""
    for job in jobs:
        # slurmctld refuses a time that is past when it hears of it
        subprocess.run(["scontrol", "update", f"JobId={job}", "EndTime=now+2seconds"], check=True)


def set_partition(name: str, state: str) -> None:
    """UP, or DOWN: it takes jobs and starts none."""
    subprocess.run(["scontrol", "update", f"PartitionName={name}", f"State={state}"], check=True)


def worker_processes() -> list[psutil.Process]:
    """Workers that jobs have started; other tests have some of their own."""
    found = []
    for process in psutil.process_iter():
        try:
            if "distributed.cli.dask_worker" in process.cmdline() and "SLURM_JOB_ID" in process.environ():
                found.append(process)
        except psutil.Error:  # gone in the meantime
            continue
    return found


def open_ports(processes) -> set[tuple[str, int]]:
    """Addresses beyond loopback on which processes take connections."""
    sockets = [connection for process in processes for connection in process.net_connections("inet")]
    listening = {tuple(socket.laddr) for socket in sockets if socket.status == psutil.CONN_LISTEN}
    return {(host, port) for host, port in listening if host not in ("127.0.0.1", "::1")}
