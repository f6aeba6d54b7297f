"""Features of free EMG, compiled against the plain twin."""

from __future__ import annotations

import numpy as np
import pytest

from ionmd.dsp import reference
from ionmd.dsp.features import EmgFeatures
from ionmd.dsp.layout import rows


def emg(n=500, channels=19, seed=3):
    rng = np.random.default_rng(seed)
    x = rows(n, channels)
    x[:, :channels] = rng.standard_normal((n, channels)) * 10
    x[100:140, 2] *= 12
    x[300:320, 2] *= 12
    return x


@pytest.mark.parametrize("block", [1, 7, 40, 333, 500])
@pytest.mark.parametrize("quiet", [1, 50])
def test_every_feature_equals_the_plain_twin_whatever_the_blocks(block, quiet):
    x = emg()
    f = EmgFeatures(19, 60.0, quiet)
    for i in range(0, 500, block):
        f.add(x, min(block, 500 - i), i)
    got = f.finish()
    want = reference.emg_window(x[:, :19], np.full(19, 60, np.float32), quiet)
    for name, value in want.items():
        np.testing.assert_array_equal(getattr(got, name), value, err_msg=name)
    assert got.n == 500


def test_two_trains_are_two_bursts_when_the_pause_is_long_enough():
    x = emg()
    f = EmgFeatures(19, 60.0, 50)
    f.add(x, 500)
    assert f.finish().bursts[2] == 2
    f = EmgFeatures(19, 60.0, 400)
    f.add(x, 500)
    assert f.finish().bursts[2] == 1


def test_a_burst_across_the_cut_of_windows_counts_once():
    x = rows(100, 1)
    x[45:55, 0] = 100
    f = EmgFeatures(1, 50.0, 5)
    f.add(x, 50)
    first = f.finish()
    f.add(x, 50, 50)
    second = f.finish()
    assert (first.bursts[0], second.bursts[0]) == (1, 0)
    assert (first.over[0], second.over[0]) == (5, 5)


def test_nan_shows_and_is_gone_in_the_next_window():
    x = emg()
    x[250, 4] = np.nan
    f = EmgFeatures(19, 60.0, 10)
    f.add(x, 300)
    got = f.finish()
    assert np.isnan(got.rms_uv).tolist() == [c == 4 for c in range(19)]
    f.add(x, 200, 300)
    assert np.isfinite(f.finish().rms_uv).all()


def test_an_empty_window_is_nan_and_a_reset_forgets_the_step():
    f = EmgFeatures(1, 50.0, 5)
    assert np.isnan(f.finish().rms_uv).all()
    x = rows(10, 1)
    x[:, 0] = 7
    f.add(x, 10)
    assert f.finish().line_length_uv[0] == 0
    f.reset()
    x[:, 0] = 900
    f.add(x, 10)
    assert f.finish().line_length_uv[0] == 0


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_a_threshold_that_is_not_positive_is_refused(threshold):
    with pytest.raises(ValueError, match="positive"):
        EmgFeatures(2, threshold, 5)
