"""``segment-slide/slurm`` through a real Prefect server and a real SLURM: the bytes of the command on this machine."""

import pytest

from tests.flows.deployed.conftest import site as site_fixture
from tests.flows.support import brake, noise, run_installed, shards, tree, write_array, write_model
from tests.slurm.support import all_jobs, wait_until, write_cluster

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("empty_queue")]

site = site_fixture
SMALL = {"block": 32, "axes": "yx", "precision": "float32"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "cells.safetensors")


def begin_run(site, slide, model, output, disturbing=None):
    places = {"input": slide, "model": model, "output": output, "cluster": write_cluster(output.parent)}
    places = {name: str(path) for name, path in places.items()}
    return site.begin_run("segment-slide/slurm", disturbing, **places, segmentation=SMALL)


def test_a_slide_is_segmented_and_measured_on_jobs_that_are_waited_for_once(slurm, site, model, tmp_path):
    slide, output = write_array(tmp_path / "slide.zarr", noise(300, 280)), tmp_path / "out.ome.zarr"
    run = begin_run(site, slide, model, output)
    names = set()

    def is_over() -> bool:
        names.update(job.split()[0] for job in all_jobs().splitlines())
        return site.state(run)["type"] in ("COMPLETED", "FAILED", "CRASHED")

    wait_until(is_over, "the end of the run")
    assert site.state(run)["type"] == "COMPLETED", site.log("worker")
    assert len(names) == 2  # two jobs in all, not two for each of three stages
    wait_until(lambda: not all_jobs(), "an empty queue")
    alone = tmp_path / "alone.ome.zarr"
    options = ("--axes", "yx", "--block", 32, "--precision", "float32", "--device", "cpu")
    assert run_installed("segment", slide, "-m", model, "-o", alone, *options).exit_code == 0
    found, wanted = tree(output), tree(alone)
    lists = ("labels/zarr.json", "_manifest/files.json")  # of all that is there, objects and tables too
    assert {name: found[name] for name in wanted if name not in lists} == {
        name: digest for name, digest in wanted.items() if name not in lists
    }


def test_a_cancelled_run_leaves_nothing_in_the_queue(slurm, site, model, tmp_path):
    slide, output = write_array(tmp_path / "slide.zarr", noise(800, 800)), tmp_path / "out.ome.zarr"
    slowly = brake(tmp_path / "brake", output / "labels/segmentation/0/c", 6)
    run = begin_run(site, slide, model, output, slowly)
    wait_until(lambda: len(shards(output / "labels/segmentation/0")) > 5, "some blocks")
    assert all_jobs()
    site.cancel(run)
    wait_until(lambda: not all_jobs(), "an empty queue")
    assert site.finish(run)["type"] == "CANCELLED"
