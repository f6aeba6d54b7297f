"""Cases of the streaming path: unpack, filter, EMG features, whole block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import signal

from bench.harness import WORKLOADS, Case, same
from bench.isa import target
from ionmd.dsp.chain import Chain, Int24
from ionmd.dsp.derive import Montage
from ionmd.dsp.design import butter_sos, notch_sos
from ionmd.dsp.features import EmgFeatures
from ionmd.dsp.iir import Cascade
from ionmd.dsp.layout import unpack_slack


def filter_sos(rate: float) -> np.ndarray:
    """butter(4, 30..1500 Hz) band-pass and a 50 Hz notch: 5 sections."""
    return np.vstack([butter_sos(4, (30, 1500), rate), notch_sos(50, 30, rate)])


def signal_rows(rows: int, channels: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, channels)) * 20 + 1000).astype(np.float32)


def packed(rows: int, channels: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 bytes with one before and slack behind, the view a numpy user would take of them: int32 of stride 3 whose
    lowest byte belongs to the sample before, so that a shift by 8 gives the counts)."""
    counts = np.random.default_rng(seed).integers(-(1 << 18), 1 << 18, rows * channels, dtype=np.int32)
    raw = np.zeros(16 + 3 * len(counts) + unpack_slack, np.uint8)
    raw[16 : 16 + 3 * len(counts)] = counts.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].ravel()
    return raw, np.ndarray((rows, channels), "<i4", buffer=raw.data, offset=15, strides=(3 * channels, 3))


def unpack() -> Iterator[Case]:
    """Ours gives counts, microvolts and the extremes; the peer twice: microvolts alone, and the extremes as well."""
    for name, (channels, rate) in WORKLOADS.items():
        for ms in (1, 5):
            n = rate * ms // 1000
            raw, view = packed(n, channels)
            lsb = np.full(channels, 0.0223517, np.float32)
            int24 = Int24([float(v) for v in lsb], n)
            data = raw[16:]
            shifted, uv = np.empty((n, channels), np.int32), np.empty((n, channels), np.float32)
            lo, hi = np.empty(channels, np.int32), np.empty(channels, np.int32)

            def plain(view=view, shifted=shifted, uv=uv, lsb=lsb):
                np.right_shift(view, 8, out=shifted)
                np.multiply(shifted, lsb, out=uv, casting="unsafe", dtype=np.float32)
                return uv

            def with_extremes(plain=plain, shifted=shifted, lo=lo, hi=hi):
                plain()
                np.min(shifted, axis=0, out=lo)
                np.max(shifted, axis=0, out=hi)

            def ours(run=int24.process, data=data, n=n):
                run(data, n)

            ours()
            with_extremes()
            same(int24.uv, uv)
            same(int24.counts, shifted)
            same(int24.counts_lo, lo)
            same(int24.counts_hi, hi)
            goal, units = target(10.0, 18.0, 30.0), n * channels
            peer = "numpy stride-3 view with out="
            yield Case("unpack int24", name, ms, peer, goal, ours, with_extremes, units, "min/max on both sides")
            alone = peer + ", no min/max"
            yield Case("unpack int24", name, ms, alone, goal, ours, plain, units, "only ours has min/max")


def whole_block() -> Iterator[Case]:
    """Bytes -> microvolts -> derivations -> 5 sections -> EMG features, one call; the peer: numpy and scipy, out=."""
    for name, (channels, rate) in WORKLOADS.items():
        for ms in (1,):  # at 5 ms the filter alone is bound to 8
            n = rate * ms // 1000
            raw, view = packed(n, channels, 3)
            lsb, limit = np.full(channels, 0.0223517, np.float32), np.full(channels, 100, np.float32)
            sos = filter_sos(rate)
            order = np.arange(channels)
            features = EmgFeatures(channels, limit, 1)
            chain = Chain(
                Montage(order, np.full(channels, -1), channels), Cascade(sos, channels), n, features,
                Int24([float(v) for v in lsb], n),
            )  # fmt: skip
            data, scale = raw[16:], lsb.astype(np.float64)
            shifted, x, t = np.empty((n, channels), np.int32), np.empty((n, channels)), np.empty((n, channels))
            zi, last = [np.zeros((len(sos), 2, channels))], np.zeros(channels)

            def theirs(view=view, shifted=shifted, x=x, t=t, scale=scale, sos=sos, zi=zi, last=last, limit=limit):
                np.right_shift(view, 8, out=shifted)
                np.multiply(shifted, scale, out=x)
                y, zi[0] = signal.sosfilt(sos, x, axis=0, zi=zi[0])
                np.multiply(y, y, out=t)
                squares = t.sum(axis=0)
                np.subtract(y[1:], y[:-1], out=t[1:])
                np.subtract(y[0], last, out=t[0])
                last[:] = y[-1]
                np.abs(t, out=t)
                length = t.sum(axis=0)
                np.abs(y, out=t)
                return y, squares, length, t.max(axis=0), (t > limit).sum(axis=0)

            def ours(feed=chain.feed_int24, clear=features.kernel.clear, data=data, n=n):
                feed(data, n, None)
                clear()

            chain.feed_int24(data, n, None)
            got, want = features.finish(), theirs()
            same(chain.rows[:n, :channels], want[0], atol=1e-2)
            same(got.peak_uv, want[3], atol=1e-2)
            goal = {"W1": 40.0, "W2": 15.0}[name]
            yield Case("whole block", name, ms, "numpy + scipy", goal, ours, theirs, n * channels)


