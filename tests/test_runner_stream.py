"""The causal stream of a test: the same bytes whether it is fed block by block or follows the history of the inputs."""

from __future__ import annotations

import numpy as np
import pytest

from ionmd.dsp.history import History
from ionmd.model import Block, Derivation, Gap
from ionmd.runner.base import Span
from ionmd.runner.plan import Channel
from ionmd.runner.stream import CausalStream
from ionmd.testdef import Filter

RATE, INPUTS, N = 10_000.0, 5, 6_000
CHANNELS = [Channel(Derivation("a", "a", "b"), 0, 1), Channel(Derivation("c", "c", ""), 4, -1)]
ARTEFACTS = [Span(700, 760, "stimulus"), Span(730, 790, "stimulus"), Span(3_995, 4_060, "stimulus")]
BREAK = 2_500  # the stream of the device jumps here


def signal() -> np.ndarray:
    rng = np.random.default_rng(3)
    return (rng.normal(0, 20, (N, INPUTS)) + 5_000 + 40 * np.sin(np.arange(N) / 30)[:, None]).astype(np.float32)


def blocks(cut: int):
    """The signal in blocks of `cut` samples, none across the break, with 300 lost samples before it."""
    x, at = signal(), 0
    while at < N:
        n = min(cut, N - at, BREAK - at if at < BREAK else N)
        block = Block(cut, INPUTS, RATE)
        block.first, block.n = at + (300 if at >= BREAK else 0), n
        block.uv[:n, :INPUTS] = x[at : at + n]
        if at == BREAK:
            block.gap, block.lost = Gap.LOST, 300
        yield block
        at += n


def stream() -> CausalStream:
    return CausalStream(CHANNELS, 16, Filter(kind="butterworth", order=2, band_hz=(30.0, 1500.0)), RATE, 1.0)


def fed(cut: int) -> np.ndarray:
    causal, out = stream(), []
    for b in blocks(cut):
        spans = [(max(0, s.start - b.first), min(b.n, s.stop - b.first)) for s in ARTEFACTS]
        out.append(causal.feed(b, [(p, q) for p, q in spans if p < q])[: b.n, :2].copy())
    return np.concatenate(out)


def followed(cut: int, every: int) -> np.ndarray:
    causal, history, out = stream(), History(16, N, RATE), np.zeros((N, 16), np.float32)
    for k, b in enumerate(blocks(cut)):
        if b.gap:  # a run has collected everything by then
            causal.follow(history, BREAK)
        history.push(b.first, b.uv, b.n)
        causal.note(b, [s for s in ARTEFACTS if s.stop > b.first and s.start < b.first + b.n])
        if k % every == 0 or b.first + b.n >= N + 300:
            causal.follow(history, b.first + b.n)
    assert causal.behind(N + 300) == 0
    causal.history.view(0, BREAK, out[:BREAK])
    causal.history.view(BREAK + 300, N - BREAK, out[BREAK:])
    return out[:, :2]


@pytest.mark.parametrize(("cut", "every"), [(50, 1), (50, 17), (7, 40), (333, 3)])
def test_following_late_gives_the_bytes_of_feeding_each_block(cut, every):
    assert followed(cut, every).tobytes() == fed(50).tobytes()


def test_the_stream_settles_again_after_a_break():
    after = fed(50)[BREAK : BREAK + 20, 1]
    assert np.abs(after).max() < 200  # an offset of 5 mV would otherwise ring through the filter


def test_an_input_that_clips_does_not_restart_the_filters_of_the_others():
    causal, out = stream(), []
    for k, b in enumerate(blocks(50)):
        if k % 2:  # some input is at its end stop; these derivations are what they were
            b.gap |= Gap.CLIPPED
        spans = [(max(0, s.start - b.first), min(b.n, s.stop - b.first)) for s in ARTEFACTS]
        out.append(causal.feed(b, [(p, q) for p, q in spans if p < q])[: b.n, :2].copy())
    assert np.concatenate(out).tobytes() == fed(50).tobytes()
