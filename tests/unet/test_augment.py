"""Deformations: the paper's statistics, the interpolation beside scipy's, exact turns, rising grey-value curves."""

import numpy as np
import pytest
from scipy import ndimage

from segment_slide.unet.augment import Deformation, GreyCurve, control_shares, draw_deformation
from segment_slide.unet.augment_settings import AugmentSettings
from segment_slide.unet.errors import TrainingDataError

DEFAULT = AugmentSettings()
ELASTIC_ONLY = AugmentSettings(rotation="none", flip=False, grey=0)
STILL = AugmentSettings(elastic_std_px=0, rotation="none", flip=False, grey=0)


def draw(seed=0, settings=DEFAULT, ndim=2, n_channels=1):
    return draw_deformation(np.random.default_rng(seed), settings, ndim, n_channels)


def at_rest(size_px):
    """Positions of a box that nothing moved, relative to its middle."""
    return np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size_px), indexing="ij"))


def field(deformation, size_px):
    """Displacements alone of a deformation that does not turn."""
    return deformation.coordinates(size_px).astype(np.float64) - at_rest(size_px)


@pytest.mark.parametrize("size_px", [(45, 61), (13, 17, 21)])
def test_displacements_at_control_points_are_the_drawn_vectors(size_px):
    deformation = draw(settings=ELASTIC_ONLY, ndim=len(size_px))
    knots = np.ix_(*[(0, (n - 1) // 2, n - 1) for n in size_px])
    found = np.stack([component[knots] for component in field(deformation, size_px)])
    np.testing.assert_allclose(found, deformation.displacements, atol=1e-4)


def test_displacements_at_control_points_have_the_papers_10_px_standard_deviation():
    """Sec. 3.1. 500 fields of 18 numbers: the standard deviation's sampling error is 10 / sqrt(2 * 9000) = 0.075 px."""
    knots = np.ix_((0, 222, 444), (0, 222, 444))
    found = [[part[knots] for part in field(draw(seed, ELASTIC_ONLY), (445, 445))] for seed in range(60)]
    vectors = np.stack([draw(seed, ELASTIC_ONLY).displacements for seed in range(500)])
    np.testing.assert_allclose(np.stack(found), vectors[:60], atol=1e-4)
    assert abs(vectors.std() - 10) < 4 * 0.075
    assert abs(vectors.mean()) < 4 * 10 / np.sqrt(vectors.size)
    flat = vectors.reshape(500, -1)
    correlations = np.corrcoef(flat, rowvar=False)[~np.eye(18, dtype=bool)]
    assert np.abs(correlations).max() < 5 / np.sqrt(500)
    kurtosis = (vectors**4).mean() / (vectors**2).mean() ** 2
    assert abs(kurtosis - 3) < 4 * np.sqrt(24 / vectors.size)  # Gaussian; uniform numbers have 1.8


@pytest.mark.parametrize("grid", [2, 3, 5])
@pytest.mark.parametrize("size_px", [(40, 57), (15, 20, 11)])
def test_the_field_is_scipys_bicubic_interpolation_of_the_control_points(size_px, grid):
    settings = AugmentSettings(elastic_grid=grid, rotation="none", flip=False)
    deformation = draw(3, settings, len(size_px))
    at = np.meshgrid(*(np.linspace(0, grid - 1, n) for n in size_px), indexing="ij")
    for component, vectors in zip(field(deformation, size_px), deformation.displacements, strict=True):
        expected = ndimage.map_coordinates(vectors, at, order=3, mode="mirror")
        np.testing.assert_allclose(component, expected, atol=2e-4)


def test_a_field_linear_between_control_points_would_be_noticed():
    settings = AugmentSettings(rotation="none", flip=False)
    deformation = draw(3, settings)
    at = np.meshgrid(np.linspace(0, 2, 41), np.linspace(0, 2, 41), indexing="ij")
    linear = ndimage.map_coordinates(deformation.displacements[0], at, order=1)
    assert np.abs(field(deformation, (41, 41))[0] - linear).max() > 0.5


def test_shares_of_control_points_sum_to_1_and_cannot_be_changed():
    shares = control_shares(100, 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        shares[0, 0] = 2
    np.testing.assert_allclose(control_shares(1, 3).sum(axis=1), 1)


def test_displacements_along_z_are_smaller_by_the_anisotropy():
    settings = AugmentSettings(anisotropy=5)
    vectors = np.stack([draw(seed, settings, ndim=3).displacements for seed in range(60)])
    z, y, x = (vectors[:, axis].std() for axis in range(3))
    assert abs(z - 2) < 0.2
    assert abs(y - 10) < 0.8
    assert abs(x - 10) < 0.8


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_elasticity_a_deformation_is_rigid(ndim):
    settings = AugmentSettings(elastic_std_px=0)
    for seed in range(5):
        deformation = draw(seed, settings, ndim)
        np.testing.assert_allclose(deformation.matrix @ deformation.matrix.T, np.eye(ndim), atol=1e-12)
        size_px = (8,) * ndim
        expected = np.tensordot(deformation.matrix, at_rest(size_px), axes=1)
        np.testing.assert_allclose(deformation.coordinates(size_px), expected, atol=1e-5)


def test_a_rotation_in_3d_leaves_z_alone():
    deformation = draw(1, AugmentSettings(elastic_std_px=0, flip=False), 3)
    np.testing.assert_array_equal(deformation.matrix[0], [1, 0, 0])
    np.testing.assert_array_equal(deformation.matrix[:, 0], [1, 0, 0])


def test_angles_cover_the_circle_evenly():
    turns = [draw(seed, AugmentSettings(flip=False)).matrix for seed in range(800)]
    angles = np.array([np.arctan2(m[1, 0], m[0, 0]) for m in turns]) % (2 * np.pi)
    counts = np.histogram(angles, 8, (0, 2 * np.pi))[0]
    assert ((counts - 100) ** 2 / 100).sum() < 24.3  # chi-squared with 7 degrees of freedom, p = 0.001


def test_quarter_turns_and_flips_meet_pixels_exactly():
    settings = AugmentSettings(elastic_std_px=0, rotation="quarter")
    seen = set()
    for seed in range(64):
        found = draw(seed, settings).coordinates((6, 6)) + 2.5
        assert (found == np.round(found)).all()
        assert len(np.unique(found[0] * 6 + found[1])) == 36
        seen.add(found.tobytes())
    assert len(seen) == 8  # all symmetries of the square


def test_flips_happen_half_of_the_time_on_each_axis():
    signs = np.array([np.diag(draw(s, AugmentSettings(rotation="none"), 3).matrix) for s in range(400)])
    assert (np.abs((signs < 0).mean(axis=0) - 0.5) < 4 * 0.5 / 20).all()


def test_switched_off_nothing_moves():
    deformation = draw(settings=STILL)
    np.testing.assert_array_equal(deformation.coordinates((7, 9)), at_rest((7, 9)))
    image = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    assert deformation.vary_grey(image) is image


def test_a_strength_does_not_change_what_else_is_drawn():
    strong, weak = draw(settings=AugmentSettings(elastic_std_px=20)), draw(settings=AugmentSettings(elastic_std_px=5))
    np.testing.assert_allclose(strong.displacements, 4 * weak.displacements)
    np.testing.assert_array_equal(strong.matrix, weak.matrix)
    assert strong.curves == weak.curves


def test_equal_generators_give_equal_deformations_and_others_do_not():
    first, again, other = draw(5), draw(5), draw(6)
    np.testing.assert_array_equal(first.displacements, again.displacements)
    assert first.curves == again.curves
    assert not np.array_equal(first.displacements, other.displacements)


def test_grey_value_curves_rise_everywhere_and_stay_mild():
    values = np.linspace(-8, 8, 1001, dtype=np.float32)
    curves = [curve for seed in range(200) for curve in draw(seed, n_channels=2).curves]
    for curve in curves:
        changed = curve.apply(values)
        assert changed.dtype == np.float32
        assert (np.diff(changed) > 0).all()
        assert np.abs(changed[400:601] - values[400:601]).max() < 0.5
    assert len(set(curves)) == len(curves)


def test_a_bend_is_smooth_and_leaves_zero_where_it_is():
    curve = GreyCurve(bend=0.5)
    values = np.array([-3, 0, 3], np.float32)
    np.testing.assert_allclose(curve.apply(values), values + 0.5 * (np.sqrt(1 + values**2) - 1), rtol=1e-6)
    assert curve.apply(values)[1] == 0


def test_each_channel_has_a_curve_of_its_own():
    image = np.ones((3, 2, 2), np.float32)
    found = draw(n_channels=3).vary_grey(image)
    assert len(np.unique(found[:, 0, 0])) == 3
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"elastic_std_px": -1}, "elastic_std_px=-1 px"),
        ({"elastic_std_px": float("nan")}, "elastic_std_px=nan"),
        ({"elastic_grid": 1}, "2 to 64 control points"),
        ({"rotation": "some"}, "rotation='some', expected one of"),
        ({"anisotropy": 0}, "anisotropy=0"),
        ({"grey": 1}, "would not rise everywhere"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(TrainingDataError, match=message):
        AugmentSettings(**values)


def test_a_deformation_of_a_single_pixel_is_a_single_position():
    still = Deformation(np.zeros((2, 3, 3)), np.eye(2), ())
    np.testing.assert_array_equal(still.coordinates((1, 1)), np.zeros((2, 1, 1)))
