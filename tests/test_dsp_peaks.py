"""Peaks of a curve against their plain twin and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from ionmd.dsp import reference, waves


def compiled(*args):
    return [(p.index, p.position, p.value_uv, p.prominence_uv, p.curvature) for p in waves.peaks(*args)]


@pytest.fixture(params=[reference.peaks, compiled], ids=["numpy", "compiled"])
def peaks(request):
    return request.param


def curve(n=400, seed=1, coarse=False):
    y = np.cumsum(np.random.default_rng(seed).standard_normal(n))
    return np.round(y) if coarse else y


@pytest.mark.parametrize("coarse", [False, True], ids=["smooth", "plateaus"])
@pytest.mark.parametrize("sign", [1, -1])
def test_place_and_prominence_are_those_of_scipy(peaks, sign, coarse):
    y = curve(coarse=coarse)
    found = peaks(y, sign, 0, 399, (0, 400))
    index, facts = signal.find_peaks(sign * y, prominence=0.0)
    strongest_first = np.argsort(-facts["prominences"], kind="stable")
    assert [p[0] for p in found] == index[strongest_first].tolist()
    np.testing.assert_array_equal([p[3] for p in found], facts["prominences"][strongest_first])


@pytest.mark.parametrize("seed", range(6))
def test_both_twins_give_the_same_bits(seed):
    y = curve(seed=seed, coarse=seed % 2 == 1)
    for where in ((0, 399, (0, 400), 0.0), (50.3, 300.7, (40, 310), 2.0), (9, 9, (0, 11), -np.inf)):
        for sign in (1, -1):
            assert compiled(y, sign, *where) == reference.peaks(y, sign, *where)


def test_the_parabola_finds_a_peak_between_two_samples(peaks):
    t = np.arange(60)
    y = 3.0 - 0.1 * (t - 30.3) ** 2
    (found,) = peaks(y, 1, 0, 59, (0, 60))
    assert found[0] == 30
    assert found[1] == pytest.approx(30.3)
    assert found[2] == pytest.approx(3.0)
    assert found[4] == pytest.approx(0.2)


def test_a_slope_at_the_edge_of_the_window_is_no_peak(peaks):
    y = np.arange(50.0)
    assert peaks(y, 1, 10, 30, (0, 50)) == []
    assert peaks(y, 1, 10, 49, (0, 50)) == []


def test_a_nan_is_never_a_peak_nor_its_neighbour(peaks):
    y = np.array([0.0, 1, 2, 1, 0, np.nan, 5, np.nan, 0, 3, 0])
    assert [p[0] for p in peaks(y, 1, 0, 10, (0, 11))] == [9, 2]


def test_a_curve_of_noise_gives_every_peak():
    y = np.random.default_rng(2).standard_normal(4000)
    assert len(compiled(y, 1, 0, 3999, (0, 4000))) == len(signal.find_peaks(y)[0]) > 1000
