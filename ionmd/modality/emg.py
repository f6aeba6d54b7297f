"""Free-running EMG: RMS per window and bursts, on a stream cut anywhere.

In: causally filtered samples float32[n, channel], in blocks of any size.  Out: Window per `window_ms`, and Burst
when one ends (and its start as soon as it is certain).  Always: cutting the stream elsewhere changes nothing; the quiet
level follows the quiet, never a burst.  Outliers of a converter or a file are gone by then (modality/despike.py).

The envelope is a running RMS over 25 ms.  A burst is opened when it exceeds both `burst_sd` times the quiet level's RMS
and `burst_min_uv`, and closed when it has stayed below half of that for 100 ms; its edges are those of the 5 ms steps
that were themselves that loud, since a strong burst holds the envelope up for 25 ms more.
Numbers: docs/sources.md#emg-free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ionmd.testdef import FreeEmg

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

ENVELOPE_MS = 25.0
HOLD_MS = 100.0  # a pause shorter than this does not end a burst
RELEASE = 0.5
QUIET_WINDOWS = 100  # the quiet level is a low quantile of this many newest windows
QUIET_QUANTILE = 0.3


@dataclass(frozen=True)
class Burst:
    """[start, stop) in samples of the stream; `stop` None while it lasts."""

    channel: int
    start: int
    stop: int | None
    peak_uv: float
    rms_uv: float


@dataclass(frozen=True)
class Window:
    """One window of all channels: arrays [channel]."""

    first: int
    n: int
    rms_uv: F64
    peak_uv: F64
    active: npt.NDArray[np.bool_]
    quiet_uv: F64


class EmgStream:
    """Bursts and windows of `channels` channels.

    quiet_uv   the quiet level to begin with, e.g. that of the amplifier; None: learned from the first windows
    """

    def __init__(self, rule: FreeEmg, channels: int, rate_hz: float, quiet_uv: float | None = None) -> None:
        self.rule, self.channels, self.rate_hz = rule, channels, rate_hz
        self._hop = max(1, round(ENVELOPE_MS / 5.0 * rate_hz / 1000.0))  # the envelope is known every 5 ms
        self._hops_in_envelope = max(1, round(ENVELOPE_MS * rate_hz / 1000.0 / self._hop))
        self._window_hops = max(1, round(rule.window_ms * rate_hz / 1000.0 / self._hop))
        self._hold_hops = max(1, round(HOLD_MS * rate_hz / 1000.0 / self._hop))
        self._min_hops = max(1, math.ceil(rule.burst_min_ms * rate_hz / 1000.0 / self._hop))
        self._rest: F64 = np.zeros((0, channels))
        self._at = 0  # stream sample of _rest row 0
        self._power: list[F64] = []  # of the newest hops
        self._window: list[tuple[F64, F64]] = []
        self._window_first = 0
        self._quiet: list[list[float]] = [[] if quiet_uv is None else [quiet_uv] for _ in range(channels)]
        self._on: list[_Open | None] = [None] * channels

    def feed(self, samples_uv: npt.NDArray[np.floating]) -> tuple[list[Window], list[Burst]]:
        """The next samples, [n, channel]; whatever became certain with them."""
        self._rest = np.concatenate([self._rest, np.asarray(samples_uv, np.float64)])
        windows: list[Window] = []
        bursts: list[Burst] = []
        hop, used = self._hop, 0
        while used + hop <= len(self._rest):
            part = self._rest[used : used + hop]
            power = np.add.reduce(part * part, axis=0) / hop
            peak = np.abs(part).max(axis=0)
            self._power = [*self._power, power][-self._hops_in_envelope :]
            envelope = np.sqrt(sum(self._power[1:], start=self._power[0]) / len(self._power))
            used += hop
            end = self._at + used
            for c in range(self.channels):
                self._step(c, float(envelope[c]), float(peak[c]), float(power[c]), end, bursts)
            self._window.append((power, peak))
            if len(self._window) == self._window_hops:
                windows.append(self._close(end))
        self._rest = self._rest[used:]
        self._at += used
        return windows, bursts

    def skip(self, n: int) -> None:
        """`n` samples that are no signal: windows and envelope start afresh after them, the quiet level stays."""
        self._at += len(self._rest) + n
        self._rest = np.zeros((0, self.channels))
        self._power, self._window, self._window_first = [], [], self._at
        self._on = [None] * self.channels

    def quiet_uv(self, channel: int) -> float:
        """RMS of the quiet: nan until anything is known."""
        known = sorted(self._quiet[channel])
        return known[int(QUIET_QUANTILE * (len(known) - 1))] if known else math.nan

    def threshold_uv(self, channel: int) -> float:
        quiet = self.quiet_uv(channel)
        return math.inf if math.isnan(quiet) else max(self.rule.burst_sd * quiet, self.rule.burst_min_uv)

    def _step(self, c: int, envelope: float, peak: float, power: float, end: int, bursts: list[Burst]) -> None:
        limit = self.threshold_uv(c)
        state = self._on[c]
        if state is None:
            if envelope > limit:
                loud = [float(p[c]) > limit * limit for p in self._power]
                start = end - self._hop * (len(loud) - (loud.index(True) if True in loud else 0))
                self._on[c] = _Open(start, end, end, peak, power, 1)
            return
        state.peak, state.power, state.hops = max(state.peak, peak), state.power + power, state.hops + 1
        if power > (RELEASE * limit) ** 2:
            state.last = end
        if envelope > RELEASE * limit:
            state.held = end
            if not state.told and (state.last - state.start) // self._hop >= self._min_hops:
                state.told = True
                bursts.append(state.burst(c, None))
        elif end - state.held >= self._hold_hops * self._hop:
            if state.told:
                bursts.append(state.burst(c, state.last))
            self._on[c] = None

    def _close(self, end: int) -> Window:
        powers = [w[0] for w in self._window]
        rms = np.sqrt(sum(powers[1:], start=powers[0]) / len(powers))
        peak = np.maximum.reduce([w[1] for w in self._window])
        active = np.array([s is not None and s.told for s in self._on])
        for c in range(self.channels):
            if not active[c] and math.isfinite(float(rms[c])):
                self._quiet[c] = [*self._quiet[c], float(rms[c])][-QUIET_WINDOWS:]
        out = Window(
            self._window_first, end - self._window_first, rms, peak, active,
            np.array([self.quiet_uv(c) for c in range(self.channels)]),
        )  # fmt: skip
        self._window, self._window_first = [], end
        return out

    def finish(self) -> list[Burst]:
        """Bursts that still last, ended at the last sample that was loud."""
        out = [s.burst(c, s.last) for c, s in enumerate(self._on) if s is not None and s.told]
        self._on = [None] * self.channels
        return out


@dataclass
class _Open:
    start: int
    last: int  # end of the newest step that was loud itself
    held: int  # end of the newest step at which the envelope was
    peak: float
    power: float
    hops: int
    told: bool = False

    def burst(self, channel: int, stop: int | None) -> Burst:
        return Burst(channel, self.start, stop, self.peak, math.sqrt(self.power / self.hops))
