"""Welch spectra against their plain twin and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from ionmd.dsp import reference
from ionmd.dsp.layout import rows
from ionmd.dsp.spectrum import Welch, roots_of_unity

RATE = 512.0


def compiled(x, samples, rate, step):
    w = Welch(x.shape[1], samples, rate)
    wide = rows(len(x), x.shape[1])
    wide[:, : x.shape[1]] = x
    w.add(wide, step=step)
    return w.density()


@pytest.fixture(params=[reference.welch, compiled], ids=["numpy", "compiled"])
def welch(request):
    return request.param


def eeg(n, channels, seed=1):
    rng = np.random.default_rng(seed)
    t = np.arange(n)[:, None] / RATE
    alpha = 20 * np.sin(2 * np.pi * (10 + np.arange(channels)) * t)
    return (np.cumsum(rng.standard_normal((n, channels)), axis=0) + alpha + 5e4).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("samples", [64, 128, 256, 512, 1024])
@pytest.mark.parametrize("channels", [1, 8, 19])
def test_it_is_scipys_welch(welch, samples, channels):
    x = eeg(4 * samples, channels)
    got = welch(x, samples, RATE, samples // 2)
    want = signal.welch(x.T, RATE, nperseg=samples)[1]
    np.testing.assert_allclose(got / want.max(axis=1)[:, None], want / want.max(axis=1)[:, None], atol=1e-4)


@pytest.mark.parametrize("samples", [2048, 4096])
def test_long_segments_as_well(samples):
    x = eeg(2 * samples, 3)
    want = signal.welch(x.T, RATE, nperseg=samples)[1]
    got = compiled(x, samples, RATE, samples // 2)
    np.testing.assert_allclose(got / want.max(axis=1)[:, None], want / want.max(axis=1)[:, None], atol=1e-4)


def test_a_channel_leaks_nothing_into_the_one_it_shares_a_transform_with():
    x = np.zeros((1024, 16))
    x[:, 0] = 1e3 * np.sin(2 * np.pi * 40 * np.arange(1024) / RATE)
    density = compiled(x, 1024, RATE, 512)
    assert density[0].max() > 1e4
    assert density[1:].max() < 1e-6 * density[0].max()


@pytest.mark.parametrize("samples", [64, 1024, 4096])
def test_the_roots_of_unity_are_cosine_and_sine_to_the_last_bit_of_a_float(samples):
    angle = 2 * np.pi * np.arange(samples) / samples
    got = roots_of_unity(samples)
    np.testing.assert_allclose(got, np.stack([np.cos(angle), -np.sin(angle)], axis=1), rtol=0, atol=6e-8)


def test_segments_are_counted_and_nothing_is_nan_and_not_zero():
    w = Welch(3, 64, RATE)
    assert np.isnan(w.density()).all()
    assert w.add(rows(63, 3)) == 0
    assert w.add(rows(128, 3)) == 3
    assert w.segments == 3
    assert not w.density().any()
    w.clear()
    assert np.isnan(w.density()).all()
    assert w.frequencies_hz[[0, -1]].tolist() == [0.0, RATE / 2]


@pytest.mark.parametrize("samples", [0, 32, 100, 8192])
def test_other_lengths_are_refused(samples):
    with pytest.raises(ValueError, match="power of two"):
        Welch(3, samples, RATE)
