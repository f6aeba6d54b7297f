"""Averaging: sums, halves, rejection, weights; both twins of the sums."""

from __future__ import annotations

import numpy as np
import pytest

from ionmd.dsp import average, reference
from ionmd.dsp.average import combine
from ionmd.dsp.layout import rows


@pytest.fixture(params=[reference.SweepSum, average.SweepSum], ids=["numpy", "compiled"])
def sweep_sum(request):
    return request.param


@pytest.fixture(params=[reference.sweep_extremes, average.sweep_extremes], ids=["numpy", "compiled"])
def sweep_extremes(request):
    return request.param


def sweeps(count, samples, d, seed=4, scale=1.0, wave=0.0):
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        x = rows(samples, d)
        x[:, :d] = rng.standard_normal((samples, d)) * scale + wave
        out.append(x)
    return out


def test_mean_and_halves_are_those_of_the_accepted_sweeps(sweep_sum):
    data = sweeps(9, 50, 3)
    s = sweep_sum(3, 50)
    accept = np.random.default_rng(1).integers(0, 2, (9, 3)).astype(np.uint8)
    for x, a in zip(data, accept, strict=True):
        s.add(x, a)
    for d in range(3):
        mine = [x[:, d].astype(float) for x, a in zip(data, accept, strict=True) if a[d]]
        np.testing.assert_allclose(s.mean()[d], np.mean(mine, axis=0), rtol=0, atol=1e-14)
        np.testing.assert_allclose(s.halves()[0, d], np.mean(mine[0::2], axis=0), rtol=0, atol=1e-14)
        np.testing.assert_allclose(s.halves()[1, d], np.mean(mine[1::2], axis=0), rtol=0, atol=1e-14)
        assert s.count[:, d].tolist() == [len(mine[0::2]), len(mine[1::2])]


@pytest.mark.parametrize("d", [1, 15, 16, 17, 40, 64])
def test_both_twins_give_the_same_bits(d):
    data, rng = sweeps(12, 33, d), np.random.default_rng(8)
    a, b, c = reference.SweepSum(d, 33), average.SweepSum(d, 33), average.SweepSum(d, 33, squares=False)
    for i, x in enumerate(data):
        accept = np.ones(d, np.uint8) if i < 4 else rng.integers(0, 2, d).astype(np.uint8)
        for s in (a, b, c):
            s.add(x, accept)
    np.testing.assert_array_equal(a.mean(), b.mean())
    np.testing.assert_array_equal(a.halves(), b.halves())
    np.testing.assert_array_equal(a.halves(), c.halves())
    np.testing.assert_array_equal(a.count, b.count)
    stack = np.array([x[:, 0] for x in data[:4]], float)
    first = average.SweepSum(d, 33)
    for x in data[:4]:
        first.add(x)
    np.testing.assert_allclose(first.variance()[0], stack.var(axis=0, ddof=1), atol=1e-12)


def test_a_refused_sweep_touches_nothing_whatever_it_holds(sweep_sum):
    s, plain = sweep_sum(3, 20), sweep_sum(3, 20)
    for i, x in enumerate(sweeps(6, 20, 3)):
        if i == 2:
            x[5, 1] = np.nan
            s.add(x, np.array([1, 0, 1], np.uint8))
            plain.add(x, np.array([1, 0, 1], np.uint8))
        else:
            s.add(x)
            plain.add(x, np.ones(3, np.uint8))
    assert np.isfinite(s.mean()).all()
    np.testing.assert_array_equal(s.mean(), plain.mean())


def test_nothing_accepted_is_nan_and_not_zero(sweep_sum):
    s = sweep_sum(2, 10)
    s.add(sweeps(1, 10, 2)[0], np.array([1, 0], np.uint8))
    assert np.isfinite(s.mean()[0]).all()
    assert np.isnan(s.mean()[1]).all()
    s.clear()
    assert np.isnan(s.mean()).all()
    assert s.count.sum() == 0


def test_4000_sweeps_on_a_300_mv_electrode_offset_keep_a_cortical_response():
    """Summed in float32 the same sweeps are off by more than the response (measured below)."""
    t = np.arange(200)
    wave = (-1.5 * np.exp(-0.5 * ((t - 100) / 12.0) ** 2)).astype(np.float64)
    rng = np.random.default_rng(6)
    s, single = average.SweepSum(1, 200, squares=False), np.zeros(200, np.float32)
    truth = np.zeros(200)
    x = rows(200, 1)
    for _ in range(4000):
        x[:, 0] = 300_000 + wave + rng.standard_normal(200) * 5
        s.add(x)
        truth += x[:, 0]
        single += x[:, 0]
    np.testing.assert_allclose(s.mean()[0], truth / 4000, rtol=0, atol=1e-9)
    response = s.mean()[0] - s.mean()[0, :40].mean()
    assert abs(response[90:110].min() + 1.5) < 0.4
    assert np.abs(single / np.float32(4000) - s.mean()[0]).max() > 0.5


@pytest.mark.parametrize("d", [3, 16, 32, 40, 64])
def test_extremes_are_those_of_the_window(sweep_extremes, d):
    x = sweeps(1, 90, d)[0]
    x[5], x[85] = 1e4, -1e4
    lo, hi = sweep_extremes(x, 10, 80)
    np.testing.assert_array_equal(lo, x[10:80].min(axis=0))
    np.testing.assert_array_equal(hi, x[10:80].max(axis=0))
    one_lo, one_hi = sweep_extremes(x, 5, 6)
    np.testing.assert_array_equal(one_lo, one_hi)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [10, 11, 79])
