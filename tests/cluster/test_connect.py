"""One description in, one client out: started here, or joined."""

import distributed.client
import psutil
import pytest

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.connect import connect
from segment_slide.cluster.describe import describe_cluster
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.security import new_security
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.versions import compare_versions
from segment_slide.cluster.waiting import wait_for_workers
from tests.processes import spawned_below


def join(cluster, **changes):
    return ClusterSpec(
        "address", address=cluster.scheduler_address, wait_s=10, **{"allow_unencrypted": True, **changes}
    )


# -- local -----------------------------------------------------------------------------------------------------


def test_locally_workers_are_started_and_ended():
    before = set(spawned_below(psutil.Process()))
    with connect(describe_cluster("local", workers=1)) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert len(client.nthreads()) == 1
        started = set(spawned_below(psutil.Process())) - before
    assert started
    assert psutil.wait_procs(started, timeout=60)[1] == []


# -- address ---------------------------------------------------------------------------------------------------


def test_a_scheduler_that_runs_is_joined_and_stays(scheduler):
    for _ in range(2):
        with connect(join(scheduler)) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_a_scheduler_without_encryption_is_joined_only_where_that_is_allowed(scheduler, tmp_path):
    refused = (
        r"tcp://\S+: connections with tcp:// are not encrypted .*Expected tls://host:port, or, .*allow_unencrypted"
    )
    spec = describe_cluster(scheduler.scheduler_address)
    for use in (connect, complete_spec):
        with pytest.raises(ClusterError, match=refused), use(spec):
            pass
    (tmp_path / "there.yaml").write_text(
        f"kind: address\naddress: {scheduler.scheduler_address}\nallow_unencrypted: true"
    )
    with connect(describe_cluster(str(tmp_path / "there.yaml"))) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_plan_for_an_address_asks_the_scheduler(scheduler):
    spec = complete_spec(join(scheduler))
    assert (spec.workers, spec.cores, spec.tasks_per_worker) == (2, 2, 3)
    # these workers pause at 80 % of their memory
    assert abs(spec.usable_bytes - 0.8 * (1 << 30)) < 4
    assert complete_spec(spec) is spec


def test_workers_without_a_memory_limit_cannot_be_planned_for(start_scheduler):
    with (
        start_scheduler(n_workers=1, memory_limit=0) as cluster,
        pytest.raises(ClusterError, match="its workers have no memory limit"),
    ):
        complete_spec(join(cluster))


def test_an_address_where_nobody_answers_is_said():
    spec = ClusterSpec("address", address="tcp://127.0.0.1:9", allow_unencrypted=True, wait_s=1)
    expected = "address=tcp://127.0.0.1:9: cannot connect to a Dask scheduler"
    with pytest.raises(ClusterError, match=expected), connect(spec):
        pass


def test_a_scheduler_without_workers_is_said(start_scheduler):
    with (
        start_scheduler(n_workers=0) as cluster,
        pytest.raises(ClusterError, match=r"0 of 1 workers are there after wait=1 s\.$"),
        connect(ClusterSpec("address", address=cluster.scheduler_address, allow_unencrypted=True, wait_s=1)),
    ):
        pass


def test_the_scheduler_is_joined_with_tls_by_who_has_the_files(start_scheduler, tmp_path):
    (tmp_path / "other").mkdir()
    security, other = new_security(str(tmp_path)), new_security(str(tmp_path / "other"))
    with start_scheduler(security=security, protocol="tls://") as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        with connect(join(cluster, **files(security))) as client:
            assert client.submit(sum, [1, 2]).result() == 3
        expected = "cannot connect to a Dask scheduler"
        with pytest.raises(ClusterError, match=expected), connect(join(cluster, **files(other))):
            pass
        with (
            pytest.raises(ClusterError, match=r"certificates are needed; expected tls_ca_file"),
            connect(join(cluster)),
        ):
            pass
        missing = {**files(security), "tls_key": str(tmp_path / "none.pem")}
        with pytest.raises(ClusterError, match=r"tls_key=.*none.pem: there is no such file"):
            complete_spec(join(cluster, **missing))


def files(security):
    return {
        "tls_ca_file": security.tls_ca_file,
        "tls_cert": security.tls_client_cert,
        "tls_key": security.tls_client_key,
    }


# -- versions --------------------------------------------------------------------------------------------------


def test_versions_that_do_not_agree_are_refused_with_worker_and_package(scheduler, monkeypatch):
    original = distributed.client.Client.get_versions

    def tampered(client, *args, **options):
        found = original(client, *args, **options)
        for report in found["workers"].values():
            report["packages"] = {**report["packages"], "numpy": "1.0.0", "segment-slide": None}
        return found

    monkeypatch.setattr(distributed.client.Client, "get_versions", tampered)
    words = (
        r"versions do not agree: worker tcp://127.0.0.1:\d+ has numpy 1.0.0, here it is .*; and 1 more. Install there"
    )
    with pytest.raises(ClusterError, match=words), connect(join(scheduler)):
        pass


@pytest.mark.parametrize(
    ("here", "there", "differ"),
    [
        ({"torch": "2.13.0+cpu"}, {"torch": "2.13.0+cu130"}, False),
        ({"torch": "2.13.0"}, {"torch": "2.12.0"}, True),
        ({"python": "3.11.7.final.0"}, {"python": "3.11.9.final.0"}, False),
        ({"python": "3.11.7.final.0"}, {"python": "3.12.1.final.0"}, True),
        ({"zarr": None}, {"zarr": "3.1.6"}, False),
        ({"zarr": "3.1.6"}, {"zarr": None}, True),
        ({"zarr": "3.1.6"}, {}, True),
    ],
)
def test_builds_of_one_version_agree_and_versions_do_not(here, there, differ):
    assert bool(compare_versions(here, "w", there)) == differ


def test_a_scheduler_that_runs_no_tasks_needs_no_numpy():
    assert not compare_versions({"numpy": "2"}, "the scheduler", {}, scheduler=True)
    assert compare_versions({"dask": "2"}, "the scheduler", {"dask": "1"}, scheduler=True)


# -- waiting ---------------------------------------------------------------------------------------------------


def test_workers_that_are_there_are_not_waited_for(scheduler):
    from distributed import Client

    with Client(scheduler) as client:
        wait_for_workers(client, join(scheduler))
