"""Blanking: hold across blocks, hold or line on a sweep."""

from __future__ import annotations

import numpy as np
import pytest

from ionmd.dsp import reference
from ionmd.dsp.blank import Hold, blank_sweep
from ionmd.dsp.layout import rows


def recording(n=200):
    x = rows(n, 3)
    x[:, :3] = np.random.default_rng(3).standard_normal((n, 3)) + 300_000
    return x


def spans_of(spans, first, n):
    return [(a - first, b - first) for a, b in spans if a < first + n and b > first]


@pytest.mark.parametrize("block", [1, 7, 40, 200])
def test_hold_keeps_the_last_good_row_across_any_cut_into_blocks(block):
    spans = [(0, 3), (39, 41), (60, 100), (150, 151), (190, 400)]
    x = recording()
    want = reference.hold(x, spans)
    hold = Hold(3)
    for i in range(0, 200, block):
        n = min(block, 200 - i)
        hold.apply(x[i : i + n], n, spans_of(spans, i, n))
    np.testing.assert_array_equal(x, want)
    assert (want[60:100] == want[59]).all()


def test_overlapping_and_touching_spans_hold_the_row_before_the_first():
    x = recording()
    before = x[9].copy()
    Hold(3).apply(x, 200, [(10, 20), (15, 30), (30, 35)])
    assert (x[10:35] == before).all()
    assert not (x[35] == before).all()


def test_after_a_gap_the_old_row_is_forgotten():
    hold, x = Hold(3), recording()
    hold.apply(x[:50], 50, [])
    hold.reset()
    first = x[100].copy()
    hold.apply(x[100:150], 50, [(0, 10)])
    assert (x[100:110] == first).all()


def test_sweep_hold_and_linear():
    x = recording()
    held, line = x.copy(), x.copy()
    blank_sweep(held, 50, 60, "hold")
    blank_sweep(line, 50, 60, "linear")
    assert (held[50:60] == x[49]).all()
    want = np.linspace(x[49].astype(float), x[60].astype(float), 12)[1:-1]
    np.testing.assert_allclose(line[50:60], want, atol=0.05)  # float32 at 300 mV
    untouched = np.r_[0:50, 60:200]
    np.testing.assert_array_equal(held[untouched], x[untouched])
    np.testing.assert_array_equal(line[untouched], x[untouched])


@pytest.mark.parametrize("method", ["hold", "linear"])
def test_spans_at_an_edge_take_the_good_side(method):
    x = recording()
    y = x.copy()
    blank_sweep(y, -5, 10, method)
    assert (y[:10] == x[10]).all()
    blank_sweep(y, 190, 400, method)
    assert (y[190:] == x[189]).all()


def test_a_sweep_without_anything_good_is_refused():
    with pytest.raises(ValueError, match="leaves nothing"):
        blank_sweep(recording(), -1, 500)
    with pytest.raises(ValueError, match="method"):
        blank_sweep(recording(), 1, 5, "zero")
