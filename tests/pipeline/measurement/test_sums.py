"""One more row in the table of sums is one more measurement, in the table of objects and in the planned memory."""

import numpy as np

from segment_slide.pipeline.measurement import merges, sums
from segment_slide.pipeline.measurement.columns import Column
from segment_slide.pipeline.measurement.sums import Sum
from tests.pipeline.measurement.support import draw_objects, measure, plan_of, write_store

SHAPE, BLOCK = (61, 75), (20, 32)


def squares_of(block):
    """Sum of squared values, exact: integers of 64 bits."""

    def sweep(values):
        found = np.zeros(block.n_objects + 1, np.int64)
        np.add.at(found, block.numbers, values.astype(np.int64) ** 2)
        return found[1:]

    return block.over_channels(sweep, np.dtype(np.int64))


def columns_of_squares(spec, objects):
    for k, channel in enumerate(spec.channels):
        yield Column(f"intensity_energy_{channel}", "counts2", objects["energy"][:, k])


ENERGY = Sum("energy", "channel", squares_of, merges.add_up, columns_of_squares)


def test_a_made_up_sum_is_one_row_and_exact_across_blocks(tmp_path, monkeypatch):
    ids = draw_objects(SHAPE)
    image = np.random.default_rng(0).integers(0, 65536, (2, *SHAPE), np.uint16)
    location = write_store(tmp_path, ids, BLOCK, image=image, image_axes="cyx", channels=("DAPI", "GFP"))
    before = measure(location)
    planned = plan_of(location).part_bytes
    for folder in (tmp_path / "out.ome.zarr/tables").iterdir():
        if folder.is_dir():
            folder.rename(tmp_path / folder.name)

    monkeypatch.setattr(sums, "SUMS", (*sums.SUMS, ENERGY))
    found = measure(location)
    assert [name for name in found if name not in before] == ["intensity_energy_DAPI", "intensity_energy_GFP"]
    for channel, values in zip(("DAPI", "GFP"), image.astype(object), strict=True):
        whole = [(values[ids == i] ** 2).sum() for i in range(1, ids.max() + 1)]
        assert found[f"intensity_energy_{channel}"].tolist() == whole
    for name, values in before.items():
        np.testing.assert_array_equal(found[name], values)
    assert plan_of(location).part_bytes > planned


def test_a_sum_that_is_united_wrongly_is_noticed(tmp_path, monkeypatch):
    """Negative control: of objects in several blocks the largest part is not the sum."""
    ids = draw_objects(SHAPE)
    image = np.random.default_rng(0).integers(1, 65536, SHAPE, np.uint16)
    wrong = Sum("energy", "channel", squares_of, merges.take_larger, columns_of_squares)
    monkeypatch.setattr(sums, "SUMS", (*sums.SUMS, wrong))
    found = measure(write_store(tmp_path, ids, BLOCK, image=image))
    whole = [(image[ids == i].astype(object) ** 2).sum() for i in range(1, ids.max() + 1)]
    assert found["intensity_energy_0"].tolist() != whole


def test_names_of_sums_are_distinct():
    names = [row.name for row in sums.SUMS]
    assert len(set(names)) == len(names)
