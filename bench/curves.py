"""Cases of finished curves and spectra: peaks, template match, Welch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import signal

from bench.harness import WORKLOADS, Case, same
from ionmd.dsp.design import butter_sos
from ionmd.dsp.match import TemplateMatch
from ionmd.dsp.spectrum import Welch
from ionmd.dsp.waves import peaks

LEAST_UV = 0.1


def evoked(channels: int, rate: float, seed: int = 5) -> np.ndarray:
    """float64[channels, 100 ms]: a trough of -2 uV at 20 ms, a slow wave after it, filtered noise of 0.1 uV."""
    t = np.arange(int(rate / 10)) / rate
    shape = -2 * np.exp(-0.5 * ((t - 0.02) / 1.1e-3) ** 2) + 1.5 * np.exp(-0.5 * ((t - 0.025) / 2.5e-3) ** 2)
    noise = np.random.default_rng(seed).standard_normal((channels, len(t)))
    return np.ascontiguousarray(shape + signal.sosfilt(butter_sos(2, (30, 1500), rate), noise) * 0.1)


def peak() -> Iterator[Case]:
    """The most prominent trough of 12 to 30 ms of every channel: place, value, prominence."""
    for name, (channels, rate) in WORKLOADS.items():
        curves = evoked(channels, rate)
        rows = list(curves)
        lo, hi = int(0.012 * rate), int(0.03 * rate)

        def theirs(curves=curves, lo=lo, hi=hi):
            out = np.empty((len(curves), 3))
            for c, w in enumerate(curves):
                found, facts = signal.find_peaks(-w[lo:hi], prominence=LEAST_UV)
                best = facts["prominences"].argmax()
                i = found[best] + lo
                a, b, d = w[i - 1], w[i], w[i + 1]
                shift = 0.5 * (a - d) / (a - 2 * b + d)
                out[c] = i + shift, b - 0.25 * (a - d) * shift, facts["prominences"][best]
            return out

        def ours(rows=rows, lo=lo, hi=hi):
            found = [peaks(w, -1, lo, hi - 1, (lo, hi), LEAST_UV) for w in rows]
            return [(p[0].position, p[0].value_uv, p[0].prominence_uv) for p in found]

        same(ours(), theirs(), atol=1e-9)
        yield Case("peak", name, 100, "scipy.signal.find_peaks + parabola", 15.0, ours, theirs, channels)


def match() -> Iterator[Case]:
    """A template of 10 ms at the lags of 10 ms, normalised; the peer transforms the whole batch at once."""
    for name, (channels, rate) in WORKLOADS.items():
        m, lags, first = int(0.01 * rate), int(0.01 * rate), int(0.01 * rate)
        curves = evoked(channels, rate)
        x = np.ascontiguousarray(curves[:, first : first + lags + m - 1], np.float32)
        shape = evoked(1, rate, 6)[0, int(0.015 * rate) :][:m]
        unit = shape - shape.mean()
        unit = np.ascontiguousarray(unit / np.sqrt((unit * unit).sum()), np.float32)

        def theirs(x=x, unit=unit, m=m):
            dot = signal.fftconvolve(x, unit[None, ::-1], "valid", axes=1)
            wide = x.astype(np.float64)
            s = np.cumsum(np.pad(wide, ((0, 0), (1, 0))), 1)
            q = np.cumsum(np.pad(wide * wide, ((0, 0), (1, 0))), 1)
            s, q = s[:, m:] - s[:, :-m], q[:, m:] - q[:, :-m]
            return dot / np.sqrt(q - s * s / m)

        matcher, out = TemplateMatch(shape, channels, x.shape[1]), np.empty((channels, lags), np.float32)

        def ours(run=matcher.process, x=x, out=out):
            return run(x, out)

        same(ours(), theirs(), atol=2e-5)
        yield Case("template match", name, 10, "scipy.signal.fftconvolve batch", 4.0, ours, theirs, channels)


def welch() -> Iterator[Case]:
    """8 s of EEG at 512 Hz in 7 segments of 1024 samples; window, mean removal, transform, power on both sides."""
    import ducc0

    rate, n = 512.0, 1024
    for name, (channels, _) in WORKLOADS.items():
        rng = np.random.default_rng(6)
        wide = np.cumsum(rng.standard_normal((channels, 4 * n)), 1)
        x = (wide - wide.mean(axis=1, keepdims=True)).astype(np.float32)
        rows = np.ascontiguousarray(x.T)
        window = signal.get_window("hann", n).astype(np.float32)
        scale = 2.0 / (rate * float((window.astype(float) ** 2).sum()))
        cut = np.lib.stride_tricks.sliding_window_view(x, n, 1)[:, :: n // 2]

        def theirs(cut=cut, window=window, scale=scale):
            s = cut - cut.mean(-1, keepdims=True)
            s *= window
            z = ducc0.fft.r2c(s, axes=(2,), nthreads=1)
            p = (z.real**2 + z.imag**2).mean(1) * scale
            p[:, [0, -1]] /= 2
            return p

        spectrum = Welch(channels, n, rate)

        def ours(spectrum=spectrum, rows=rows):
            spectrum.clear()
            spectrum.add(rows)
            return spectrum.density()

        got, want = ours(), signal.welch(x.astype(np.float64), rate, nperseg=n)[1]
        same(got / want.max(axis=1, keepdims=True), want / want.max(axis=1, keepdims=True), atol=1e-4)
        same(theirs() / want.max(axis=1, keepdims=True), want / want.max(axis=1, keepdims=True), atol=1e-4)
        yield Case("welch", name, 2000, "ducc0.fft.r2c batch", 4.0, ours, theirs, channels * 7 * n)
