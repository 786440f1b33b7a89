"""A Prefect server, a work pool and a worker as a site has them, and what its browser would be told."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.flows.support import free_port

REPOSITORY = Path(__file__).parents[3]
HANGS_AFTER_S = 600
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
PREFECT = Path(sys.executable).with_name("prefect")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a process that uses Prefect with a database of its own, whatever this process has set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_CLI_COLORS": "false"}
    return {**kept, **quiet, "PREFECT_HOME": str(home), **more}


def wait_for(condition, what: str, seconds: float = HANGS_AFTER_S) -> Any:
    """Poll until a condition gives something true. The limit is for what hangs, not a promise."""
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"never: {what}"
        time.sleep(0.2)
    return found


@dataclass
class Site:
    """A server on a free port of loopback, with its database in a folder."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = environment(self.folder / "home", PREFECT_API_URL=f"{self.url}/api")

    def begin(self) -> None:
        """Start the server and wait until it answers; make the pool, the deployments and a worker."""
        self.start("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        wait_for(self._answers, f"a server: {self.log('server')}")
        self.prefect("work-pool", "create", "segment-slide", "--type", "process")
        self.prefect("--no-prompt", "deploy", "--all")
        self.start_worker()

    def _answers(self) -> bool:
        assert self.processes["server"].poll() is None, self.log("server")
        try:
            return httpx.get(f"{self.url}/api/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def start_worker(self) -> None:
        self.start("worker", "worker", "start", "--pool", "segment-slide")

    def start(self, name: str, *arguments: str) -> None:
        """A process that stays, in a group of its own, its output in a file."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [PREFECT, *arguments], env=self.env, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-6000:]

    def prefect(self, *arguments: str, cwd: Path = REPOSITORY, **more: str) -> str:
        """One command of Prefect, in a folder, with more in its environment."""
        env = {**self.env, **more}
        done = subprocess.run([PREFECT, *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def end(self) -> None:
        for process in reversed(self.processes.values()):  # the worker before the server
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    # -- what the browser does ---------------------------------------------------------------------------------

    def post(self, path: str, content: Any) -> Any:
        for _ in range(5):  # a busy SQLite says so, and Prefect's own clients ask again
            answer = httpx.post(f"{self.url}/api/{path}", json=content, timeout=120)
            if answer.status_code != 503:
                break
            time.sleep(1)
        assert answer.is_success, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.url}/api/{path}", timeout=120)
        assert answer.is_success, answer.text
        return answer.json()

    def begin_run(self, deployment: str, disturbing: Mapping[str, str] | None = None, /, **parameters: Any) -> str:
        """Ask for a run, as the button does, with more in its environment; its id."""
        found = self.get(f"deployments/name/{deployment}")
        asked = {"parameters": parameters, "job_variables": {"env": disturbing or {}}}
        return self.post(f"deployments/{found['id']}/create_flow_run", asked)["id"]

    def state(self, run: str) -> dict[str, Any]:
        return self.get(f"flow_runs/{run}")["state"]

    def finish(self, run: str) -> dict[str, Any]:
        """Wait for the end of a run; its last state."""
        wait_for(lambda: self.state(run)["type"] in ENDS, f"the end of {run}: {self.log('worker')}")
        return self.state(run)

    def cancel(self, run: str) -> None:
        self.post(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    def artifacts(self, run: str, kind: str) -> list[dict[str, Any]]:
        """Of a run and its tasks, in order."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run]}, "type": {"any_": [kind]}}, "sort": "CREATED_DESC"}
        return self.post("artifacts/filter", wanted)[::-1]

    def logs(self, run: str) -> list[str]:
        found = self.post("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"})
        return [line["message"] for line in found]

    def tasks(self, run: str) -> list[dict[str, Any]]:
        wanted = {"flow_runs": {"id": {"any_": [run]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.post("task_runs/filter", wanted)

    def stages(self, run: str, count: int) -> list[str]:
        """Names of so many stages in order; the server learns of them as events, which may come after the run's end."""
        tasks = wait_for(lambda: found if len(found := self.tasks(run)) >= count else None, f"{count} stages of {run}")
        return [task["name"] for task in tasks]

    def working_times(self, run: str) -> tuple[str, str]:
        """When the first stage began and the last ended, but for the report, which waits for nobody."""
        wait_for(lambda: all(task["end_time"] for task in self.tasks(run)), f"the ends of {run}'s stages")
        tasks = [task for task in self.tasks(run) if not task["name"].startswith("report of")]
        return min(task["start_time"] for task in tasks), max(task["end_time"] for task in tasks)


def run_id(printed: str) -> str:
    """The id that ``prefect deployment run`` prints."""
    found = re.search(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", printed)
    assert found, printed
    return found[0]


def as_json(**parameters: Any) -> list[str]:
    """Parameters for ``prefect deployment run``."""
    return [f"--param={name}={json.dumps(value)}" for name, value in parameters.items()]
