"""Filter design against scipy, to 1e-12."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from ionmd.dsp.design import butter_sos, check_sos, filter_id, notch_sos, sosfilt_zi

BANDS = [(30, 500), (10, 900), (1, 500), (0.5, 70), (0, 300), (0, 900), (30, 0), (0.3, 0)]


def scipy_butter(order, band, rate):
    low, high = band
    kind = "bandpass" if low and high else "lowpass" if high else "highpass"
    return signal.butter(order, [low, high] if low and high else (low or high), kind, fs=rate, output="sos")


@pytest.mark.parametrize("rate", [2000.0, 10_000.0, 40_000.0])
@pytest.mark.parametrize("order", range(1, 9))
def test_butterworth_sections_equal_scipy_in_value_and_order(order, rate):
    for band in BANDS:
        np.testing.assert_allclose(butter_sos(order, band, rate), scipy_butter(order, band, rate), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("freq", "q", "rate"), [(50, 30, 20_000), (60, 5, 2000), (150, 35, 40_000)])
def test_notch_equals_scipy(freq, q, rate):
    b, a = signal.iirnotch(freq, q, fs=rate)
    np.testing.assert_allclose(notch_sos(freq, q, rate)[0], np.r_[b, a], rtol=0, atol=1e-12)


@pytest.mark.parametrize("band", BANDS)
def test_steady_state_equals_scipy_and_holds_a_constant(band):
    sos = butter_sos(2, band, 20_000.0)
    zi = sosfilt_zi(sos)
    np.testing.assert_allclose(zi, signal.sosfilt_zi(sos), rtol=1e-7, atol=1e-9)
    y, _ = signal.sosfilt(sos, np.full(2000, 1.0), zi=zi)
    assert np.ptp(y) < 1e-7


def test_infinite_high_edge_is_a_high_pass():
    np.testing.assert_array_equal(butter_sos(2, (30, np.inf), 2000.0), butter_sos(2, (30, 0), 2000.0))


@pytest.mark.parametrize(
    ("order", "band", "rate"),
    [(0, (1, 2), 100), (True, (1, 2), 100), (9, (1, 2), 100), (2, (0, 0), 100), (2, (5, 2), 100), (2, (1, 50), 100),
     (2, (float("nan"), 20), 100), (2, (-1, 20), 100), (2, (1, 20), float("nan")), (2, (1, 20), 0)],
)  # fmt: skip
def test_impossible_filters_are_refused(order, band, rate):
    with pytest.raises(ValueError, match="came"):
        butter_sos(order, band, rate)


@pytest.mark.parametrize(
    "section", [[1, 0, 0, 1, -2.1, 1.2], [1, 0, 0, 2, 0, 0], [np.nan, 0, 0, 1, 0, 0], [1, 0, 0, 1, 0, 1]]
)
def test_unstable_or_unnormalised_sections_are_refused(section):
    with pytest.raises(ValueError, match="section 0"):
        check_sos(np.array([section], float))


def test_filter_id_changes_with_everything_that_changes_the_curve_and_with_nothing_else():
    sos = butter_sos(2, (30, 500), 20_000.0)
    other = sos.copy()
    other[0, 0] = np.nextafter(other[0, 0], 1)
    ids = [
        filter_id(sos, "zero", "odd", (-10, 90), (-0.5, 3.0, "hold")),
        filter_id(other, "zero", "odd", (-10, 90), (-0.5, 3.0, "hold")),
        filter_id(sos, "causal", "odd", (-10, 90), (-0.5, 3.0, "hold")),
        filter_id(sos, "zero", "zi", (-10, 90), (-0.5, 3.0, "hold")),
        filter_id(sos, "zero", "odd", (-10, 100), (-0.5, 3.0, "hold")),
        filter_id(sos, "zero", "odd", (-10, 90), (-0.5, 3.0, "linear")),
    ]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 12 and int(i, 16) >= 0 for i in ids)
    assert filter_id(sos, "zero", "odd", (-10.0, 90.0), (-0.5, 3, "hold")) == ids[0]
