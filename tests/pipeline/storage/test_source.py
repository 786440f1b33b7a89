"""Pixels against `numpy.pad` of the whole image; damage and non-finite values against where they were put."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import MemoryStore, WrapperStore

from segment_slide.pipeline.blocks.grid import BlockGrid, ceil_divide
from segment_slide.pipeline.errors import InputError, NotFiniteError, UnreadableChunkError
from segment_slide.pipeline.storage.image import StoredImage, describe_image
from segment_slide.pipeline.storage.ome import Level, Multiscale, multiscale_attributes
from segment_slide.pipeline.storage.source import ImageSource, select_source
from segment_slide.unet.boxes import Box
from segment_slide.unet.geometry import Geometry
from tests.tiers import exhaustive

AXIS_SIZES = {"t": 3, "c": 4, "z": 5, "y": 13, "x": 17}


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    return rng.integers(0, 2 if dtype == "bool" else 200, shape).astype(dtype)


def store_bare(folder: Path, pixels: np.ndarray, axes: str, **layout: Any) -> StoredImage:
    """Write an array without metadata and describe it."""
    layout = {"chunks": tuple(min(4, size) for size in pixels.shape), **layout}
    zarr.create_array(str(folder), data=pixels, write_data=True, **layout)
    return describe_image(folder, axes=axes)


def canonical(pixels: np.ndarray, source: ImageSource) -> np.ndarray:
    """The whole chosen image as (*planes, c, *spatial), by moving axes one at a time."""
    axes = list(source.image.axes)
    for axis in "tczyx":
        if axis not in axes and (axis == "c" or axis in source.axes):
            axes.append(axis)
            pixels = pixels[..., None]
    order = source.plane_axes + "c" + source.spatial_axes
    pixels = np.moveaxis(pixels, [axes.index(axis) for axis in order], range(len(order)))
    pixels = np.stack(
        [pixels[(slice(None),) * len(source.plane_axes) + (c,)] for c in source.channels], len(source.plane_axes)
    )
    return pixels[tuple(slice(start, stop) for start, stop in source.ranges)]


def padded(pixels: np.ndarray, source: ImageSource, far: int, mode: Any = "reflect") -> np.ndarray:
    planes = len(source.plane_axes)
    return np.pad(pixels, [(0, 0)] * (planes + 1) + [(far, far)] * source.n_spatial, mode=mode)


def expected(around: np.ndarray, source: ImageSource, box: Box, far: int) -> np.ndarray:
    planes = len(source.plane_axes)
    spatial = (slice(s.start + far, s.stop + far) for s in box[planes:])
    return around[(*box[:planes], slice(None), *spatial)]


def random_boxes(source: ImageSource, far: int, rng: np.random.Generator, count: int = 12) -> Iterable[Box]:
    """Boxes inside, across and wholly outside the image."""
    planes = len(source.plane_axes)
    for _ in range(count):
        box = []
        for axis, size in enumerate(source.shape):
            reach = far if axis >= planes else 0
            start = int(rng.integers(-reach, size + reach))
            box.append(slice(start, int(rng.integers(start + 1, size + reach + 1))))
        yield tuple(box)


# --- reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "n_spatial"),
    [(axes, 2) for axes in ("yx", "xy", "cyx", "yxc", "ycx", "zyx", "xyz", "zcyx", "tyx", "tczyx", "xcytz")]
    + [(axes, 3) for axes in ("zyx", "xyz", "zcyx", "tczyx", "xcytz")],
)
def test_any_box_of_any_axis_order_is_a_slice_of_numpys_reflected_image(
    tmp_path: Path, axes: str, n_spatial: int
) -> None:
    pixels = noise(tuple(AXIS_SIZES[axis] for axis in axes), "uint16")
    image = store_bare(tmp_path / "bare", pixels, axes)
    source = select_source(image, n_spatial=n_spatial, n_channels=image.size("c"))
    assert source.shape == tuple(AXIS_SIZES[axis] for axis in source.axes)
    far = 60  # several reflections even along x
    around = padded(canonical(pixels, source), source, far)
    for box in random_boxes(source, far, np.random.default_rng(1)):
        np.testing.assert_array_equal(source.read(box), expected(around, source, box, far), str(box))


def test_numpys_symmetric_is_another_image(tmp_path: Path) -> None:
    pixels = noise((9, 11), "uint8")
    source = select_source(store_bare(tmp_path / "bare", pixels, "yx"), n_spatial=2, n_channels=1)
    box = (slice(-3, 9), slice(0, 14))
    read = source.read(box)
    np.testing.assert_array_equal(read, expected(padded(pixels[None], source, 9), source, box, 9))
    assert (read != expected(padded(pixels[None], source, 9, "symmetric"), source, box, 9)).any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 700), (700, 5), (1, 40), (2, 2)])
@pytest.mark.parametrize("depth", [1, 4])
def test_every_read_box_of_a_thin_image_is_numpys_reflection(
    tmp_path: Path, shape: tuple[int, int], depth: int
) -> None:
    pixels = noise(shape, "uint8")
    source = select_source(store_bare(tmp_path / "bare", pixels, "yx"), n_spatial=2, n_channels=1)
    geometry = Geometry(depth)
    grid = BlockGrid(shape, (96, 96), geometry, 2)
    far = 96 + geometry.halo
    around = padded(pixels[None], source, far)
    for index in grid.indices():
        box = grid.read_box(index)
        np.testing.assert_array_equal(source.read(box), expected(around, source, box, far))


@pytest.mark.parametrize("channels", [(0,), (3,), (2, 0), (3, 1, 2), (3, 2, 1, 0)])
@pytest.mark.parametrize("axes", ["cyx", "yxc"])
def test_channels_come_in_the_order_asked_for(tmp_path: Path, axes: str, channels: tuple[int, ...]) -> None:
    pixels = noise(tuple(AXIS_SIZES[axis] for axis in axes), "uint8")
    image = store_bare(tmp_path / "bare", pixels, axes)
    source = select_source(image, n_spatial=2, n_channels=len(channels), channels=channels)
    cyx = pixels if axes == "cyx" else np.moveaxis(pixels, -1, 0)
    read = source.read((slice(2, 9), slice(0, 17)))
    np.testing.assert_array_equal(read, cyx[list(channels), 2:9])


@pytest.mark.parametrize("ranges", [{"t": (1, 3)}, {"z": (4, 5)}, {"t": (0, 1), "z": (2, 4)}])
def test_ranges_choose_planes_and_boxes_count_from_their_start(
    tmp_path: Path, ranges: dict[str, tuple[int, int]]
) -> None:
    pixels = noise(tuple(AXIS_SIZES[axis] for axis in "tczyx"), "int16")
    image = store_bare(tmp_path / "bare", pixels, "tczyx")
    source = select_source(image, n_spatial=2, n_channels=2, channels=(1, 3), ranges=ranges)
    t, z = (slice(*ranges.get(axis, (0, AXIS_SIZES[axis]))) for axis in "tz")
    chosen = pixels[t, [1, 3]][:, :, z] if t == slice(0, 3) else pixels[t][:, [1, 3]][:, :, z]
    assert source.shape == (chosen.shape[0], chosen.shape[2], 13, 17)
    last = tuple(slice(size - 1, size) for size in source.shape[:2])
    read = source.read((*last, slice(0, 13), slice(0, 17)))
    np.testing.assert_array_equal(read[0, 0], chosen[-1, :, -1])


def test_a_volume_is_chosen_by_time_alone(tmp_path: Path) -> None:
    pixels = noise((3, 5, 13, 17), "uint8")
    image = store_bare(tmp_path / "bare", pixels, "tzyx")
    source = select_source(image, n_spatial=3, n_channels=1, ranges={"t": (2, 3)})
    assert (source.plane_axes, source.spatial_axes, source.shape) == ("t", "zyx", (1, 5, 13, 17))
    read = source.read((slice(0, 1), slice(-2, 5), slice(0, 13), slice(0, 17)))
    np.testing.assert_array_equal(read[0, 0], np.pad(pixels[2], [(2, 0), (0, 0), (0, 0)], mode="reflect"))


@pytest.mark.parametrize("dtype", ["bool", "uint8", ">u2", ">i4", "<i2", "uint64", "float16", ">f4", "float64"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stored_numbers_come_back_in_native_byte_order(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    pixels = noise((9, 8), np.dtype(dtype).newbyteorder("=").name).astype(dtype)
    if zarr_format == 2:
        image = store_bare(tmp_path / "bare", pixels, "yx", zarr_format=2)
    else:
        order = "big" if dtype.startswith(">") else "little"
        serializer: Any = zarr.codecs.BytesCodec(endian=order) if np.dtype(dtype).itemsize > 1 else "auto"
        image = store_bare(tmp_path / "bare", pixels, "yx", serializer=serializer)
    source = select_source(image, n_spatial=2, n_channels=1)
    read = source.read((slice(-2, 9), slice(0, 8)))
    assert read.dtype == np.dtype(dtype).newbyteorder("=") == source.dtype
    assert read.dtype.isnative
    assert source.pixel_bytes == read.dtype.itemsize
    np.testing.assert_array_equal(read[0, 2:], pixels)


def test_an_image_that_ends_exactly_at_the_box_is_read_without_mirroring(tmp_path: Path) -> None:
    pixels = noise((8, 8), "uint8")
    source = select_source(store_bare(tmp_path / "bare", pixels, "yx"), n_spatial=2, n_channels=1)
    np.testing.assert_array_equal(source.read((slice(0, 8), slice(0, 8)))[0], pixels)
    np.testing.assert_array_equal(source.read((slice(0, 9), slice(0, 8)))[0, 8], pixels[6])


# --- values that are not finite --------------------------------------------------------------------------------


def test_a_value_that_is_not_finite_is_refused_at_its_place_by_exactly_the_boxes_that_see_it(tmp_path: Path) -> None:
    pixels = noise((2, 3, 12, 15), "float32")
    pixels[1, 2, 7, 11] = np.nan
    pixels[1, 2, 7, 12] = -np.inf
    image = store_bare(tmp_path / "bare", pixels, "zcyx")
    source = select_source(image, n_spatial=2, n_channels=3)
    for y, x, z in itertools.product(range(-6, 13), [0, 9, 11, 12, 13], [0, 1]):
        box = (slice(z, z + 1), slice(y, y + 2), slice(x, x + 2))
        rows = {min(abs(row), 22 - abs(row)) for row in (y, y + 1)}  # reflected at 0 and 11
        columns = {min(column, 28 - column) for column in (x, x + 1)}
        sees = z == 1 and min(rows) <= 7 <= max(rows) and bool({11, 12} & columns)
        if not sees:
            assert np.isfinite(source.read(box)).all()
            continue
        value, where = ("nan", 11) if 11 in columns else ("-inf", 12)
        with pytest.raises(
            NotFiniteError, match=rf"first is {value} at c=2, z=1, y=7, x={where}; .*Replace such values"
        ):
            source.read(box)


def test_the_place_counts_from_the_images_origin_and_not_from_the_chosen_planes(tmp_path: Path) -> None:
    pixels = noise((4, 6, 6), "float64")
    pixels[3, 5, 0] = np.inf
    source = select_source(
        store_bare(tmp_path / "bare", pixels, "zyx"), n_spatial=2, n_channels=1, ranges={"z": (2, 4)}
    )
    with pytest.raises(
        NotFiniteError, match=r"1 value\(s\) are not finite as float32, the first is inf at z=3, y=5, x=0"
    ):
        source.read((slice(1, 2), slice(2, 6), slice(0, 6)))


@pytest.mark.parametrize(("value", "fits"), [(3.4e38, True), (3.5e38, False), (-1e300, False), (5e-324, True)])
def test_a_number_beyond_float32_is_refused_before_it_becomes_infinite(
    tmp_path: Path, value: float, fits: bool
) -> None:
    pixels = noise((6, 6), "float64")
    pixels[2, 3] = value
    source = select_source(store_bare(tmp_path / "bare", pixels, "yx"), n_spatial=2, n_channels=1)
    if fits:
        np.testing.assert_array_equal(source.read((slice(0, 6), slice(0, 6)))[0], pixels)
    else:
        with pytest.raises(
            NotFiniteError, match=r"1 value\(s\) are not finite as float32, the first is .* at y=2, x=3"
        ):
            source.read((slice(0, 6), slice(0, 6)))


def test_channels_that_were_not_chosen_may_hold_anything(tmp_path: Path) -> None:
    pixels = noise((3, 6, 6), "float32")
    pixels[1] = np.nan
    image = store_bare(tmp_path / "bare", pixels, "cyx")
    chosen = select_source(image, n_spatial=2, n_channels=2, channels=(2, 0))
    np.testing.assert_array_equal(chosen.read((slice(0, 6), slice(0, 6))), pixels[[2, 0]])
    with pytest.raises(NotFiniteError, match="36 value"):
        select_source(image, n_spatial=2, n_channels=3).read((slice(0, 6), slice(0, 6)))


# --- unreadable chunks -----------------------------------------------------------------------------------------

LAYOUTS: dict[str, tuple[dict[str, Any], str]] = {
    "v2": ({"zarr_format": 2, "chunks": (8, 8)}, "{0}.{1}"),
    "v3": ({"chunks": (8, 8)}, "c/{0}/{1}"),
    "v3 sharded": ({"shards": (8, 8), "chunks": (4, 4)}, "c/{0}/{1}"),
}


@pytest.mark.parametrize(
    ("layout", "damage"),
    [
        *((layout, b"nonsense" * 30) for layout in LAYOUTS),
        ("v2", b""),
        ("v3", b""),
        ("v3 sharded", b""),
    ],
)
def test_a_damaged_chunk_is_named_exactly(tmp_path: Path, layout: str, damage: bytes) -> None:
    arguments, name = LAYOUTS[layout]
    image = store_bare(tmp_path / "bare", noise((30, 30), "uint8"), "yx", **arguments)
    source = select_source(image, n_spatial=2, n_channels=1)
    (tmp_path / "bare" / name.format(1, 2)).write_bytes(damage)
    with pytest.raises(UnreadableChunkError, match=rf"unreadable chunk 1/2 of {image.location} \("):
        source.read((slice(0, 30), slice(-4, 34)))
    # the boxes beside it are not touched by it
    assert source.read((slice(0, 8), slice(-4, 34))).shape == (1, 8, 38)
    assert source.read((slice(0, 30), slice(0, 16))).shape == (1, 30, 16)


def test_all_damaged_chunks_of_a_box_are_named_in_order(tmp_path: Path) -> None:
    image = store_bare(tmp_path / "bare", noise((30, 30), "uint16"), "yx", chunks=(8, 8))
    source = select_source(image, n_spatial=2, n_channels=1)
    for chunk in ("0/3", "2/1", "3/3"):
        (tmp_path / "bare" / "c" / chunk).write_bytes(b"?")
    with pytest.raises(UnreadableChunkError, match=r"unreadable chunk 0/3, 2/1, 3/3 of"):
        source.read((slice(-5, 30), slice(0, 35)))
    with pytest.raises(UnreadableChunkError, match=r"unreadable chunk 2/1 of"):
        source.read((slice(16, 24), slice(8, 31)))


def test_an_absent_chunk_is_the_fill_value_and_no_damage(tmp_path: Path) -> None:
    image = store_bare(tmp_path / "bare", noise((16, 16), "uint8") + 1, "yx", chunks=(8, 8))
    (tmp_path / "bare" / "c/1/0").unlink()
    read = select_source(image, n_spatial=2, n_channels=1).read((slice(0, 16), slice(0, 16)))[0]
    assert (read[8:, :8] == 0).all()
    assert (read[:8] > 0).all()


# --- choosing --------------------------------------------------------------------------------------------------


def ome_image(folder: Path, axes: str, names: tuple[str, ...] = ()) -> StoredImage:
    shape = tuple(AXIS_SIZES[axis] for axis in axes)
    level = Level("0", (1.0,) * len(axes), (0.0,) * len(axes))
    attributes = multiscale_attributes(Multiscale(axes, (None,) * len(axes), (level,)))
    attributes["omero"] = {"channels": [{"label": name} for name in names]}
    zarr.create_group(folder, attributes={"ome": attributes}).create_array("0", shape=shape, dtype="uint8")
    return describe_image(folder)


def test_channels_are_chosen_by_name_position_or_both(tmp_path: Path) -> None:
    image = ome_image(tmp_path / "named", "cyx", ("DAPI", "GFP", "3", "RFP"))
    choices: list[tuple[tuple[str | int, ...], tuple[int, ...]]] = [
        (("GFP",), (1,)),
        (("RFP", "DAPI"), (3, 0)),
        ((1, "DAPI"), (1, 0)),
        (("1",), (1,)),
        (("name:3", "number:3"), (2, 3)),
    ]
    for asked, found in choices:
        assert select_source(image, n_spatial=2, n_channels=len(asked), channels=asked).channels == found


@pytest.mark.parametrize("channel", ["Cy5", 4, -1, "-1", "1.0", "²", "", " "])
def test_an_unknown_channel_is_refused_with_the_known_ones(tmp_path: Path, channel: Any) -> None:
    image = ome_image(tmp_path / "named", "cyx", ("DAPI", "GFP", "YFP", "RFP"))
    with pytest.raises(InputError, match=r"is not in .* expected one of: DAPI, GFP, YFP, RFP"):
        select_source(image, n_spatial=2, n_channels=1, channels=(channel,))
    with pytest.raises(InputError, match="expected one of: 0 to 3"):
        select_source(ome_image(tmp_path / "nameless", "cyx"), n_spatial=2, n_channels=1, channels=(channel,))


def test_a_wrong_number_of_channels_is_refused_with_both_numbers(tmp_path: Path) -> None:
    image = ome_image(tmp_path / "slide", "cyx", ("R", "G", "B", "IR"))
    with pytest.raises(
        InputError, match=r"has 4 channel\(s\) \(R, G, B, IR\), 4 chosen, but the model takes 3; .*'R', 'G', 'B'"
    ):
        select_source(image, n_spatial=2, n_channels=3)
    with pytest.raises(InputError, match="2 chosen, but the model takes 1"):
        select_source(image, n_spatial=2, n_channels=1, channels=("R", "B"))
    with pytest.raises(InputError, match=r"has 1 channel\(s\), 1 chosen, but the model takes 3"):
        select_source(ome_image(tmp_path / "grey", "yx"), n_spatial=2, n_channels=3)


def test_a_volume_model_refuses_a_flat_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model is 3D and needs z, y, x"):
        select_source(ome_image(tmp_path / "flat", "tcyx"), n_spatial=3, n_channels=4)


@pytest.mark.parametrize("ends", [(0, 6), (5, 6), (-1, 2), (3, 3), (4, 2)])
def test_a_range_outside_its_axis_is_refused_with_the_axis_range(tmp_path: Path, ends: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=rf"z={ends[0]}:{ends[1]}, expected a range within 0:5"):
        select_source(ome_image(tmp_path / "stack", "zyx"), n_spatial=2, n_channels=1, ranges={"z": ends})


@pytest.mark.parametrize(("n_spatial", "axis"), [(2, "t"), (3, "z"), (2, "y")])
def test_a_range_of_an_axis_that_is_no_plane_axis_is_refused(tmp_path: Path, n_spatial: int, axis: str) -> None:
    with pytest.raises(InputError, match=f"`{axis}` was given, but '{axis}' is not a plane axis"):
        select_source(ome_image(tmp_path / "stack", "zyx"), n_spatial=n_spatial, n_channels=1, ranges={axis: (0, 1)})


# --- traffic ---------------------------------------------------------------------------------------------------


class CountingStore(WrapperStore[MemoryStore]):
    """Counts the reads of each key, its read-only copies' too."""

    def __init__(self, store: MemoryStore, gets: Counter[str] | None = None) -> None:
        super().__init__(store)
        self.gets: Counter[str] = Counter() if gets is None else gets

    def _with_store(self, store: MemoryStore) -> "CountingStore":
        return CountingStore(store, self.gets)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        self.gets[key] += 1
        return await super().get(key, prototype, byte_range)


