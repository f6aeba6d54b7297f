"""Cases of the sweep path: epoch, reject, average."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.harness import WORKLOADS, Case, same
from bench.stream import signal_rows
from ionmd.dsp.average import SweepSum
from ionmd.dsp.layout import kernels

SWEEPS, LIMIT_UV = 20, 400.0


def average() -> Iterator[Case]:
    """100 ms sweeps, one in five rejected by its range; float64 sums in two halves on both sides."""
    import mne

    mne.set_log_level("ERROR")
    for name, (channels, rate) in WORKLOADS.items():
        n = rate // 10
        x = signal_rows(n * SWEEPS, channels)
        x[n // 2 :: n * 5, 3] = 5000
        parts = [np.ascontiguousarray(x[i * n : (i + 1) * n]) for i in range(SWEEPS)]
        acc, count = np.zeros((2, n, channels)), [0]

        def numpy_side(parts=parts, acc=acc, count=count):
            for s in parts:
                if (s.max(axis=0) - s.min(axis=0)).max() <= LIMIT_UV:
                    half = acc[count[0] & 1]
                    np.add(half, s, out=half)
                    count[0] += 1

        sums = SweepSum(channels, n, squares=False)
        lo, hi = np.empty(channels, np.float32), np.empty(channels, np.float32)
        accept = np.ones(channels, np.uint8)

        def ours(parts=parts, sums=sums, lo=lo, hi=hi, accept=accept, n=n, channels=channels):
            for s in parts:
                kernels.extremes(s, channels, 0, n, lo, hi)
                if (hi - lo).max() <= LIMIT_UV:
                    sums._kernel.add(s, accept)

        numpy_side()
        ours()
        same(sums.mean(), acc.sum(axis=0).T / count[0], rtol=1e-12)
        info = mne.create_info(channels, rate, "eeg")
        raw = mne.io.RawArray(np.ascontiguousarray(x.T, np.float64) * 1e-6, info)
        events = np.c_[np.arange(SWEEPS) * n, np.zeros(SWEEPS, int), np.ones(SWEEPS, int)]

        def mne_side(raw=raw, events=events, n=n, rate=rate):
            return mne.Epochs(
                raw, events, tmin=0, tmax=(n - 1) / rate, baseline=None, reject={"eeg": LIMIT_UV * 1e-6},
                preload=True, proj=False,
            ).average().data  # fmt: skip

        same(mne_side(), sums.mean() * 1e-6, rtol=0, atol=1e-12)
        units = n * SWEEPS * channels
        targets = {"W1": (11.0, 35.0), "W2": (6.0, 18.0)}[name]
        yield Case("average+reject", name, 100, "numpy max-min, float64 sums", targets[0], ours, numpy_side, units)
        yield Case("average+reject", name, 100, "mne.Epochs.average", targets[1], ours, mne_side, units)
