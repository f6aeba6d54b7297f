"""Median nerve responses: the real average, real noise with a known response, intervals, weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from bench import fit_shapes
from bench.accuracy.row import F64, Row, data_root, definition, marks_of, run
from firmware_sim.patient.recorded import Recordings
from ionmd.catalog import resolve_test
from ionmd.dsp import noise as noises
from ionmd.dsp.design import design
from ionmd.dsp.history import History
from ionmd.dsp.zerophase import filter_average
from ionmd.modality.evoked import Measured, measure_average
from ionmd.model import Block, Derivation, Reading, decode_curve
from ionmd.runner.evoked import EvokedRun
from ionmd.runner.plan import Channel
from ionmd.testdef import Filter, WaveShape

SEP_RAW = """
[test]
id = "sep_raw"
modality = "evoked"
[epoch]
start_ms = -50.0
stop_ms = 130.0
baseline_ms = [-50.0, -5.0]
[filter]
kind = "none"
[blank]
start_ms = -1.0
stop_ms = 7.0
method = "hold"
[[marker]]
label = "N20"
polarity = "negative"
window_ms = [17.0, 23.0]
[presence]
window_ms = [10.0, 50.0]
"""


def sphara() -> Row:
    folder = data_root() / "sphara-sep"
    rows = np.loadtxt(folder / "sep_average_dev_channels.csv", delimiter=",")
    t_ms = np.arange(369) / 2.048 - 50.0
    columns: dict[str, Iterable[float]] = {"time_ms": t_ms} | {f"c{r[0]:.0f}": r[1:] for r in rows}
    result = run(columns, definition(SEP_RAW))
    worst_ms = worst_uv = 0.0
    missed = []
    inside = np.flatnonzero((t_ms >= 17.0) & (t_ms <= 23.0))
    for channel in (10, 200, 210, 250):
        wave = next(r[1:] for r in rows if r[0] == channel)
        k = int(inside[np.argmin(wave[inside])])
        base = wave[(t_ms >= -50.0) & (t_ms < -5.0)].mean()
        marker = next((m for m in result[f"c{channel}"]["markers"] if m["label"] == "N20"), None)
        if marker is None:
            missed.append(str(channel))
            continue
        worst_ms = max(worst_ms, abs(marker["latency_ms"] - t_ms[k]))
        worst_uv = max(worst_uv, abs(marker["amplitude_uv"] - (wave[k] - base)))
    return Row("sphara-sep", "N20 on channels 10, 200, 210, 250 within 0.49 ms and 0.05 uV",
               f"worst {worst_ms:.2f} ms, {worst_uv:.3f} uV, missed: {', '.join(missed) or 'none'}",
               not missed and worst_ms <= 0.49 and worst_uv <= 0.05)  # fmt: skip


class Sep:
    """Real noise (artacs-sep, before the stimulus) and a real shape (sphara-sep, channel 10) at 5 kHz, -20..60 ms."""

    def __init__(self) -> None:
        recordings = Recordings.open(data_root())
        self.t_ms = np.arange(-100, 300) / 5.0
        self.shape = recordings.evaluate(self.t_ms)  # 3 uV peak to peak at 30-500 Hz
        self.trials = recordings.trials_uv
        self.test = resolve_test("ssep_median_left")
        self.sos = design(self.test.filter, 5000.0)
        self.label = "CP4-Fpz"

    def sweeps(self, rng: np.random.Generator, n: int) -> F64:
        rows = rng.integers(0, len(self.trials), n)
        starts = rng.integers(0, self.trials.shape[1] - 400, n)
        return np.stack([self.trials[r, a : a + 400] for r, a in zip(rows, starts, strict=True)])

    def filtered(self, x: F64) -> F64:
        y = filter_average(self.sos, x, True)
        return y - y[..., :95].mean(axis=-1, keepdims=True)

    def measure(self, sweeps: F64, sub: int = 25) -> Measured:
        mean = self.filtered(sweeps.mean(axis=0))
        halves = [self.filtered(sweeps[k::2].mean(axis=0)) for k in (0, 1)]
        count = max(1, len(sweeps) // sub)
        parts = [self.filtered(p.mean(axis=0)) for p in np.array_split(sweeps, count)]
        window = (182, 261)  # 16.5 to 32 ms
        noise = noises.estimate(mean, halves, parts, [len(p) for p in np.array_split(sweeps, count)], window, 0.2)
        return measure_average(self.test, self.label, mean, -20.0, 0.2, noise)

    def truth(self, amplitude: float = 1.0) -> Measured:
        nothing = noises.NoiseEstimate(0.0, 0.0, np.zeros(2), 0.2, (0, 0), known=False)
        return measure_average(self.test, self.label, self.filtered(self.shape * amplitude), -20.0, 0.2, nothing)


class Stream:
    """Real noise with a stimulus every 0.39 s through the daemon's own averaging (runner/evoked.py)."""

    RATE_HZ, PERIOD = 5000.0, 1961

    def __init__(self) -> None:
        self.recordings = Recordings.open(data_root())
        self.test = resolve_test("ssep_median_left")
        self.channel = Channel(Derivation("CP4-Fpz", "CP4", "Fpz"), 0, -1)
        times = np.arange(400) / 5.0 - 20.0
        self.shape = self.recordings.evaluate(times)

    def average(
        self, seed: int, sweeps: int, scale: float, gains: F64 | None = None, weighted: bool = True,
        period: int = PERIOD, spec: Filter | None = None, extra: Callable[[int], F64] | None = None, lead: int = 0,
    ) -> tuple[Reading, F64]:
        """The finished average of so many sweeps: its reading and its curve; `extra` is added to the signal, whose
        first `lead` samples are without a stimulus."""
        n = period * (sweeps + 2) + lead
        x = np.zeros(n, np.float32)
        self.recordings.noise(("CP4",), self.RATE_HZ, seed).add(x, 0, 0)
        zeros = [lead + period * (k + 1) for k in range(sweeps)]
        if gains is not None:
            knots = np.array([z + 980 for z in zeros]) - period // 2
            x *= np.interp(np.arange(n), knots, gains).astype(np.float32)
        for z in zeros:
            x[z - 100 : z + 300] += (scale * self.shape).astype(np.float32)
        if extra is not None:
            x += extra(n).astype(np.float32)
        averaging = msgspec.structs.replace(self.test.average, sweeps=sweeps, weighted=weighted)
        test = msgspec.structs.replace(self.test, average=averaging, filter=spec or self.test.filter)
        run = EvokedRun(test, [self.channel], self.RATE_HZ, "replay", 16, None)
        block, history = Block(250, 1, self.RATE_HZ), History(16, 4 * self.PERIOD, self.RATE_HZ)
        reports, waiting = [], iter([*zeros, n])
        zero = next(waiting)
        for first in range(0, n - 250, 250):
            block.clear()
            block.first, block.n = first, 250
            block.uv[:250, 0] = x[first : first + 250]
            history.push(first, block.uv, 250)
            reports += run.feed(block, [])
            while zero < first + 250:
                run.expect_trigger(zero)
                zero = next(waiting)
            reports += run.collect(history, first + 250, [])
        reports += run.finish()
        found = [(r, a) for p in reports for r, a in zip(p.readings, p.averages, strict=True) if r.kind == "average"]
        reading, average = found[0]
        return reading, decode_curve(average.curve)[0].astype(np.float64)


