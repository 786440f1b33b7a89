"""Kind cuda where there is no GPU: one sentence. dask-cuda itself is a stand-in here; tests marked gpu start it."""

import sys
import types

import dask
import pytest
from distributed import LocalCluster

from segment_slide.cluster.complete import complete_spec
from segment_slide.cluster.connect import connect
from segment_slide.cluster.describe import describe_cluster
from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.kinds.cuda import visible_gpus
from segment_slide.cluster.spec import ClusterSpec


class NVMLError(Exception):
    pass


@pytest.fixture
def driver(monkeypatch):
    """A driver that shows so many GPUs; None: no driver."""

    def install(count):
        module = types.ModuleType("pynvml")

        def init():
            if count is None:
                raise NVMLError("NVML Shared Library Not Found")

        module.NVMLError, module.nvmlInit, module.nvmlDeviceGetCount = NVMLError, init, lambda: count
        monkeypatch.setitem(sys.modules, "pynvml", module)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(
        ClusterError, match=r"needs the package dask-cuda with its extra: pip install 'segment-slide\[cuda\]"
    ):
        complete_spec(describe_cluster("cuda"))


def test_dask_cuda_without_its_extra_is_said(driver, monkeypatch):
    driver(1)
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    with pytest.raises(ClusterError, match="needs the package dask-cuda with its extra"), connect(ClusterSpec("cuda")):
        pass


def test_without_a_driver_or_a_gpu_it_is_said(driver, monkeypatch):
    driver(None)
    with pytest.raises(ClusterError, match=r"this machine shows none \(NVML Shared Library Not Found\); use local"):
        complete_spec(ClusterSpec("cuda"))
    driver(0)
    with pytest.raises(ClusterError, match="the driver shows 0"):
        complete_spec(ClusterSpec("cuda"))
    driver(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ClusterError, match="CUDA_VISIBLE_DEVICES=''"):
        complete_spec(ClusterSpec("cuda"))


@pytest.mark.parametrize(
    ("named", "gpus"),
    [(None, ("0", "1")), ("1", ("1",)), ("1, 0", ("1", "0")), ("0,-1,1", ("0",)), ("GPU-a", ("GPU-a",))],
)
def test_gpus_are_those_that_cuda_would_see(driver, named, gpus, monkeypatch):
    driver(2)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


def test_there_is_one_worker_per_gpu_that_runs_one_forward_pass_at_a_time(driver, monkeypatch):
    monkeypatch.setattr("segment_slide.cluster.kinds.cuda.memory_limit", lambda: 100 << 30)
    driver(4)
    spec = complete_spec(ClusterSpec("cuda"))
    assert (spec.workers, spec.cores, spec.tasks_per_worker, spec.workers_needed) == (4, 1, 2, 4)
    assert spec.memory_bytes == (90 << 30) // 4
    assert complete_spec(spec) == spec


def test_two_workers_on_one_gpu_are_refused(driver, monkeypatch):
    driver(2)
    with pytest.raises(ClusterError, match=r"workers=3, expected 1 to 2: this machine has 2 GPU"):
        complete_spec(describe_cluster("cuda", workers=3))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,0")
    with pytest.raises(ClusterError, match="names a GPU twice; two workers on one GPU are refused"):
        complete_spec(ClusterSpec("cuda"))


def test_dask_cuda_gets_what_local_workers_get(driver, monkeypatch):
    driver(2)
    seen = {}

    class StandIn(LocalCluster):
        def __init__(self, **options):
            seen.update(options, terminate=dask.config.get("distributed.worker.memory.terminate"))
            super().__init__(
                n_workers=options["n_workers"],
                processes=False,
                host=options["host"],
                protocol=options["protocol"],
                security=options["security"],
                dashboard_address=options["dashboard_address"],
                worker_dashboard_address=None,
            )

    module = types.ModuleType("dask_cuda")
    module.LocalCUDACluster = StandIn
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    with connect(describe_cluster("cuda", workers=1)) as client:
        assert client.submit(sum, [1, 2]).result() == 3
    assert seen["CUDA_VISIBLE_DEVICES"] == "0"
    assert seen["protocol"] == "tls://"
    assert seen["security"].require_encryption
    assert seen["preload"] == ["segment_slide.cluster.preload"]
    assert (seen["threads_per_worker"], seen["device_memory_limit"], seen["terminate"]) == (2, 0, 0.98)


@pytest.mark.gpu
def test_a_worker_per_gpu_computes():
    pytest.importorskip("dask_cuda")
    from segment_slide.cluster.preflight import preflight

    spec = complete_spec(ClusterSpec("cuda"))
    with connect(spec) as client:
        preflight(client, spec)
        assert client.submit(sum, [1, 2]).result() == 3
