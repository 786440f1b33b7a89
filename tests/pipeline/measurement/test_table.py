"""Plans, files, summaries and the page of a table; what is refused before any work."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from segment_slide.pipeline.errors import BlockError, InputError, OutputError, OutputMismatchError, PlanError
from segment_slide.pipeline.measurement.columns import TableSpec
from segment_slide.pipeline.measurement.finish import name_objects, write_summary
from segment_slide.pipeline.measurement.open import open_input
from segment_slide.pipeline.measurement.options import ImageChoice
from segment_slide.pipeline.measurement.picture import colour_of, draw_summary
from segment_slide.pipeline.measurement.plan import begin, plan_measurement
from segment_slide.pipeline.measurement.run import measure_blocks, measure_place, run_part, write_table
from segment_slide.pipeline.measurement.summary import SizeCounts, merge_counts, summarise
from segment_slide.pipeline.measurement.table import read_part, stored_parts
from segment_slide.pipeline.storage import ome, store
from segment_slide.pipeline.storage.files import write_file
from segment_slide.pipeline.storage.record import ATTRIBUTE
from tests.flows.support import noise, write_array
from tests.pipeline.measurement.support import CLASSES, NAME, NO_IMAGE, classes_of, draw_objects, plan_of, write_store

SHAPE = (61, 75)


@pytest.fixture
def location(tmp_path) -> str:
    return write_store(tmp_path, draw_objects(SHAPE), (16, 16), image=noise(*SHAPE))


# -- what is refused ---------------------------------------------------------------------------------------------


def refuse(location: str, message: str, choice: ImageChoice | None = None) -> None:
    with pytest.raises(InputError, match=message):
        open_input(location, NAME, choice or ImageChoice())


def change(location: str, group: str, **changes: object) -> None:
    record = store.read_attributes(location, group)[ATTRIBUTE]
    store.update_attributes(location, group, {ATTRIBUTE: {**record, **changes}})


def test_a_store_without_instances_says_how_to_make_them(location):
    with pytest.raises(InputError, match="no instances are there; .*segment-slide instances .* `name='other'`"):
        open_input(location, "other", ImageChoice())


def test_instances_that_are_not_complete_are_refused(location):
    Path(location, "labels/cells-instances/0/c/2/1").unlink()
    refuse(location, r"1 of \d+ files are missing")
    change(location, "labels/cells-instances", n_objects=None)
    refuse(location, "not complete")


def test_classes_that_are_not_complete_are_refused(location):
    Path(location, "labels/cells/0/c/0/0").unlink()
    refuse(location, r"labels/cells is not complete: 1 of \d+ files are missing", NO_IMAGE)


def test_classes_of_another_shape_are_refused(location, tmp_path):
    other = write_store(tmp_path / "other", draw_objects((61, 70)), (16, 16))
    Path(location, "labels/cells").rename(tmp_path / "away")
    Path(other, "labels/cells").rename(Path(location, "labels/cells"))
    refuse(location, r"shape \(61, 70\).*expected classes of the shape \(61, 75\)", NO_IMAGE)


def test_instances_in_a_store_of_their_own_know_where_their_classes_are(location, tmp_path):
    other = tmp_path / "other.ome.zarr"
    Path(other, "labels").mkdir(parents=True)
    Path(location, "labels/cells-instances").rename(other / "labels/cells-instances")
    source = open_input(str(other), NAME, ImageChoice())
    assert source.classes.location == store.join(location, "labels/cells")
    assert source.class_names == CLASSES
    assert source.source is not None


def test_classes_in_a_bare_array_of_another_type_are_read(location, tmp_path):
    ids = draw_objects(SHAPE)
    bare = write_array(tmp_path / "bare", classes_of(ids).astype(np.int32))
    change(location, "labels/cells-instances", input={"location": str(bare), "array": ""})
    Path(location, "labels/cells").rename(tmp_path / "away")
    plan = plan_of(location, NO_IMAGE)
    counts = write_table(plan, measure_blocks(plan))
    assert counts.class_values == [1, 2]
    assert counts.n_objects == ids.max()


def test_probabilities_of_another_shape_are_refused(tmp_path):
    scores = np.zeros((3, 61, 70), np.uint8)
    location = write_store(tmp_path, draw_objects(SHAPE), (16, 16), scores=scores)
    refuse(location, r"probability/cells: shape \(3, 61, 70\)", NO_IMAGE)


def test_a_moved_image_says_how_to_name_it(location, tmp_path):
    (tmp_path / "image.ome.zarr").rename(tmp_path / "moved")
    refuse(location, "cannot be opened .*no such file.* `image='PATH'`, or measure shapes only with `no_image`")
    assert open_input(location, NAME, ImageChoice(str(tmp_path / "moved"))).source is not None
    assert open_input(location, NAME, NO_IMAGE).source is None


def change_a_pixel(array):
    opened = zarr.open_array(array, mode="r+")
    opened[0, 0] = opened[0, 0] + 1


def test_an_image_that_changed_is_refused_unless_it_is_named(location, tmp_path):
    image = tmp_path / "image.ome.zarr"
    shard = image / "0/c/0/0"
    shard.write_bytes(shard.read_bytes())
    assert open_input(location, NAME, ImageChoice()).source is not None, "times of files are no content"
    change_a_pixel(image / "0")
    refuse(location, "has changed since it was segmented.*`image=")
    assert open_input(location, NAME, ImageChoice(str(image))).source is not None


def test_an_image_of_another_shape_is_refused(location, tmp_path):
    bare = write_array(tmp_path / "small", noise(61, 70))
    refuse(location, r"shape \(61, 70\).*do not fit the instances' \(61, 75\)", ImageChoice(str(bare)))
    refuse(location, "level=3", ImageChoice(level=3))


def test_a_bare_array_has_the_axes_of_the_image_that_was_segmented(location, tmp_path):
    bare = write_array(tmp_path / "bare", noise(*SHAPE))
    assert open_input(location, NAME, ImageChoice(str(bare))).source.image.axes == "yx"


def test_without_a_record_the_image_must_be_named(location, tmp_path):
    store.update_attributes(location, "labels/cells", {ATTRIBUTE: {}})
    refuse(location, "no record says which image")
    source = open_input(location, NAME, ImageChoice(str(tmp_path / "image.ome.zarr")))
    assert source.source.channels == (0,)
    assert source.spec.class_name(1) == "class 1"


def test_other_instances_or_another_image_are_refused_for_a_begun_table(location):
    plan = plan_of(location)
    begin(plan)
    write_table(plan, measure_blocks(plan))
    with pytest.raises(OutputMismatchError, match="parameters.rows: begun with 262144, now 5"):
        plan_of(location, rows=5)
    with pytest.raises(OutputMismatchError, match="input.image: .*or delete .*cells-instances.parquet"):
        plan_of(location, NO_IMAGE)
    change_a_pixel(Path(location, "labels/cells-instances/0"))
    with pytest.raises(OutputMismatchError, match="cells-instances.parquet .*input.instances: begun with"):
        plan_of(location)
    for path in (plan.table, plan.work.path):
        store.remove(location, path)
    begin(plan_of(location, NO_IMAGE))  # what was deleted binds nobody


def test_a_folder_that_is_not_ours_is_left_alone(location):
    folder = Path(location, "tables/cells-instances.parquet")
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_text("mine")
    with pytest.raises(OutputError, match="did not make it"):
        plan_of(location)


def test_rows_and_memory_are_checked(location):
    with pytest.raises(PlanError, match="rows=0"):
        plan_of(location, rows=0)
    plan = plan_of(location)
    plan.check_memory(plan.worker_bytes(3), 3)
    with pytest.raises(PlanError, match=r"needs .* but has .*; choose fewer `workers`"):
        plan.check_memory(plan.worker_bytes(3) - 1, 3)


@pytest.mark.parametrize("sigma", [1.0, 6.0])
def test_tasks_stay_below_the_planned_memory(tmp_path, sigma):
    shape = (700, 700)
    ids = draw_objects(shape, sigma=sigma)
    scores = np.zeros((2, *shape), np.float32)
    image = np.stack([noise(*shape)] * 2).astype(np.uint16)
    plan = plan_of(write_store(tmp_path, ids, (512, 512), image=image, image_axes="cyx", scores=scores))
    measure_place(plan, (3, (1, 1)))  # compile, import
    needed = measure_blocks(plan)
    run_part(plan, plan.record, (0, needed[0]))
    for task, planned in (
        (lambda: measure_place(plan, (0, (0, 0))), plan.block_bytes),
        (lambda: run_part(plan, plan.record, (0, needed[0])), plan.part_bytes),
    ):
        tracemalloc.start()
        task()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= planned


def test_a_slide_of_10_to_the_12_pixels_is_planned_from_metadata(location):
    source = replace(open_input(location, NAME, NO_IMAGE), n_objects=10**9)
    plan = plan_measurement(location, NAME, source)
    assert plan.n_parts == 3815
    assert plan.part(3814).last == 10**9


# -- files -------------------------------------------------------------------------------------------------------


def test_a_damaged_part_is_named(location):
    plan = plan_of(location)
    write_file(store.join(location, plan.table, "part-00000.parquet"), b"PAR1 nonsense")
    assert stored_parts(location, plan.table, 3) == {0}
    with pytest.raises(BlockError, match="part-00000.parquet is damaged .*segment-slide measure. again"):
        read_part(location, plan.table, 0, ["id"])


def test_other_files_beside_parts_are_no_parts(location):
    plan = plan_of(location)
    for name in ("part-00001.parquet.0123.partial", "readme.txt", "part-00002.parquet"):
        write_file(store.join(location, plan.table, name), b"x")
    assert stored_parts(location, plan.table, 3) == {2}


# -- summaries ---------------------------------------------------------------------------------------------------


def counts_of(classes: np.ndarray, sizes: np.ndarray) -> SizeCounts:
    ones = np.ones(len(sizes), np.int64)
    return merge_counts([SizeCounts(classes, sizes, ones, ones * 0)])


def test_summaries_are_those_of_all_objects():
    random = np.random.default_rng(0)
    classes, sizes = random.integers(1, 4, 500), random.geometric(0.01, 500)
    found = summarise(TableSpec("yx", (1000, 2000), 2, ("background", "a", "b")), counts_of(classes, sizes))
    assert [part.name for part in found.classes] == ["a", "b", "class 3"]
    for part, of in zip((found.all, *found.classes), (classes > 0, *(classes == k for k in (1, 2, 3))), strict=True):
        assert part.n_objects == of.sum()
        assert part.quartiles == pytest.approx(tuple(np.quantile(sizes[of], (0.25, 0.5, 0.75))))
        assert part.covered == pytest.approx(sizes[of].sum() / 2e6)
        assert part.density == pytest.approx(of.sum() / 2)  # per megapixel: nobody knows a pixel's size
    assert (found.size_unit, found.density_unit) == ("px", "Mpx")


def test_densities_are_per_area_of_the_image(location, tmp_path):
    plan = plan_of(write_store(tmp_path / "um", draw_objects(SHAPE), (16, 16), scale=(0.5, 2.0)), NO_IMAGE)
    found = summarise(plan.source.spec, write_table(plan, measure_blocks(plan)))
    n_objects, area_mm2 = int(draw_objects(SHAPE).max()), 61 * 0.5 * 75 * 2 / 1e6
    assert found.all.density == pytest.approx(n_objects / area_mm2)
    assert (found.size_unit, found.density_unit) == ("µm²", "mm²")


def test_summaries_of_parts_read_back_are_those_made(location):
    plan = plan_of(location, rows=4)
    made = write_table(plan, measure_blocks(plan))
    recalled = write_table(plan, [])
    for name in ("classes", "sizes", "counts", "at_border"):
        np.testing.assert_array_equal(getattr(made, name), getattr(recalled, name))


def test_the_page_is_one_file_with_numbers_and_columns(location):
    plan = plan_of(location)
    counts = write_table(plan, measure_blocks(plan))
    write_summary(plan, counts)
    page = Path(location, "tables/cells-instances.html").read_text()
    assert 'src="data:image/png;base64,iVBOR' in page
    assert not any(word in page for word in ("http:", "https:", str(location)))
    for word in (f"{counts.n_objects:,} objects", "nucleus", "intensity_mean_0", "perimeter_um", "per mm²"):
        assert word in page
    write_summary(plan, counts)
    assert Path(location, "tables/cells-instances.html").read_text() == page
    assert Path(location, "tables/cells-instances.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("n_objects", [0, 1, 5])
def test_pictures_of_next_to_nothing_are_drawn(n_objects):
    spec = TableSpec("yx", (10, 10), 2)
    counts = counts_of(np.ones(n_objects, np.int64), np.full(n_objects, 7))
    assert draw_summary(summarise(spec, counts), "Objects").startswith(b"\x89PNG")


def test_colours_are_those_of_the_label_image():
    level = ome.Level("0", (1.0, 1.0), (0.0, 0.0))
    shown = ome.label_attributes(ome.Multiscale("yx", (None, None), (level,)), [str(k) for k in range(10)])
    for entry in shown["image-label"]["colors"][1:]:
        assert "#" + bytes(entry["rgba"][:3]).hex() == colour_of(entry["label-value"])


def test_few_objects_are_named_in_the_label_image_and_all_else_stays(location, monkeypatch):
    plan = plan_of(location, rows=10)
    begin(plan)
    write_table(plan, measure_blocks(plan))
    before = store.read_attributes(location, "labels/cells-instances")
    assert name_objects(plan)
    after = store.read_attributes(location, "labels/cells-instances")
    properties = after["ome"]["image-label"].pop("properties")
    assert after == before
    ids = draw_objects(SHAPE)
    assert [entry["label-value"] for entry in properties] == list(range(1, ids.max() + 1))
    assert [entry["area_px"] for entry in properties] == np.bincount(ids.ravel())[1:].tolist()
    assert properties[0]["class"] == "debris"
    assert plan_of(location, rows=10).record == plan.record  # what is named is no other input
    monkeypatch.setattr("segment_slide.pipeline.measurement.finish.MOST_NAMED", 3)
    assert not name_objects(plan)