@dataclasses.dataclass(frozen=True)
class CountedImage(StoredImage):
    """A stored image whose array is opened in a store that counts."""

    store: CountingStore = dataclasses.field(kw_only=True)

    def array(self) -> zarr.Array[Any]:
        return zarr.open_array(self.store, mode="r")


def counted(shape: tuple[int, int], chunk: int) -> tuple[ImageSource, CountingStore]:
    store = CountingStore(MemoryStore())
    zarr.create_array(store, data=noise(shape, "uint8") + 1, chunks=(chunk, chunk))
    store.gets.clear()
    ones, zeros = (1.0, 1.0), (0.0, 0.0)
    multiscale = Multiscale("yx", (None, None), (Level("", ones, zeros),))
    image = CountedImage("memory", "", shape, (chunk, chunk), "uint8", multiscale, is_ome=False, store=store)
    return select_source(image, n_spatial=2, n_channels=1), store


def boxes_that_see(chunk: slice, reads: list[slice], size: int) -> int:
    """How many read boxes of an axis, mirrored into the image, touch a chunk."""
    surroundings = np.pad(np.arange(size), 500, mode="reflect")
    spans = [surroundings[read.start + 500 : read.stop + 500] for read in reads]
    return sum(int(span.min()) < chunk.stop and int(span.max()) >= chunk.start for span in spans)


