"""The kernels behind a fitted shape and its verdict, each against its numpy or scipy twin."""

import numpy as np
import pytest
from scipy import special

from ionmd.dsp import reference_shape as twin
from ionmd.dsp import smooth
from ionmd.dsp.layout import curves

RNG = np.random.default_rng(11)
SHAPES = np.cumsum(RNG.normal(0.0, 1.0, (4, 160)), axis=1) * np.hanning(160)


def noise(m):
    """Row and matrix of a covariance that is positive."""
    row = 2.0 * np.exp(-np.arange(m) / 6.0) * np.cos(np.arange(m) / 9.0)
    row[0] += 0.1
    return row, row[np.abs(np.arange(m)[:, None] - np.arange(m))]


@pytest.mark.parametrize(
    ("first", "step", "count"), [(3.25, 1.0, 80), (-4.5, 2.5, 70), (1.0, 0.37, 400), (0.0, 1.0, 1)]
)
def test_a_curve_between_its_samples(first, step, count):
    out = np.full((count, 4), 9.0)
    curves.shape_at(SHAPES, 4, first, step, count, out)
    np.testing.assert_allclose(out.T, twin.at(SHAPES, first, step, count), atol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 17, 90])
def test_the_root_of_a_covariance(m):
    row, matrix = noise(m)
    root = np.empty((m, m))
    curves.shape_root(row, m, root)
    np.testing.assert_allclose(root, np.linalg.cholesky(matrix), atol=1e-12)


def test_a_covariance_that_is_not_positive_still_gives_a_root():
    root = np.empty((4, 4))
    curves.shape_root(np.ones(4), 4, root)
    assert np.isfinite(root).all() and (np.diag(root) > 0).all()


@pytest.mark.parametrize("prior", [0.2, 3.0])
def test_the_best_shift_and_what_it_weighs(prior):
    m, firsts = 60, np.array([12.0, 15.5, 21.25, 30.0, 41.75])
    row, matrix = noise(m)
    root = np.empty((m, m))
    curves.shape_root(row, m, root)
    for _ in range(20):
        where = int(RNG.integers(len(firsts)))
        y = RNG.normal(0.0, 1.0, 4) @ twin.at(SHAPES, firsts[where], 1.5, m) + RNG.normal(0.0, 0.3, m) + 2.0
        best = np.empty(5)
        found = curves.shape_search(SHAPES, 4, root, y, m, firsts, len(firsts), 1.5, prior, best)
        index, c = twin.search(SHAPES, matrix, y, firsts, 1.5, prior)
        assert found == index
        np.testing.assert_allclose(best, c, rtol=1e-7, atol=1e-8)


def test_how_well_the_coefficients_are_known():
    m, w = 70, 6
    row, matrix = noise(m)
    root, cover, gain = np.empty((m, m)), np.empty((w, w)), np.empty((w, m))
    curves.shape_root(row, m, root)
    design = RNG.normal(0.0, 1.0, (m, w))
    curves.shape_cover(root, design, m, w, 3, 0.7, cover, gain)
    for got, want in zip((cover, gain), twin.cover(matrix, design, 3, 0.7), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="1 to 10 curves"):
        curves.shape_search(SHAPES, 11, np.eye(4), np.ones(4), 4, np.ones(1), 1, 1.0, 1.0, np.ones(12))
    with pytest.raises(ValueError, match="16 were expected"):
        curves.shape_cover(np.eye(3), np.ones((4, 2)), 4, 2, 0, 1.0, np.ones((2, 2)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="above 0"):
        curves.gaussian_half(float("nan"), 3, np.ones(4))
    with pytest.raises(ValueError, match="at least 8"):
        curves.blend(np.ones(7), np.ones(2), 2, 4, np.ones(8))


def test_rows_are_added_each_by_its_factor_and_an_unused_one_may_hold_anything():
    x, factor, out = RNG.normal(0.0, 1.0, (3, 101)), np.array([0.5, 0.0, -2.0]), np.ones((3, 101))
    x[1] = np.nan
    curves.blend(x, factor, 3, 101, out)
    np.testing.assert_allclose(out[[0, 2]], 1.0 + factor[[0, 2], None] * x[[0, 2]])
    assert (out[1] == 1.0).all()


def test_the_fraction_of_the_incomplete_beta():
    from ionmd.dsp.presence import incomplete_beta

    for _ in range(300):
        a, b, x = RNG.uniform(0.5, 200.0), RNG.uniform(0.5, 200.0), RNG.uniform(0.0, 1.0)
        assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 7.3, 40.0])
def test_a_smoother_is_a_gaussian_that_keeps_a_constant(sigma):
    kernel = smooth.weights(sigma)
    want = np.exp(-0.5 * (np.arange(len(kernel)) / sigma) ** 2)
    np.testing.assert_allclose(kernel / kernel[0], want, rtol=1e-12)
    assert kernel[0] + 2.0 * kernel[1:].sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 4.0, 30.0])
def test_noise_after_a_smoother_at_the_first_lags_is_that_at_all_lags(sigma):
    r = np.exp(-np.arange(60) / 8.0)
    whole = smooth.autocovariance(r, sigma)
    np.testing.assert_allclose(smooth.autocovariance(r, sigma, 3), whole[:3], rtol=1e-12)
    double = np.concatenate([r[:0:-1], r])
    kernel = smooth.weights(sigma * np.sqrt(2.0))
    want = np.convolve(double, np.concatenate([kernel[:0:-1], kernel]))[len(kernel) - 1 + 59 :][:60]
    np.testing.assert_allclose(whole, want, atol=1e-12)


@pytest.mark.parametrize("span", [(0, 200), (50, 90), (-5, 30), (150, 999), (60, 60)])
def test_a_stretch_is_smoothed_as_it_is_within_the_whole(span):
    x = RNG.normal(0.0, 1.0, 200)
    part, whole = smooth.gaussian(x, 6.0, span), smooth.gaussian(x, 6.0)
    inside = np.zeros(200, bool)
    inside[max(0, span[0]) : max(0, min(200, span[1]))] = True
    assert (part[inside] == whole[inside]).all() and (part[~inside] == x[~inside]).all()
