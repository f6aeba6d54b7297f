"""Cases of the sweep path: epoch, reject, average."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.harness import WORKLOADS, Case, same
from bench.stream import signal_rows
from ionmd.dsp.average import SweepSum
from ionmd.dsp.history import History

SWEEPS, LIMIT_UV, TOGETHER = 20, 400.0, 16


def average() -> Iterator[Case]:
    """100 ms sweeps, one in five refused for its amplitude; float64 sums in two halves on both sides.

    As the daemon does it: the stream keeps the extremes of every 32 rows while it comes (their cost is in `ours`, on
    a 5 ms block in the cache, as it is there), so that at its end a sweep is only read once, to be added; accepted
    sweeps are added sixteen at a time, in the same order within their halves.
    """
    import mne

    mne.set_log_level("ERROR")
    for name, (channels, rate) in WORKLOADS.items():
        n, block = rate // 10, rate // 200
        stream = signal_rows(n * SWEEPS, channels) - np.float32(1000)
        stream[n // 2 :: n * 5, 3] = 5000
        parts = [stream[i * n : (i + 1) * n] for i in range(SWEEPS)]
        acc, count = np.zeros((2, n, channels)), [0]

        def numpy_side(parts=parts, acc=acc, count=count):
            for s in parts:
                if s.max(axis=0).max() <= LIMIT_UV and s.min(axis=0).min() >= -LIMIT_UV:
                    half = acc[count[0] & 1]
                    np.add(half, s, out=half)
                    count[0] += 1

        history = History(channels, n * SWEEPS, rate, keep_extremes=True)
        for i in range(0, n * SWEEPS, block):
            history.push(i, stream[i : i + block], block)
        hot = History(channels, 2 * block, rate, keep_extremes=True)
        hot.push(0, stream, block)
        sums = SweepSum(channels, n, squares=False)
        accept, blocks = np.ones(channels, np.uint8), range(n // block)

        def ours(parts=parts, sums=sums, history=history, hot=hot, accept=accept, n=n, block=block, blocks=blocks):
            keep, first, held = hot._extremes.update, 0, []
            for s in parts:
                for _ in blocks:
                    keep(0, block)
                history.within(first, n, LIMIT_UV, accept)
                if accept.all():
                    held.append(s)
                if len(held) == TOGETHER:
                    sums.add_many(held)
                    held.clear()
                first += n
            sums.add_many(held)

        numpy_side()
        ours()
        same(sums.mean(), acc.sum(axis=0).T / count[0], rtol=1e-12, atol=1e-12)
        info = mne.create_info(channels, rate, "eeg")
        raw = mne.io.RawArray(np.ascontiguousarray(stream.T, np.float64) * 1e-6, info)
        events = np.c_[np.arange(SWEEPS) * n, np.zeros(SWEEPS, int), np.ones(SWEEPS, int)]

        def mne_side(raw=raw, events=events, n=n, rate=rate):
            return mne.Epochs(
                raw, events, tmin=0, tmax=(n - 1) / rate, baseline=None, reject={"eeg": 2 * LIMIT_UV * 1e-6},
                preload=True, proj=False,
            ).average().data  # fmt: skip

        same(mne_side(), sums.mean() * 1e-6, rtol=0, atol=1e-12)
        units = n * SWEEPS * channels
        targets = {"W1": (11.0, 35.0), "W2": (6.0, 18.0)}[name]
        yield Case("average+reject", name, 100, "numpy max-min, float64 sums", targets[0], ours, numpy_side, units)
        yield Case("average+reject", name, 100, "mne.Epochs.average", targets[1], ours, mne_side, units)
