"""Prefect's temporary server answers its own process, and no other user of the machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from segment_slide.flows.deployed.secret import protect_temporary_server
from tests.flows.deployed.support import environment

PYTHON = Path("/usr/bin/python3")  # that other users may run, too
ASK = """
import os, subprocess, sys
import segment_slide.flows.deployed
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print("ours", client._client.post("/variables/filter", json={}).status_code)
    as_other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    subprocess.run([*as_other, *sys.argv[1:], str(client.api_url)], check=True, cwd="/", env={})
"""
ASK_PLAINLY = """
import sys, urllib.error, urllib.request
place = sys.argv[1].rstrip("/") + "/variables/filter"
try:
    code = urllib.request.urlopen(urllib.request.Request(place, b"{}", {"Content-Type": "application/json"})).status
except urllib.error.HTTPError as error:
    code = error.code
print("other", code)
"""


def test_what_the_user_configured_stays(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "prefect", raising=False)
    monkeypatch.chdir(tmp_path)
    home = {"PREFECT_HOME": str(tmp_path)}
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        given = {**home, name: "x"}
        assert not protect_temporary_server(given)
        assert given == {**home, name: "x"}
    fresh = dict(home)
    assert protect_temporary_server(fresh)
    assert fresh["PREFECT_API_AUTH_STRING"] == fresh["PREFECT_SERVER_API_AUTH_STRING"]
    assert len(fresh["PREFECT_API_AUTH_STRING"]) > 30
    (tmp_path / "profiles.toml").write_text('[profiles.site]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n')
    assert not protect_temporary_server(dict(home))


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="needs a Python that other users may run")
@pytest.mark.parametrize("is_protected", [True, False], ids=["as it is", "without the secret"])
def test_another_user_is_refused_by_the_temporary_server(is_protected, tmp_path):
    code = ASK if is_protected else ASK.replace("import segment_slide.flows.deployed\n", "")
    done = subprocess.run(
        [sys.executable, "-c", code, PYTHON, "-c", ASK_PLAINLY],
        env=environment(tmp_path / "home", PREFECT_LOGGING_LEVEL="ERROR"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "ours 200" in done.stdout, done.stderr
    assert ("other 401" if is_protected else "other 200") in done.stdout, done.stderr