def real_ssep(seeds: int = 60) -> Row:
    """300 sweeps per seed through the daemon's averaging; truth: the same markers on the noiseless shape."""
    stream, truth = Stream(), marks_of(Sep().truth())
    good = n20 = amplitude = false = blocks = 0
    block_good = 0
    for seed in range(seeds):
        reading, _ = stream.average(seed, 300, 1.0)
        m: dict[str, Any] = {x.label: x for x in [*reading.markers, *reading.measures]}
        both = False
        if {"N20", "P23"} <= set(m):
            near = abs(m["N20"].latency_ms - truth["N20"].latency_ms) <= 0.3
            size = abs(m["N20-P23"].amplitude_uv / truth["N20-P23"].amplitude_uv - 1.0) <= 0.15
            n20, amplitude, both = n20 + near, amplitude + size, near and size
        good += both
        block_good += both
        if seed % 20 == 19:
            blocks += block_good >= 19
            block_good = 0
        false += stream.average(seed, 300, 0.0)[0].status == "present"
    return Row("real SSEP shape", "N20 within 0.3 ms and N20-P23 within 15 % in 95 %; zero stimulus never present",
               f"N20 {n20 / seeds:.1%}, N20-P23 {amplitude / seeds:.1%}, both {good / seeds:.1%} "
               f"({blocks} of {seeds // 20} groups of 20 with 19 or more); zero stimulus present {false} of {seeds}",
               good >= 0.95 * seeds and false == 0)  # fmt: skip


UNSEEN = (10, 30, 90, 140, 200, 210, 230)  # electrodes (and mirror images) that show N20 and its positivity


