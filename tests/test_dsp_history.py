"""The row history: any stretch by sample index, never across a gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionmd.dsp.history import History
from ionmd.dsp.layout import rows


def block(first, n):
    x = rows(n, 2)
    x[:, 0] = np.arange(first, first + n) % 100_003
    return x


def test_a_stretch_comes_back_as_it_was_pushed_across_the_ring_s_end():
    h = History(2, 100, 1000.0)
    for first in range(0, 350, 35):
        h.push(first, block(first, 35), 35)
    assert (h.oldest, h.newest, h.stop) == (250, 349, 350)
    out = rows(80, 2)
    h.view(260, 80, out)
    np.testing.assert_array_equal(out, block(260, 80))
    with pytest.raises(ValueError, match="not held"):
        h.view(249, 10, out)
    assert not h.covers(340, 11)


def test_a_gap_is_never_bridged_and_leaves_with_its_samples():
    h = History(2, 100, 1000.0)
    h.push(0, block(0, 50), 50)
    h.push(60, block(60, 30), 30)
    assert h.covers(0, 50)
    assert h.covers(60, 30)
    assert not any(h.covers(*stretch) for stretch in [(0, 51), (49, 12), (50, 1), (59, 1), (55, 10), (0, 90)])
    h.push(90, block(90, 100), 100)
    assert h.oldest == 90
    assert h.covers(90, 100)


def test_large_device_indices_are_plain_numbers():
    h, first = History(2, 64, 1000.0), 2**63 + 12_345
    h.push(first, block(first, 40), 40)
    out = rows(40, 2)
    h.view(first, 40, out)
    np.testing.assert_array_equal(out, block(first, 40))


def test_going_back_needs_clear():
    h = History(2, 64, 1000.0)
    h.push(100, block(100, 10), 10)
    with pytest.raises(ValueError, match="clear"):
        h.push(109, block(109, 2), 2)
    h.clear()
    assert h.newest == h.oldest - 1
    h.push(0, block(0, 2), 2)
    assert h.covers(0, 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 90)), min_size=1, max_size=12), st.integers(1, 60))
def test_it_agrees_with_a_plain_dictionary(pushes, size):
    h, held, at = History(2, size, 1000.0), {}, 1000
    for skip, n in pushes:
        at += skip if held else 0
        h.push(at, block(at, n), n)
        held.update({s: s % 100_003 for s in range(at, at + n)})
        at += n
        if not n:
            continue
        kept = {s for s in held if s >= at - size}
        out = rows(size, 2)
        for first in range(at - size - 2, at + 1):
            for want in (1, 5, size):
                whole = all(s in kept for s in range(first, first + want))
                assert h.covers(first, want) == whole
                if whole:
                    h.view(first, want, out)
                    assert out[0, 0] == held[first]
                    assert out[want - 1, 0] == held[first + want - 1]


def noisy(n, seed, columns=18):
    x = rows(n, columns)
    x[:, :columns] = np.random.default_rng(seed).standard_normal((n, columns)) * 30
    return x


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 70), min_size=4, max_size=14), st.integers(0, 2**40), st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_extremes_kept_on_the_way_are_those_of_the_rows(sizes, first, gap_at, random):
    """Twin: the rows themselves, viewed; across gaps, the ring's end and any cut into blocks."""
    h, at = History(18, 150, 1000.0, keep_extremes=True), first
    for i, n in enumerate(sizes):
        at += 17 if i == gap_at else 0
        x = noisy(n, i)
        if i == 1:
            x[0, 3] = np.nan
        h.push(at, x, n)
        at += n
    for _ in range(8):
        start = random.randint(h.oldest, h.newest)
        n = random.randint(1, h.stop - start)
        if not h.covers(start, n):
            continue
        seen = rows(n, 18)
        h.view(start, n, seen)
        accept = np.full(18, 7, np.uint8)
        passed = h.within(start, n, 60.0, accept)
        want = (np.abs(seen[:, :18]) <= 60.0).all(axis=0)
        assert accept.tolist() == want.tolist()
        assert passed == want.any()
        np.testing.assert_array_equal(h.lo[:18], seen[:, :18].min(axis=0))
        np.testing.assert_array_equal(h.hi[:18], seen[:, :18].max(axis=0))


def test_extremes_of_rows_that_are_not_held_are_refused():
    h, accept = History(2, 64, 1000.0, keep_extremes=True), np.ones(2, np.uint8)
    h.push(0, block(0, 50), 50)
    with pytest.raises(ValueError, match="not held"):
        h.within(40, 20, 1.0, accept)
    with pytest.raises(ValueError, match="keeps no extremes"):
        History(2, 64, 1000.0).within(0, 1, 1.0, accept)
    with pytest.raises(ValueError, match="accept"):
        h.within(0, 10, 1.0, np.ones(40, np.uint8))
