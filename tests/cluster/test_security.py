"""Strangers are kept out: by certificates, and by folders that only the user can open."""

import os
import socket
import stat

import psutil
import pytest
from distributed import Client
from distributed.security import Security

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.security import new_security, private_folder


@pytest.fixture(scope="module")
def guarded(start_scheduler, tmp_path_factory):
    security = new_security(str(tmp_path_factory.mktemp("tls")))
    with start_scheduler(security=security, protocol="tls://") as cluster:
        yield cluster, security


def addresses(cluster):
    return [cluster.scheduler_address, *(worker.address for worker in cluster.workers.values())]


def test_who_has_the_certificate_is_let_in(guarded):
    cluster, security = guarded
    with Client(cluster.scheduler_address, security=security) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_stranger_with_a_certificate_of_another_authority_is_refused(guarded):
    for address in addresses(guarded[0]):
        with pytest.raises(OSError, match="(?i)certificate|timed out|ssl"):
            Client(address, security=Security.temporary(), timeout=2, set_as_default=False)


def test_a_stranger_without_tls_is_refused(guarded):
    for address in addresses(guarded[0]):
        with pytest.raises(OSError, match="(?i)timed out|closed|reset|match"):
            Client(address.replace("tls://", "tcp://"), timeout=2, set_as_default=False)


def test_plain_bytes_get_no_answer_but_an_alert(guarded):
    for address in addresses(guarded[0]):
        host, port = address.removeprefix("tls://").rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            plain.sendall(b"\x00" * 64)
            try:
                answer = plain.recv(1000)
            except ConnectionResetError:
                continue
        assert len(answer) <= 7, "an alert has seven bytes"


def test_certificates_can_be_read_by_the_user_only(tmp_path):
    with private_folder(str(tmp_path / "shared"), "x-") as folder:
        new_security(folder)
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        names = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(folder)}
        assert {name: mode for name, mode in names.items() if name.endswith(".pem")} == {
            "ca_file.pem": 0o600,
            "cert.pem": 0o600,
            "key.pem": 0o600,
        }
    assert os.listdir(tmp_path / "shared") == []


def test_each_run_has_certificates_of_its_own(tmp_path):
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        new_security(str(tmp_path / name))
        made.append((tmp_path / name / "key.pem").read_text())
    assert made[0] != made[1]


def test_folders_of_killed_runs_are_removed_and_those_of_living_ones_kept(tmp_path):
    names = ("segment-slide-old", "segment-slide-open", "notes")
    abandoned, open_to_others, strange = (tmp_path / name for name in names)
    for path in (abandoned, open_to_others, strange):
        path.mkdir(mode=0o755 if path == open_to_others else 0o700)
        (path / ".segment-slide.lock").touch()
        (path / "key.pem").touch()
    (tmp_path / "segment-slide-link").symlink_to(strange)
    with private_folder(str(tmp_path), "a-") as first, private_folder(str(tmp_path), "b-") as second:
        assert os.path.isdir(first)
        assert os.path.isdir(second)
        assert not abandoned.exists()
    assert (strange / "key.pem").exists()
    assert (open_to_others / "key.pem").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ClusterError, match=r"shared_directory=.*file/x: cannot be written"),
        private_folder(str(tmp_path / "file" / "x"), "a-"),
    ):
        pass


def test_a_folder_that_others_can_open_is_refused(tmp_path, monkeypatch):
    """As on a file system that knows no modes."""
    original = os.stat

    def open_to_all(path, *args, **options):
        found = original(path, *args, **options)
        return os.stat_result((found.st_mode | 0o077, *found[1:])) if "segment-slide-a-" in str(path) else found

    monkeypatch.setattr("segment_slide.cluster.security.os.stat", open_to_all)
    with (
        pytest.raises(ClusterError, match=r"others can open what is made in it \(mode 777\)"),
        private_folder(str(tmp_path), "a-"),
    ):
        pass


def test_no_dashboard_listens_beyond_loopback(guarded):
    listening = {
        connection.laddr.ip
        for connection in psutil.Process().net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1"}