def unseen(draws: int = 40) -> Row:
    """Each electrode measured with a shape that was fitted without it; truth: the peak of its own noiseless curve."""
    sep = Sep()
    t, curves = fit_shapes.recording()
    shares = {}
    for electrode in UNSEEN:
        table = fit_shapes.fit(skip=(electrode,))
        shape = WaveShape(table["start_ms"], table["step_ms"], table["width_ms"], tuple(table["window_ms"]),
                          tuple(table["mean"]), tuple(map(tuple, table["component"])))  # fmt: skip
        sep.test = msgspec.structs.replace(sep.test, shape={"median_cortex": shape})
        wave = np.interp(sep.t_ms, t, curves[electrode])
        clean = sep.filtered(wave)
        inside = (sep.t_ms > 15.5) & (sep.t_ms < 32.0)
        sign = 1.0 if clean[(sep.t_ms > 19.0) & (sep.t_ms < 20.0)].mean() < 0.0 else -1.0
        sep.shape = wave * sign * 3.0 / np.ptp(clean[inside])
        truth, hit = marks_of(sep.truth())["N20"].latency_ms, 0
        for seed in range(draws):
            m = marks_of(sep.measure(sep.sweeps(np.random.default_rng(50_000 + seed), 300) + sep.shape))
            hit += "N20" in m and abs(m["N20"].latency_ms - truth) <= 0.3
        shares[electrode] = hit / draws
    middle = float(np.median(list(shares.values())))
    return Row("N20 of unseen shapes", "the row above, one electrode left out of the shape at a time: median >= 90 %",
               f"within 0.3 ms: median {middle:.0%}; " + ", ".join(f"{k} {v:.0%}" for k, v in shares.items()),
               middle >= 0.9)  # fmt: skip


def coverage(draws: int = 1000) -> Row:
    """Amplitudes of 1 to 5 uV, shifted by up to a millisecond, 300 sweeps: do the 95 % intervals hold the truth?"""
    sep = Sep()
    base = sep.shape
    inside = dict.fromkeys(("N20", "P23", "N20-P23"), 0)
    seen = dict.fromkeys(inside, 0)
    for seed in range(draws):
        rng = np.random.default_rng(10_000 + seed)
        scale, shift = rng.uniform(1.0, 5.0) / 3.0, rng.uniform(-1.0, 1.0)
        shape = np.interp(sep.t_ms - shift, sep.t_ms, base) * scale
        sep.shape = shape
        truth = marks_of(sep.truth())
        m = marks_of(sep.measure(sep.sweeps(rng, 300) + shape))
        for name in ("N20", "P23"):
            if name in m and m[name].latency_ci_ms and m[name].status == "present":
                seen[name] += 1
                inside[name] += m[name].latency_ci_ms[0] <= truth[name].latency_ms <= m[name].latency_ci_ms[1]
        if "N20-P23" in m and m["N20-P23"].amplitude_ci_uv:
            lo, hi = m["N20-P23"].amplitude_ci_uv
            seen["N20-P23"] += 1
            inside["N20-P23"] += lo <= truth["N20-P23"].amplitude_uv <= hi
    shares = {k: inside[k] / max(1, seen[k]) for k in inside}
    return Row("artacs-sep intervals", "95 % intervals hold the truth in 92-98 % of 1,000 draws",
               ", ".join(f"{k} {v:.1%} of {seen[k]}" for k, v in shares.items()),
               all(0.92 <= v <= 0.98 for v in shares.values()))  # fmt: skip


def weighting(runs: int = 20) -> Row:
    """Sweeps that plain averaging (reject at 60 uV) and the daemon's weights need for one residual noise."""
    stream = Stream()
    gains = []
    for noisy in (True, False):
        left = {True: 0.0, False: 0.0}
        for seed in range(runs):
            rng = np.random.default_rng(20_000 + seed)
            loud = np.where(rng.random(200) < 0.25, rng.uniform(3.0, 10.0, 200), 1.0)
            for weighted in left:
                _, curve = stream.average(seed, 200, 0.0, loud if noisy else None, weighted)
                left[weighted] += float(np.mean(curve[120:] ** 2))
        gains.append(left[False] / left[True])
    return Row("artacs-sep weighting", "<= 1/1.5 of the sweeps when a quarter is 3-10 x noisier, <= 1.02 x in even",
               f"noisy: 1/{gains[0]:.2f}; even: {1 / gains[1]:.3f} x",
               gains[0] >= 1.5 and 1 / gains[1] <= 1.02)  # fmt: skip
