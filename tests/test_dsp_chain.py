"""A block in one call is the same as its stages one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from ionmd.dsp.blank import Hold
from ionmd.dsp.chain import Chain, Int24
from ionmd.dsp.derive import Montage
from ionmd.dsp.design import butter_sos, notch_sos
from ionmd.dsp.features import EmgFeatures
from ionmd.dsp.iir import Cascade
from ionmd.dsp.layout import rows, unpack_slack

RATE = 20_000.0
SOS = np.vstack([butter_sos(4, (30, 1500), RATE), notch_sos(50, 30, RATE)])
PAIRS = [(0, 1), (4, -1), (2, 7), (9, 0), (3, 3)]


def recording(n, inputs=10, seed=2):
    x = rows(n, inputs)
    x[:, :inputs] = np.random.default_rng(seed).standard_normal((n, inputs)) * 30 + 500
    return x


def stages():
    montage = Montage.pairs(PAIRS, 16)
    return montage, Cascade(SOS, len(PAIRS)), EmgFeatures(len(PAIRS), 40.0, 5)


@pytest.mark.parametrize("block", [1, 4, 40, 100])
def test_the_chain_gives_the_bits_of_its_stages(block):
    x, n = recording(400), 400
    montage, cascade, features = stages()
    hold = Hold(len(PAIRS))
    spans = [(20, 35), (33, 50), (220, 305)]
    want, y = rows(n, len(PAIRS)), rows(block, len(PAIRS))
    montage2, cascade2, features2 = stages()
    chain = Chain(montage2, cascade2, block, features2)
    got = np.zeros_like(want)
    for at in range(0, n, block):
        here = [(a - at, b - at) for a, b in spans if a < at + block and b > at]
        montage.apply(x[at : at + block], block, y)
        hold.apply(y, block, here)
        cascade.process(y, y, block)
        features.add(y, block)
        want[at : at + block] = y
        assert chain.feed(np.ascontiguousarray(x[at : at + block]), block, here) is True
        got[at : at + block] = chain.rows[:block]
    np.testing.assert_array_equal(got, want)
    a, b = features.finish(), features2.finish()
    for name in ("rms_uv", "line_length_uv", "peak_uv", "over", "bursts"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_from_bytes_it_is_the_same_as_from_their_microvolts():
    counts = np.random.default_rng(3).integers(-9000, 9000, (80, 10), dtype=np.int32)
    raw = counts.astype("<i4").reshape(-1, 1).view(np.uint8).reshape(-1, 4)[:, :3].tobytes() + bytes(unpack_slack)
    int24 = Int24([0.02] * 10, 80)
    montage, cascade, features = stages()
    packed = Chain(montage, cascade, 80, features, int24)
    montage, cascade, features = stages()
    plain = Chain(montage, cascade, 80, features)
    assert packed.feed_int24(raw, 80, None)
    assert plain.feed(int24.uv, 80, None)
    np.testing.assert_array_equal(packed.rows, plain.rows)
    with pytest.raises(ValueError, match="no unpack stage"):
        plain.feed_int24(raw, 80, None)


def test_after_a_gap_an_artefact_is_held_at_its_own_first_row():
    montage, cascade, _ = stages()
    chain = Chain(montage, cascade, 40)
    x = recording(40)
    chain.feed(x, 40, None)
    chain.forget()
    chain.feed(x, 40, [(0, 10)])
    assert (chain.derived[:10] == x[0, 0] - x[0, 1])[:, 0].all()


def test_more_spans_than_it_can_note_are_held_with_what_lies_between():
    montage, cascade, _ = stages()
    chain = Chain(montage, cascade, 400)
    x = recording(400)
    chain.feed(x, 400, [(4 * k + 1, 4 * k + 2) for k in range(90)])
    held = (np.diff(chain.derived[:, 0]) == 0).nonzero()[0] + 1
    assert {4 * k + 1 for k in range(90)} <= set(held.tolist())


def test_a_nan_is_reported():
    montage, cascade, _ = stages()
    chain = Chain(montage, cascade, 40)
    x = recording(40)
    x[3, 2] = np.nan
    assert chain.feed(x, 40, None) is False


def test_stages_and_blocks_that_do_not_fit_are_refused():
    montage, cascade, _ = stages()
    with pytest.raises(ValueError, match="strides"):
        Chain(montage, Cascade(SOS, 20), 40)
    with pytest.raises(ValueError, match="stride"):
        Chain(montage, cascade, 40, None, Int24([1.0] * 20, 40))
    chain = Chain(montage, cascade, 40)
    for n in (41, -1):
        with pytest.raises(ValueError, match="rows"):
            chain.feed(recording(50), n, None)
    with pytest.raises(ValueError, match="float32 values"):
        chain.feed(recording(5), 10, None)