@pytest.mark.parametrize("chunk", [exhaustive(16), 40, exhaustive(64), 100, 256])
@pytest.mark.parametrize(("depth", "block"), [exhaustive(1, 16), (1, 64), (2, 48)])
def test_each_stored_chunk_is_read_once_by_each_block_that_needs_it(chunk: int, depth: int, block: int) -> None:
    shape = (150, 210)
    source, store = counted(shape, chunk)
    grid = BlockGrid(shape, (block, block), Geometry(depth), 2)
    reads: list[list[slice]] = [[], []]
    for axis, count in enumerate(grid.counts):
        reads[axis] = [grid.read_box((i, 0) if axis == 0 else (0, i))[axis] for i in range(count)]
    for index in grid.indices():
        source.read(grid.read_box(index))
    found = {key: count for key, count in store.gets.items() if key.startswith("c/")}
    wanted = {}
    for row, column in itertools.product(*(range(ceil_divide(size, chunk)) for size in shape)):
        slices = [slice(i * chunk, (i + 1) * chunk) for i in (row, column)]
        wanted[f"c/{row}/{column}"] = math.prod(map(boxes_that_see, slices, reads, shape))
    assert found == wanted
    # the geometry's bound, whatever the image: blocks that reach into a chunk from both sides
    per_axis = (chunk + 2 * grid.geometry.halo - 1) // block + 2
    assert max(found.values()) <= per_axis**2
