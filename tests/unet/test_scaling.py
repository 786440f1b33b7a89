"""Normalisation in float64, where float32 would round away what the network is to see."""

import numpy as np
import pytest

from segment_slide.unet.scaling import needs_float64, scale_exactly


@pytest.mark.parametrize(
    ("dtype", "offset", "scale", "expected"),
    [
        ("float32", 1e6, 1.0, True),
        ("int32", -1e9, 100.0, True),
        ("float64", 100.0, 5.0, False),
        ("uint16", 6e4, 1.0, False),
        ("uint8", 200.0, 0.1, False),
        ("float16", 6e4, 1.0, False),
    ],
)
def test_float64_is_needed_for_wide_values_with_a_large_offset(
    dtype: str, offset: float, scale: float, expected: bool
) -> None:
    assert needs_float64(np.dtype(dtype), (0.0, offset), (1.0, scale)) is expected


def test_each_channel_is_scaled_by_its_own_constants_before_rounding() -> None:
    steps = np.arange(12, dtype=np.int64).reshape(1, 3, 4)
    image = np.concatenate([10**12 + steps, 7 + 2 * steps])
    scaled = scale_exactly(image, (1e12, 7.0), (1.0, 2.0))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, np.concatenate([steps, steps]))
    in_float32 = (image.astype(np.float32) - np.float32(1e12)) / np.float32(1)
    assert not np.array_equal(in_float32[0], steps[0])
