"""Start a cluster, say so, and hold it until standard input ends: ``python held_cluster.py ours`` or ``… dask``."""

import contextlib
import json
import os
import sys


def import_zarr() -> str:
    """The file that a worker takes for zarr."""
    import zarr

    return str(zarr.__file__)


@contextlib.contextmanager
def ours():
    """Workers as every command starts them."""
    from segment_slide.cluster.configuration import keep_files_out

    keep_files_out()
    from segment_slide.cluster.connect import connect
    from segment_slide.cluster.spec import ClusterSpec

    with connect(ClusterSpec(workers=1, cores=1, memory_bytes=1 << 30)) as client:
        yield client


@contextlib.contextmanager
def dask():
    """The control: workers as Dask starts them."""
    from distributed import Client, LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 2, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


if __name__ == "__main__":
    sys.path[:] = [folder for folder in sys.path if folder != os.path.dirname(__file__)]
    with {"ours": ours, "dask": dask}[sys.argv[1]]() as client:
        scratch = client.run(lambda dask_worker: dask_worker.local_directory)
        zarr = client.run(import_zarr)
        sys.stdout.write(json.dumps({"scratch": list(scratch.values()), "zarr": list(zarr.values())}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
