"""The mains, followed in the signal itself and taken off sweeps before they are averaged.

In: every row of the derivations as it comes, and which stretches are no rest (stimuli, responses, artefacts).  Out: a
sweep without mains, and how much that was.  Always: what is taken off was learnt outside responses, so no response is
in it, whatever its rate; without enough rest nothing is taken off and it says so.  Latencies and shapes stay as they
are, where a notch rings.
How: rows are averaged down to about 2000/s; the last second is fitted by least squares with the harmonics of a
frequency that each fit corrects (ext/dsp/mains.c).  Source and measured effect: docs/sources.md#mains-subtraction.
"""

from __future__ import annotations

import math

import numpy as np

from ionmd.dsp.layout import F32, F64, curves

WINDOW_S = 1.0
RATE_HZ = 2000.0  # of what is fitted: four times the highest harmonic
HIGHEST_HZ = 500.0
LEAST_REST = 0.25  # of the window
FOLLOW = 0.3  # share of its newest error that the frequency takes up: some three fits to settle
SURE = 1.5  # times the power that noise gives a harmonic; it is not white
OFF = 0.02  # the mains is not looked for further away than this share of its frequency


class MainsTrack:
    """columns  derivations; rate_hz  of the rows; mains_hz  50 or 60, its harmonics up to `highest_hz` are followed."""

    def __init__(self, columns: int, rate_hz: float, mains_hz: float, highest_hz: float = HIGHEST_HZ) -> None:
        top = min(highest_hz, HIGHEST_HZ, 0.4 * rate_hz)
        if not (1.0 <= mains_hz <= top):
            raise ValueError(f"mains of {mains_hz:g} Hz came, 1 to {top:g} Hz was expected at {rate_hz:g} samples/s")
        self.columns, self.rate_hz, self.mains_hz = columns, rate_hz, mains_hz
        self.hz = mains_hz  # as followed
        self.harmonics = min(int(curves.MOST_HARMONICS), int(top / mains_hz))
        self._step = max(1, round(rate_hz / RATE_HZ))
        self._size = round(WINDOW_S * rate_hz / self._step)
        self._keep = 2 * self._size
        self._means = np.zeros((self._keep, columns))  # ring: bin b of the case is row b % keep
        self._rest = np.zeros(self._keep, np.uint8)
        self._bins = 0  # whole bins so far: the next one has this number
        self._first = 0  # bins before it are not in the ring
        self._sum = np.zeros(columns)
        self._in_bin = 0
        self._hidden: list[tuple[int, int]] = []
        self._coef = np.zeros((2 * self.harmonics + 3, columns))
        self._left = np.zeros(columns)

    def forget(self) -> None:
        """The stream breaks here: what follows is learnt anew, but for the frequency."""
        self._first = self._bins = self._in_bin = 0
        self._sum[:] = 0.0
        self._hidden.clear()

    def hide(self, start: int, stop: int) -> None:
        """Samples [start, stop) are no rest; may lie ahead."""
        self._hidden.append((start, stop))
        lo, hi = max(self._first, start // self._step), min(self._bins, -(-stop // self._step))
        for b in range(lo, hi):
            self._rest[b % self._keep] = 0
        newest = self._bins * self._step
        self._hidden = [h for h in self._hidden if h[1] > newest]

    def feed(self, first: int, rows: F32, n: int) -> None:
        """rows float32[n, >= columns], the first is sample `first`."""
        if self._bins == 0 and self._in_bin == 0:  # begin with a whole bin
            skip = -first % self._step
            self._first = self._bins = (first + skip) // self._step
            first, rows, n = first + skip, rows[skip:], n - skip
        at = 0
        while at < n:
            take = min(self._step - self._in_bin, n - at)
            whole = (n - at) // self._step if self._in_bin == 0 else 0
            if whole:
                part = rows[at : at + whole * self._step, : self.columns].astype(np.float64)
                self._put(np.add.reduce(part.reshape(whole, self._step, self.columns), axis=1) / self._step)
                at += whole * self._step
                continue
            self._sum += np.add.reduce(rows[at : at + take, : self.columns].astype(np.float64), axis=0)
            self._in_bin += take
            at += take
            if self._in_bin == self._step:
                self._put(self._sum[None] / self._step)
                self._sum[:] = 0.0
                self._in_bin = 0

    def _put(self, means: F64) -> None:
        for mean in means:
            row = self._bins % self._keep
            self._means[row] = mean
            start, stop = self._bins * self._step, (self._bins + 1) * self._step
            self._rest[row] = not any(a < stop and start < b for a, b in self._hidden)
            self._bins += 1
        self._first = max(self._first, self._bins - self._keep)

    def remove(self, sweep: F32, first: int, n: int) -> F64 | None:
        """Take the mains off sweep float32[n, stride], whose row 0 is sample `first`.

        Gives the mean square of what went, uV^2 float64[column]; None: there was too little rest to learn it from."""
        stop = min(self._bins, -(-(first + n) // self._step))
        begin = stop - self._size
        if begin < self._first:
            return None
        rows = np.arange(begin, stop) % self._keep
        rest = np.ascontiguousarray(self._rest[rows])
        if not int(np.add.reduce(rest, dtype=np.int64)) >= LEAST_REST * self._size:
            return None
        angle = 2.0 * math.pi * self.hz * self._step / self.rate_hz
        means = np.ascontiguousarray(self._means[rows])
        curves.mains_fit(
            means, rest, self._size, self.columns, self.columns, angle,
            self.harmonics, self._coef, self._left,
        )
        coef = self._coef[1:-2] * self._trusted(int(np.add.reduce(rest, dtype=np.int64)))
        self._follow()
        # bins are means: the gain of a mean over `step` samples, and its middle
        for k in range(self.harmonics):
            half = math.pi * (k + 1) * self.hz / self.rate_hz
            coef[2 * k : 2 * k + 2] *= self._step * math.sin(half) / math.sin(self._step * half)
        middle = (begin + 0.5 * (self._size - 1)) * self._step + 0.5 * (self._step - 1)
        w = 2.0 * math.pi * self.hz / self.rate_hz
        removed = np.zeros(self.columns)
        curves.mains_subtract(
            sweep, n, sweep.shape[1], self.columns, (first - middle) * w, w, self.harmonics, coef, removed
        )
        return removed / max(1, n)

    def _trusted(self, used: int) -> F64:
        """float64[2 harmonics, column]: how much of each harmonic stands above what noise alone would give it (James
        and Stein's factor): one that is not there is not taken off."""
        pairs = self._coef[1:-2].reshape(self.harmonics, 2, self.columns)
        size = np.add.reduce(pairs * pairs, axis=1)
        chance = SURE * 4.0 * self._left / used
        share = np.maximum(0.0, 1.0 - np.divide(chance, size, out=np.ones_like(size), where=size > 0.0))
        return np.repeat(share, 2, axis=0)

    def _follow(self) -> None:
        """Correct the frequency by what the fit says about its error, all derivations together."""
        a, b, c, d = self._coef[1], self._coef[2], self._coef[-2], self._coef[-1]
        power = float(np.add.reduce(a * a + b * b))
        if not power > 0.0:
            return
        error = float(np.add.reduce(c * b - d * a)) / power  # radians over half the window
        hz = self.hz + FOLLOW * error / (math.pi * WINDOW_S)
        self.hz = min(max(hz, self.mains_hz * (1.0 - OFF)), self.mains_hz * (1.0 + OFF))