def call_cost() -> Iterator[Case]:
    """What one call of the whole block costs before the first sample: a block of no rows."""
    for name, (channels, rate) in WORKLOADS.items():
        sos = filter_sos(rate)
        features = EmgFeatures(channels, 100, 1)
        chain = Chain(
            Montage(np.arange(channels), np.full(channels, -1), channels), Cascade(sos, channels), 40, features,
            Int24([0.02] * channels, 40),
        )  # fmt: skip
        data = np.zeros(unpack_slack, np.uint8)

        def ours(feed=chain.feed_int24, data=data):
            feed(data, 0, None)

        yield Case("fixed call cost", name, 0, "500 ns (a budget, no peer)", 1.0, ours, 500.0, 1)


def iir() -> Iterator[Case]:
    for name, (channels, rate) in WORKLOADS.items():
        sos = filter_sos(rate)
        for ms in (1, 5):
            n = rate * ms // 1000
            x, y = signal_rows(n, channels), np.empty((n, channels), np.float32)
            cascade = Cascade(sos, channels)
            # channel-major is the layout scipy is fastest on; its output is float64 and is not rounded
            wide, zi = np.ascontiguousarray(x.T, np.float64), np.zeros((len(sos), channels, 2))
            cascade.process(x, y, n)
            same(y, signal.sosfilt(sos, wide, axis=1, zi=zi)[0].T.astype(np.float32))

            def theirs(sos=sos, wide=wide, zi=zi):
                return signal.sosfilt(sos, wide, axis=1, zi=zi)

            def ours(run=cascade.process, x=x, y=y, n=n):
                return run(x, y, n)

            goal = target(7.0, 17.0, 25.0) if ms == 1 else target(3.8, 8.0, 10.0)
            yield Case("iir", name, ms, "scipy.signal.sosfilt with zi", goal, ours, theirs, n * channels)


def emg() -> Iterator[Case]:
    """Same sums on both sides: squares, |step|, peak, crossings; the peer keeps its buffers (out=)."""
    for name, (channels, rate) in WORKLOADS.items():
        for ms in (1, 10):
            n = rate * ms // 1000
            x = signal_rows(n, channels) - np.float32(1000)
            limit = np.full(channels, 100, np.float32)
            f = EmgFeatures(channels, limit, 1)
            a, b = np.empty((n, channels), np.float32), np.empty((n, channels), np.float32)
            over, before = np.empty((n, channels), bool), np.empty((n, channels), bool)

            def theirs(x=x, a=a, b=b, over=over, before=before, limit=limit):
                np.multiply(x, x, out=a)
                rms = np.sqrt(a.mean(axis=0))
                np.subtract(x[1:], x[:-1], out=b[1:])
                b[0] = 0
                np.abs(b, out=b)
                length = b.sum(axis=0)
                np.abs(x, out=a)
                peak = a.max(axis=0)
                np.greater(a, limit, out=over)
                before[0] = False
                np.logical_not(over[:-1], out=before[1:])
                before[0] = True
                np.logical_and(over, before, out=before)
                return rms, length, peak, before.sum(axis=0), over.sum(axis=0)

            f.add(x, n)
            got, want = f.finish(), theirs()
            same(got.rms_uv, want[0], rtol=1e-5)
            same(got.line_length_uv, want[1], rtol=1e-4)
            same(got.peak_uv, want[2])
            same(got.bursts, want[3])
            same(got.over, want[4])

            def ours(add=f.kernel.add, clear=f.kernel.clear, x=x, n=n):
                add(x, 0, n)
                clear()

            goal = {1: 30.0, 10: 20.0}[ms]
            yield Case("emg features", name, ms, "numpy with out=", goal, ours, theirs, n * channels)
