"""The filter of finished averages against scipy; both twins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from ionmd.dsp import reference, zerophase
from ionmd.dsp.design import butter_sos, notch_sos, sosfilt_zi

RATE = 20_000.0
SSEP = np.vstack([butter_sos(2, (30, 1500), RATE), notch_sos(50, 30, RATE)])


@pytest.fixture(params=[reference.filter_average, zerophase.filter_average], ids=["numpy", "compiled"])
def filter_average(request):
    return request.param


def average(rows=3, samples=1200, seed=2):
    return np.random.default_rng(seed).standard_normal((rows, samples)) * 3 + 40


@pytest.mark.parametrize("sos", [SSEP, butter_sos(1, (30, 0), RATE), butter_sos(3, (0, 900), RATE)])
def test_zero_phase_equals_scipy_sosfiltfilt(filter_average, sos):
    x = average()
    np.testing.assert_allclose(filter_average(sos, x, True), signal.sosfiltfilt(sos, x), rtol=0, atol=1e-9)


def test_forwards_only_equals_scipy_with_a_settled_start(filter_average):
    x = average()
    zi = sosfilt_zi(SSEP)[:, None, :] * x[None, :, :1]
    np.testing.assert_array_equal(filter_average(SSEP, x, False), signal.sosfilt(SSEP, x, zi=zi)[0])


@pytest.mark.parametrize("zero_phase", [True, False])
def test_only_the_span_is_filtered_and_nothing_outside_it_leaks_in(filter_average, zero_phase):
    x = average()
    other = x.copy()
    other[:, :200] += 1e4
    other[:, 1000:] -= 1e4
    a, b = (filter_average(SSEP, v, zero_phase, (200, 1000)) for v in (x, other))
    np.testing.assert_array_equal(a[:, 200:1000], b[:, 200:1000])
    np.testing.assert_array_equal(a[:, :200], x[:, :200])
    np.testing.assert_array_equal(a[:, 1000:], x[:, 1000:])


def test_the_argument_is_left_alone_and_one_row_may_come_alone():
    x = average()
    before = x.copy()
    y = zerophase.filter_average(SSEP, x, True)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(zerophase.filter_average(SSEP, x[1], True), y[1])
    np.testing.assert_array_equal(zerophase.filter_average(np.zeros((0, 6)), x, True), x)


def test_no_latency_moves():
    t = np.arange(1200)
    x = -np.exp(-0.5 * ((t - 600) / 20.0) ** 2)[None]
    assert int(np.argmin(zerophase.filter_average(butter_sos(2, (30, 1500), RATE), x, True))) == 600


def test_short_spans_and_averages_without_sweeps_are_refused():
    with pytest.raises(ValueError, match="more than"):
        zerophase.filter_average(SSEP, average(samples=zerophase.pad_length(SSEP)), True)
    with pytest.raises(ValueError, match="span"):
        zerophase.filter_average(SSEP, average(), True, (100, 2000))
    x = average()
    x[1, 5] = np.nan
    with pytest.raises(ValueError, match="any sweep accepted"):
        zerophase.filter_average(SSEP, x, True)
