"""The epoch of a test on the time axis of a file: blanked, filtered, and where it is quiet.

In: raw columns in uV.  Out: curves from `t0_ms` in steps of `dt_ms`.  Always: the same filter as the daemon's.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ionmd.analyze.table import Table
from ionmd.dsp.design import design
from ionmd.dsp.zerophase import filter_average, pad_length
from ionmd.errors import ConfigError
from ionmd.modality.evoked import response_window
from ionmd.testdef import TestDefinition

F64 = npt.NDArray[np.float64]
MIN_NOISE_SAMPLES = 24


class Cut:
    """The epoch of a definition on the time axis of a file, and the filter at its rate."""

    def __init__(self, table: Table, definition: TestDefinition, zero_ms: float) -> None:
        epoch = definition.epoch
        if epoch is None:
            raise ConfigError(f"test {definition.test.id}: [epoch] is missing, start_ms and stop_ms were expected")
        self.definition, self.dt_ms = definition, table.dt_ms
        first = math.ceil((epoch.start_ms + zero_ms - table.t0_ms) / table.dt_ms - 1e-6)
        stop = math.ceil((epoch.stop_ms + zero_ms - table.t0_ms) / table.dt_ms - 1e-6)
        self.first, self.stop = max(0, first), min(table.samples, max(stop, 0))
        if self.stop - self.first < 8:
            raise ConfigError(
                f"{table.file}: epoch {epoch.start_ms:g} to {epoch.stop_ms:g} ms came, the file has "
                f"{table.t0_ms - zero_ms:g} to {table.t0_ms + table.dt_ms * (table.samples - 1) - zero_ms:g} ms"
            )
        self.samples = table.samples
        self.t0_ms = table.t0_ms + self.first * table.dt_ms - zero_ms
        self.sos = design(definition.filter, 1000.0 / table.dt_ms)
        base = epoch.baseline_ms or (epoch.start_ms, min(0.0, self._blank_start))
        self.baseline = self.column(base[0]), self.column(base[1])

    @property
    def _blank_start(self) -> float:
        blank = self.definition.blank
        return blank.start_ms if blank.method != "none" else 0.0

    @property
    def n(self) -> int:
        return self.stop - self.first

    def column(self, ms: float) -> int:
        return min(self.n, max(0, math.floor((ms - self.t0_ms) / self.dt_ms + 0.5)))

    def curve(self, raw: F64) -> F64:
        """The epoch: blanked, filtered, referred to its pre-stimulus mean when it has one."""
        x = raw[self.first : self.stop].copy()
        blank = self.definition.blank
        if blank.method != "none":
            a, b = self.column(blank.start_ms), self.column(blank.stop_ms)
            if b > a:
                before = x[a - 1] if a > 0 else x[min(b, self.n - 1)]
                after = x[b] if blank.method == "linear" and b < self.n else before
                x[a:b] = before + (after - before) * (np.arange(1, b - a + 1) / (b - a + 1))
        x = self.filtered(x, self.definition.filter.span_ms)
        a, b = self.baseline
        if b > a:
            x -= float(np.add.reduce(x[a:b])) / (b - a)
        return x

    def filtered(self, x: F64, span_ms: tuple[float, float] | None = None) -> F64:
        if not len(self.sos):
            return x
        span = (0, len(x))
        if span_ms is not None:
            span = (self.column(span_ms[0]), self.column(span_ms[1]))
        if span[1] - span[0] <= pad_length(self.sos):
            raise ConfigError(
                f"test {self.definition.test.id}: filter over {span[1] - span[0]} samples came, more than "
                f"{pad_length(self.sos)} were expected: lengthen the epoch"
            )
        return filter_average(self.sos, x, self.definition.filter.zero_phase, span)

    def quiet(self, raw: F64, curve: F64, derivation: str) -> list[F64]:
        """Filtered stretches without response, the most trustworthy kind that is long enough."""
        rule = self.definition.presence.noise_ms
        if rule is not None:
            offset = self.first - (self.t0_ms) / self.dt_ms
            a = max(0, math.floor(rule[0] / self.dt_ms + offset + 0.5))
            b = min(len(raw), math.floor(rule[1] / self.dt_ms + offset + 0.5))
            if b - a <= max(MIN_NOISE_SAMPLES, pad_length(self.sos)):
                raise ConfigError(f"presence.noise_ms {list(rule)} came, a stretch inside the file was expected")
            inside = self.first <= a and b <= self.stop
            return [curve[a - self.first : b - self.first] if inside else self.filtered(raw[a:b].copy())]
        least = max(MIN_NOISE_SAMPLES, pad_length(self.sos) + 1)
        a, b = self.baseline
        if b - a >= least:
            return [curve[a:b]]
        window = response_window(self.definition, derivation)
        found = [curve[: self.column(window[0])], curve[self.column(window[1]) :], *self.beyond(raw)]
        return [s for s in found if len(s) >= MIN_NOISE_SAMPLES]

    def beyond(self, raw: F64) -> list[F64]:
        """What the file holds behind the epoch, in stretches of the epoch's length, filtered like it."""
        least = max(MIN_NOISE_SAMPLES, pad_length(self.sos) + 1, self.n // 4)
        rest = raw[self.stop :]
        parts = [rest[k : k + self.n] for k in range(0, len(rest), self.n)]
        return [self.filtered(p.copy()) for p in parts if len(p) >= least]
