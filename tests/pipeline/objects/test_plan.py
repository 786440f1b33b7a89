"""What is refused before any work, and what sizes mean."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.errors import InputError, PlanError
from segment_slide.pipeline.objects.options import InstanceOptions, ObjectSize
from segment_slide.pipeline.objects.plan import plan_instances
from segment_slide.pipeline.storage import ome
from segment_slide.pipeline.storage.image import StoredImage, describe_image


def stored(folder: Path, shape: tuple[int, ...], axes: str, dtype: str = "uint8", chunks: Any = "auto") -> StoredImage:
    zarr.create_array(folder / "classes", shape=shape, dtype=dtype, chunks=chunks)
    return describe_image(folder / "classes", axes=axes)


def calibrated(image: StoredImage, scale: tuple[float, ...], unit: str | None) -> StoredImage:
    level = ome.Level("", scale, (0.0,) * len(scale))
    multiscale = ome.Multiscale(image.axes, (unit,) * len(scale), (level,))
    return StoredImage(image.location, "", image.shape, image.chunks, image.dtype, multiscale)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50", ObjectSize(50)),
        (" 50 px", ObjectSize(50)),
        ("12.5um2", ObjectSize(12.5, "um2")),
        ("12.5 µm²", ObjectSize(12.5, "um2")),
        ("12.5 \u03bcm2", ObjectSize(12.5, "um2")),  # a Greek mu, which keyboards give
        ("8e3 um3", ObjectSize(8000, "um3")),
        ("12,5um2", ObjectSize(12.5, "um2")),  # as all other lengths: a decimal comma
        (".5 um^2", ObjectSize(0.5, "um2")),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: ObjectSize) -> None:
    assert ObjectSize.parse(text) == size


@pytest.mark.parametrize("text", ["", "abc", "-5", "5um", "5 m2", "nan", "1e400x", "1e999", "1,2,3", "."])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(PlanError, match="expected a number of pixels"):
        ObjectSize.parse(text, "min_size")


def test_areas_become_pixels_rounded_up(tmp_path: Path) -> None:
    image = calibrated(stored(tmp_path, (64, 64), "yx"), (0.5, 0.5), "micrometer")
    plan = plan_instances(image, InstanceOptions(min_size=ObjectSize(10, "um2"), fill_holes=ObjectSize(0.3, "um2")))
    assert plan.parameters.min_size_px == 40
    assert plan.parameters.fill_holes_px == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (InstanceOptions(connectivity=3), "connectivity=3, expected 1 to 2"),
        (InstanceOptions(connectivity=0), "connectivity=0"),
        (InstanceOptions(ndim=3), "ndim=3, expected 2"),
        (InstanceOptions(split=0.0), "split=0.0"),
        (InstanceOptions(split=float("nan")), "split=nan"),
        (InstanceOptions(split_halo=8), "nothing is to be split"),
        (InstanceOptions(split=1.0, split_halo=0), "split_halo=0"),
        (InstanceOptions(block=-1), "block=-1"),
        (InstanceOptions(block=17), "not a multiple of 16.*Nearest: 16, 32"),
        (InstanceOptions(min_size=ObjectSize(1e300)), "expected fewer than 2"),
        (InstanceOptions(min_size=ObjectSize(5, "um2")), "do not say how large a pixel is"),
        (InstanceOptions(min_size=ObjectSize(5, "um3")), "expected um2"),
    ],
)
def test_choices_that_do_not_fit_are_refused(tmp_path: Path, options: InstanceOptions, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan_instances(stored(tmp_path, (64, 64), "yx"), options)


def test_what_is_no_map_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float32"):
        plan_instances(stored(tmp_path / "a", (8, 8), "yx", "float32"), InstanceOptions())
    with pytest.raises(InputError, match="2 channels"):
        plan_instances(stored(tmp_path / "b", (2, 8, 8), "cyx"), InstanceOptions())


def test_files_of_several_planes_are_a_volume_and_files_of_one_are_planes(tmp_path: Path) -> None:
    volume = plan_instances(stored(tmp_path / "a", (8, 64, 64), "zyx", chunks=(8, 64, 64)), InstanceOptions())
    planes = plan_instances(stored(tmp_path / "b", (8, 64, 64), "zyx", chunks=(1, 64, 64)), InstanceOptions())
    assert (volume.grid.n_spatial, planes.grid.n_spatial) == (3, 2)
    assert planes.grid.block == (1, 64, 64)


def test_a_block_that_does_not_fit_into_memory_is_refused_with_the_size_to_change(tmp_path: Path) -> None:
    plan = plan_instances(stored(tmp_path, (40000, 40000), "yx", chunks=(512, 512)), InstanceOptions(block=16384))
    plan.check_memory(64 << 30, tasks=1)
    with pytest.raises(PlanError, match="choose a smaller `block` \\(now 16384 px\\)"):
        plan.check_memory(8 << 30, tasks=3)


def test_pixels_that_are_not_square_are_known_to_the_split(tmp_path: Path) -> None:
    image = calibrated(stored(tmp_path, (64, 64), "yx"), (1.0, 0.5), "micrometer")
    assert plan_instances(image, InstanceOptions(split=1.0)).spacing == (2.0, 1.0)
    assert np.isfinite(plan_instances(image, InstanceOptions()).task_bytes)


def test_units_of_length_may_differ_from_axis_to_axis(tmp_path: Path) -> None:
    image = stored(tmp_path, (8, 64, 64), "zyx", chunks=(8, 64, 64))
    units, level = ("micrometer", "nanometer", "nanometer"), ome.Level("", (1.0, 250.0, 250.0), (0.0,) * 3)
    image = replace(image, multiscale=ome.Multiscale("zyx", units, (level,)))
    assert plan_instances(image, InstanceOptions(split=1.0)).spacing == (4.0, 1.0, 1.0)


@pytest.mark.parametrize("shape", [(1999, 2003), (521, 523), (97, 251, 251)], ids=str)
def test_chunks_of_an_image_with_sides_that_nothing_divides_are_no_slivers(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    plan = plan_instances(stored(tmp_path, shape, "zyx"[-len(shape) :], chunks=shape), InstanceOptions())
    assert min(plan.chunk) >= 16
    assert all(block % chunk == 0 for block, chunk in zip(plan.grid.block, plan.chunk, strict=True))
    assert plan.grid.n_blocks == 1
