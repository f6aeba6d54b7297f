"""The mains is followed and taken off; a response is not, whatever its rate."""

import numpy as np
import pytest

from ionmd.dsp.layout import curves
from ionmd.dsp.mains import MainsTrack

RATE = 10_000.0


def hum(t_s, hz, uv=20.0):
    """50 Hz and odd harmonics, as a theatre has them."""
    return uv * sum(np.sin(2 * np.pi * k * hz * t_s + k) / k**1.5 for k in (1, 3, 5, 7))


def rows_of(x):
    out = np.zeros((len(x), 16), np.float32)
    out[:, 0] = x
    return out


def feed(track, x, block=50, first=0):
    for k in range(0, len(x) - block + 1, block):
        track.feed(first + k, rows_of(x[k : k + block]), block)


def test_the_fit_is_that_of_least_squares():
    rng = np.random.default_rng(1)
    n, harmonics, w = 700, 4, 0.157
    x = np.ascontiguousarray(rng.normal(0.0, 1.0, (n, 3)))
    use = (rng.random(n) < 0.6).astype(np.uint8)
    coef, left = np.empty((2 * harmonics + 3, 3)), np.empty(3)
    assert curves.mains_fit(x, use, n, 3, 3, w, harmonics, coef, left) == use.sum()
    t = np.arange(n) - (n - 1) / 2
    columns = [np.ones(n)]
    for k in range(1, harmonics + 1):
        columns += [np.cos(k * w * t), np.sin(k * w * t)]
    columns += [t / (n - 1) * 2 * columns[1], t / (n - 1) * 2 * columns[2]]
    design = np.stack(columns, axis=1)[use > 0]
    np.testing.assert_allclose(coef, np.linalg.lstsq(design, x[use > 0], rcond=None)[0], atol=1e-7)
    np.testing.assert_allclose(left, np.mean((x[use > 0] - design @ coef) ** 2, axis=0), rtol=1e-7)


@pytest.mark.parametrize("hz", [49.8, 49.95, 50.0, 50.1, 50.2])
def test_a_mains_that_is_off_is_found_and_taken_off(hz):
    track = MainsTrack(1, RATE, 50.0)
    t = np.arange(int(6 * RATE)) / RATE
    x = hum(t, hz)
    left = []
    for k in range(0, len(x), 50):
        track.feed(k, rows_of(x[k : k + 50]), 50)
        if k > 20_000 and k % 2000 == 0:
            sweep = rows_of(x[k - 1000 : k])
            removed = track.remove(sweep, k - 1000, 1000)
            left.append(float(np.sqrt(np.mean(sweep[:, 0] ** 2))))
            assert removed[0] == pytest.approx(np.mean(x[k - 1000 : k] ** 2), rel=0.3)
    assert track.hz == pytest.approx(hz, abs=0.01)
    assert max(left[-10:]) < 0.02 * np.sqrt(np.mean(x**2))


def test_a_response_is_not_learnt_even_when_it_comes_with_the_mains():
    """5/s is every tenth cycle of 50 Hz: the response repeats at the same phase, and hidden it stays out of the fit."""
    t = np.arange(int(4 * RATE)) / RATE
    answer = np.zeros(len(t))
    for zero in range(0, len(t), 2000):
        place = np.arange(0, min(500, len(t) - zero))
        answer[zero + place] += 5.0 * np.exp(-0.5 * ((place / 10.0 - 20.0) / 3.0) ** 2)
    x = hum(t, 50.0) + answer
    open_, shut = MainsTrack(1, RATE, 50.0), MainsTrack(1, RATE, 50.0)
    for track in (open_, shut):
        for zero in range(0, len(t), 2000):
            if track is shut:
                track.hide(zero - 5, zero + 500)
        feed(track, x)
    clean = []
    for track in (open_, shut):
        sweep = rows_of(x[38_000:39_000])
        assert track.remove(sweep, 38_000, 1000) is not None
        clean.append(sweep[:, 0] - answer[38_000:39_000])
    assert np.abs(clean[1]).max() < 0.05  # what is left beside the response
    assert np.abs(clean[0]).max() > 0.2  # and what it would have cost


def test_without_enough_rest_nothing_is_taken_off_and_it_says_so():
    track = MainsTrack(1, RATE, 50.0)
    x = hum(np.arange(20_000) / RATE, 50.0)
    feed(track, x[:9000])
    sweep = rows_of(x[8000:9000])
    before = sweep.copy()
    assert track.remove(sweep, 8000, 1000) is None and (sweep == before).all()
    feed(track, x[9000:], first=9000)
    assert track.remove(rows_of(x[19_000:20_000]), 19_000, 1000) is not None
    track.hide(10_500, 20_000)
    assert track.remove(rows_of(x[19_000:20_000]), 19_000, 1000) is None


def test_after_a_break_it_is_learnt_anew():
    track = MainsTrack(1, RATE, 50.0)
    x = hum(np.arange(15_000) / RATE, 50.1)
    feed(track, x)
    assert track.remove(rows_of(x[14_000:]), 14_000, 1000) is not None
    track.forget()
    later = hum(np.arange(15_000) / RATE + 0.0137, 50.1)
    feed(track, later[:5000], first=20_003)
    assert track.remove(rows_of(later[4000:5000]), 24_003, 1000) is None
    feed(track, later[5000:], first=25_003)
    sweep = rows_of(later[14_000:])
    for _ in range(20):
        sweep = rows_of(later[14_000:])
        track.remove(sweep, 34_003, 1000)
    assert np.sqrt(np.mean(sweep[:, 0] ** 2)) < 0.5


def test_blocks_of_any_length_teach_the_same():
    x = hum(np.arange(20_000) / RATE, 50.05)
    rng = np.random.default_rng(2)
    found = []
    for cuts in ([50] * 400, None):
        track, at = MainsTrack(1, RATE, 50.0), 0
        while at < len(x):
            n = min(len(x) - at, cuts.pop() if cuts else int(rng.integers(1, 137)))
            track.feed(at, rows_of(x[at : at + n]), n)
            at += n
        sweep = rows_of(x[19_000:])
        track.remove(sweep, 19_000, 1000)
        found.append(sweep[:, 0])
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize("hz", [0.0, -50.0, 6000.0, float("nan")])
def test_a_mains_that_is_none_is_refused(hz):
    with pytest.raises(ValueError, match="Hz was expected"):
        MainsTrack(1, RATE, hz)
