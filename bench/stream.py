"""Cases of the streaming path: unpack, filter, EMG features, whole block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import signal

from bench.harness import WORKLOADS, Case, same
from ionmd.dsp.design import butter_sos, notch_sos
from ionmd.dsp.features import EmgFeatures
from ionmd.dsp.iir import Cascade


def filter_sos(rate: float) -> np.ndarray:
    """butter(4, 30..1500 Hz) band-pass and a 50 Hz notch: 5 sections."""
    return np.vstack([butter_sos(4, (30, 1500), rate), notch_sos(50, 30, rate)])


def signal_rows(rows: int, channels: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, channels)) * 20 + 1000).astype(np.float32)


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

            target = {1: 17.0, 5: 8.0}[ms]
            yield Case("iir", name, ms, "scipy.signal.sosfilt with zi", target, ours, theirs, n * channels)


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

            def ours(add=f._kernel.add, clear=f._kernel.clear, x=x, n=n):
                add(x, 0, n)
                clear()

            target = {1: 30.0, 10: 20.0}[ms]
            yield Case("emg features", name, ms, "numpy with out=", target, ours, theirs, n * channels)
