"""The streaming filter: float32(scipy) bit for bit, whatever the blocks; both twins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from ionmd.dsp import iir, reference
from ionmd.dsp.design import butter_sos, notch_sos, sosfilt_zi
from ionmd.dsp.layout import flush_denormals, kernels, rows, stride_of

RATE = 20_000.0
SSEP = np.vstack([butter_sos(4, (30, 1500), RATE), notch_sos(50, 30, RATE)])
TINY = np.finfo(np.float32).tiny


@pytest.fixture(params=[reference.Cascade, iir.Cascade], ids=["numpy", "compiled"])
def cascade(request):
    return request.param


def recording(samples, channels, seed=1):
    rng = np.random.default_rng(seed)
    x = rows(samples, channels)
    t = np.arange(samples) / RATE
    x[:, :channels] = rng.standard_normal((samples, channels)) * 20 + 1000 + 50 * np.sin(2 * np.pi * 50 * t)[:, None]
    return x


def run(filt, x, block):
    y = np.full_like(x, 7)
    for i in range(0, len(x), block):
        n = min(block, len(x) - i)
        filt.process(x[i : i + n], y[i : i + n], n)
    return y


def exact(sos, x, zi=None):
    z = np.zeros((len(sos), x.shape[1], 2)) if zi is None else zi
    return np.asarray(signal.sosfilt(sos, x.astype(np.float64), axis=0, zi=z.transpose(0, 2, 1))[0])


@pytest.mark.parametrize("sections", [1, 2, 3, 4, 5])
def test_equals_float32_of_scipy_bit_for_bit(cascade, sections):
    x = recording(600, 20)
    y = run(cascade(SSEP[:sections], 20), x, 40)
    np.testing.assert_array_equal(y, exact(SSEP[:sections], x).astype(np.float32))


@pytest.mark.parametrize("channels", [1, 8, 16, 33, 64, 256])
@pytest.mark.parametrize("sections", [0, 1, 6, 7, 16])
def test_any_width_and_depth_equals_scipy(channels, sections):
    sos = np.vstack([SSEP] * 4)[:sections]
    x = recording(300, channels)
    y = run(iir.Cascade(sos, channels), x, 300)
    want = exact(sos, x) if sections else x
    np.testing.assert_array_equal(y, want.astype(np.float32))


@pytest.mark.parametrize("block", [1, 7, 40, 333, 2000])
def test_block_size_changes_no_bit(block):
    x = recording(2000, 33)
    np.testing.assert_array_equal(run(iir.Cascade(SSEP, 33), x, block), exact(SSEP, x).astype(np.float32))


def test_in_place_gives_the_same(cascade):
    x = recording(200, 16)
    want = run(cascade(SSEP, 16), x, 40)
    filt = cascade(SSEP, 16)
    for i in range(0, 200, 40):
        filt.process(x[i : i + 40], x[i : i + 40], 40)
    np.testing.assert_array_equal(x, want)


def test_settled_on_an_electrode_offset_it_starts_without_a_ring(cascade):
    x = rows(400, 4)
    x[:, :4] = [300_000, -100_000, 0, 12.5]
    filt = cascade(SSEP, 4)
    filt.settle(x[0])
    zi = np.zeros((len(SSEP), stride_of(4), 2)) + sosfilt_zi(SSEP)[:, None, :] * x[0].astype(np.float64)[None, :, None]
    y = run(filt, x, 40)
    np.testing.assert_array_equal(y, exact(SSEP, x, zi).astype(np.float32))
    assert np.abs(y).max() < 2e-3  # microvolts, of 300 mV


def test_after_a_gap_the_settled_filter_is_a_fresh_one(cascade):
    x = recording(400, 5)
    used, fresh = cascade(SSEP, 5), cascade(SSEP, 5)
    run(used, x[:200], 40)
    used.settle(x[200])
    fresh.settle(x[200])
    np.testing.assert_array_equal(run(used, x[200:], 40), run(fresh, x[200:], 40))
    used.reset()
    np.testing.assert_array_equal(run(used, x, 40), run(cascade(SSEP, 5), x, 40))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nan_or_inf_is_reported_stays_in_its_column_and_is_cured_by_settling(cascade, bad):
    x = recording(120, 6)
    clean = run(cascade(SSEP, 6), x, 40)
    filt, spoiled, y = cascade(SSEP, 6), x.copy(), rows(120, 6)
    spoiled[50, 2] = bad
    assert filt.process(spoiled[:40], y[:40], 40) is True
    assert filt.process(spoiled[40:80], y[40:80], 40) is False
    assert filt.process(spoiled[80:], y[80:], 40) is False  # it would never leave by itself
    assert filt.poisoned().tolist() == [False, False, True, False, False, False]
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(y[:, others], clean[:, others])
    filt.settle(x[119], filt.poisoned())
    assert filt.process(x[:40], y[:40], 40) is True
    assert np.isfinite(y[:40]).all()
    assert not filt.poisoned().any()


def test_subnormal_inputs_and_outputs_are_zero(cascade):
    x = rows(50, 3)
    x[:, 0] = 1e-40
    x[:, 1] = TINY / 2
    x[0, 2] = TINY * 4
    y = run(cascade(SSEP[:1], 3), x, 10)
    assert not ((np.abs(y) < TINY) & (y != 0)).any()
    assert (y[:, :2] == 0).all()


def test_the_thread_s_own_float_mode_is_left_as_it_was():
    x = recording(40, 16)
    tiny = np.array([1e-310])
    run(iir.Cascade(SSEP, 16), x, 40)
    assert (tiny * 0.5)[0] != 0
    with flush_denormals():
        assert (tiny * 0.5)[0] == 0
    assert (tiny * 0.5)[0] != 0


def test_buffers_that_do_not_fit_are_refused_before_a_byte_is_touched():
    filt = iir.Cascade(SSEP, 16)
    good, y = rows(40, 16), rows(40, 16)
    y[:] = 3
    for x in (good.astype(np.float64), rows(39, 16), np.zeros((40, 32), np.float32)[:, ::2], good.view(np.int32)):
        with pytest.raises((ValueError, BufferError)):
            filt.process(x, y, 40)
    y.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        filt.process(good, y, 40)
    with pytest.raises(ValueError, match="rows"):
        filt.process(good, good, -1)
    assert (y == 3).all()


def test_impossible_cascades_are_refused():
    with pytest.raises(ValueError, match="sections"):
        iir.Cascade(np.vstack([SSEP] * 4), 4)
    with pytest.raises(ValueError, match="columns"):
        iir.Cascade(SSEP, 257)
    with pytest.raises(ValueError, match="columns"):
        iir.Cascade(SSEP, 0)
    assert kernels.MAX_SECTIONS == 16
