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