def test_a_sweep_with_nan_or_inf_never_passes_the_limit(sweep_extremes, bad, row):
    x = sweeps(1, 90, 4)[0]
    x[row, 1] = bad
    lo, hi = sweep_extremes(x, 10, 80)
    passed = [bool(hi[c] - lo[c] <= 100.0) for c in range(4)]
    assert passed == [True, False, True, True]


def test_extremes_of_no_row_are_refused():
    for lo_row, hi_row in ((5, 5), (-1, 4), (0, 91)):
        with pytest.raises(ValueError, match="expected"):
            average.sweep_extremes(rows(90, 2), lo_row, hi_row)


def sub(count, scale, seed, wave=0.0, d=1, samples=400):
    s = average.SweepSum(d, samples)
    for x in sweeps(count, samples, d, seed, scale, wave):
        s.add(x)
    return s


def test_plain_combination_is_the_mean_of_all_sweeps():
    subs = [sub(20, 1, 1), sub(30, 1, 2), sub(10, 1, 3)]
    a = combine(subs, weighted=False)
    total = sum(s.mean() * s.count.sum() for s in subs) / 60
    np.testing.assert_allclose(a.mean, total, atol=1e-14)
    np.testing.assert_allclose(a.weights[:, 0], [20 / 60, 30 / 60, 10 / 60])
    assert a.n.tolist() == [60]


def test_a_noisy_stretch_costs_little_when_weighted():
    subs = [sub(25, 10.0 if k % 4 == 0 else 1.0, k) for k in range(12)]
    plain, weighted = combine(subs, weighted=False), combine(subs, weighted=True)
    assert weighted.mean.std() < plain.mean.std() / 3
    quiet_only = combine([s for k, s in enumerate(subs) if k % 4], weighted=False)
    assert weighted.mean.std() < 1.1 * quiet_only.mean.std()


def test_in_even_noise_weighting_costs_under_two_percent():
    ratios = []
    for trial in range(8):
        subs = [sub(20, 1.0, 100 * trial + k, d=4) for k in range(12)]
        ratios.append(combine(subs, True).mean.var() / combine(subs, False).mean.var())
    assert np.mean(ratios) < 1.02


def test_a_dead_flat_channel_cannot_win():
    wave = np.zeros((400, 1), np.float32)
    wave[200] = 10
    subs = [sub(25, 1, k, wave) for k in range(5)] + [sub(25, 0, 9)]  # the electrode fell off: zeros
    a = combine(subs, weighted=True)
    assert a.flat[:, 0].tolist() == [False] * 5 + [True]
    assert a.weights[5, 0] == 0
    assert abs(a.mean[0, 200] - 10) < 0.5
    nearly = combine([*subs[:5], sub(25, 1e-6, 9)], weighted=True)
    assert nearly.weights[5, 0] <= 3 * np.median(nearly.weights[:, 0]) + 1e-12


@pytest.mark.parametrize("d", [1, 16, 20, 64])
@pytest.mark.parametrize("squares", [False, True])
def test_many_at_once_are_the_same_bytes_as_one_after_the_other(d, squares):
    rng = np.random.default_rng(d)
    one, many = (average.SweepSum(d, 57, squares=squares) for _ in range(2))
    for count in (0, 1, 3, 4, 8, 9, 23):
        xs = list(sweeps(count, 57, d, count))
        accept = (rng.random((count, d)) < (1.0 if count % 2 else 0.9)).astype(np.uint8)
        for x, a in zip(xs, accept, strict=True):
            one.add(x, a)
        many.add_many(xs, accept)
        assert (one.count == many.count).all() and (one._sum == many._sum).all()
        if squares:
            assert (one._squares == many._squares).all()
    with pytest.raises(ValueError, match="expected"):
        many.add_many(xs, accept[:-1])
    with pytest.raises(ValueError, match="expected"):
        many.add_many([rows(3, d)])


def test_the_plus_minus_average_shows_the_error_of_the_mean():
    a = combine([sub(25, 2.0, k) for k in range(20)], weighted=False)
    assert np.sqrt((a.plus_minus() ** 2).mean()) == pytest.approx(2.0 / np.sqrt(500), rel=0.1)


def test_without_any_noise_all_sweeps_count_alike():
    a = combine([sub(10, 0, 1, 3.0), sub(30, 0, 2, 5.0)], weighted=True)
    np.testing.assert_allclose(a.mean, 4.5)
    assert not a.flat.any()


def test_a_derivation_refused_in_one_sub_average_is_taken_from_the_others():
    a, b = sub(10, 1, 1, d=2), average.SweepSum(2, 400)
    for x in sweeps(10, 400, 2, 7):
        b.add(x, np.array([1, 0], np.uint8))
    c = combine([a, b], weighted=True)
    np.testing.assert_allclose(c.mean[1], a.mean()[1])
    assert c.n.tolist() == [20, 10]
    nothing = combine([average.SweepSum(2, 400)], weighted=True)
    assert np.isnan(nothing.mean).all()
    assert nothing.n.tolist() == [0, 0]
