"""Chance that belongs to a sample: the same seed, sample and purpose give the same number, in any order of asking."""

from __future__ import annotations

import math

import numpy as np


class Chance:
    def __init__(self, seed: int, rate_hz: float) -> None:
        rng = np.random.Generator(np.random.PCG64([seed, 23]))
        self._rate = rate_hz
        self._normal = rng.standard_normal(1 << 16)
        self._salt = int(rng.integers(1 << 30))
        self._phase = rng.uniform(0, 2 * np.pi, (32, 3))

    def z(self, sample: int, purpose: int) -> float:
        """A standard normal number."""
        h = (sample * 0x9E3779B1 + purpose * 0x85EBCA77 + self._salt) & 0xFFFFFFFF
        h ^= h >> 15
        h = (h * 0x2C1B3C6D) & 0xFFFFFFFF
        return float(self._normal[(h ^ (h >> 12)) & 0xFFFF])

    def spread(self, sample: int, purpose: int, cv: float) -> float:
        """A log-normal factor of mean 1 and that coefficient of variation."""
        variance = math.log1p(cv * cv)
        return math.exp(math.sqrt(variance) * self.z(sample, purpose) - 0.5 * variance)

    def wander(self, sample: int, which: int, deviation: float) -> float:
        """Slow wandering of an amplitude, minutes long; `deviation` is one standard deviation."""
        t = sample / self._rate
        p = self._phase[which]
        x = math.sin(t / 71.0 + p[0]) + math.sin(t / 203.0 + p[1]) + math.sin(t / 640.0 + p[2])
        return math.exp(deviation * x / 1.22)
