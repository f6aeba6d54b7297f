"""Rates that do not keep the mains, and slots that do not spoil each other's sweeps.

Pure.  A periodic disturbance of f Hz has the phase 2 pi f n / r in sweep n of an average triggered at r/s.  Averaging N
sweeps leaves |sin(pi N x) / (N sin(pi x))| of it, x the fractional part of f / r.  Mains frequency wanders, so the
nulls of that are not to be relied on and the bound 1 / (N |sin(pi x)|) is taken instead.  The rule is for the rate of
each average after interleaving, because that is the rate its sweeps have: 4.79/s alternated between two sides is
2.395/s per side.  Source: docs/sources.md#mains-rule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ionmd.errors import ConfigError

# Closer than this to a whole number of cycles per sweep, the mains beats so slowly through the sweeps that a short
# sub-average, or one with rejected sweeps, keeps it whatever the whole average does.
GUARD = 0.15
MAX_HARMONIC = 10  # above the tenth the mains of a theatre lies below the noise of a sweep (from memory)


@dataclass(frozen=True)
class Slot:
    """One test in the interleaved cycle: its pulses come at offset_ms + k * cycle_ms."""

    test: str
    offset_ms: float


@dataclass(frozen=True)
class Interleaving:
    cycle_ms: float
    rate_hz: float  # of each test
    slots: tuple[Slot, ...]


def residual(rate_hz: float, disturbance_hz: float, sweeps: int) -> float:
    """Upper bound of what `sweeps` sweeps leave of a sine, as a fraction of its amplitude."""
    x = disturbance_hz / rate_hz
    sine = abs(math.sin(math.pi * (x - math.floor(x))))
    return 1.0 if sweeps * sine <= 1.0 else 1.0 / (sweeps * sine)


def mains_rule(
    rate_hz: float, mains_hz: float, sweeps: int, band_hz: tuple[float, float] = (0.0, 500.0)
) -> tuple[bool, float, float]:
    """Does an average of `sweeps` sweeps at `rate_hz` (its own trigger rate) get rid of the mains?

    Returns (ok, worst residual of any harmonic in `band_hz`, a nearby rate that passes; `rate_hz` itself when ok).
    ok: every harmonic is reduced at least as well as noise is, in the whole average (1/sqrt(N)) and in its odd and even
    halves (1/sqrt(N/2)), and the fundamental is at least GUARD away from a whole number of cycles.
    Raises ConfigError for a rate, mains or count out of range.
    """
    if isinstance(rate_hz, bool) or not (0.01 <= rate_hz <= 200.0):
        raise ConfigError(f"rate {rate_hz!r} /s came, 0.01 to 200 was expected")
    if isinstance(mains_hz, bool) or not (10.0 <= mains_hz <= 400.0):
        raise ConfigError(f"mains {mains_hz!r} Hz came, 10 to 400 was expected")
    if isinstance(sweeps, bool) or not (1 <= sweeps <= 1_000_000):
        raise ConfigError(f"{sweeps!r} sweeps came, 1 to 1000000 was expected")
    ok, worst = _judge(rate_hz, mains_hz, sweeps, band_hz[1])
    if ok:
        return True, worst, rate_hz
    return False, worst, suggest(rate_hz, (mains_hz,), sweeps, band_hz)


def _judge(rate_hz: float, mains_hz: float, sweeps: int, high_hz: float) -> tuple[bool, float]:
    half = max(1, sweeps // 2)
    x = mains_hz / rate_hz
    ok = abs(x - math.floor(x + 0.5)) >= GUARD
    worst = 0.0
    for k in range(1, max(1, min(MAX_HARMONIC, int(high_hz / mains_hz))) + 1):
        whole = residual(rate_hz, k * mains_hz, sweeps)
        halves = residual(rate_hz / 2.0, k * mains_hz, half)
        worst = max(worst, whole, halves)
        if sweeps > 1 and (whole * math.sqrt(sweeps) > 1.0 or halves * math.sqrt(half) > 1.0):
            ok = False
    return ok or sweeps == 1, worst


def suggest(
    rate_hz: float, mains_hz: tuple[float, ...], sweeps: int, band_hz: tuple[float, float] = (0.0, 500.0),
    highest_hz: float = math.inf,
) -> float:  # fmt: skip
    """The rate nearest to `rate_hz`, in steps of 0.1 %, that passes for every mains given; 0.0: none within 30 %."""
    for step in range(301):
        for sign in (-1, 1):
            candidate = round(rate_hz * (1.0 + sign * step / 1000.0), 4)
            if candidate <= highest_hz and all(_judge(candidate, m, sweeps, band_hz[1])[0] for m in mains_hz):
                return candidate
    return 0.0


def interleave(
    windows_ms: Mapping[str, tuple[float, float]], rate_hz: float, mains_hz: float = 50.0, sweeps: int = 300,
    margin_ms: float = 1.0,
) -> Interleaving:  # fmt: skip
    """Slots of tests that take turns, each at `rate_hz` or the nearest rate that fits and passes the mains rule.

    windows_ms  test -> (start, stop) of its sweep around its pulse, in the order of the turns
    No pulse of another test lies inside a sweep, `margin_ms` kept on both sides; what is left of the cycle is shared
    out evenly, so that a rate change of one test would not crowd another.
    Raises ConfigError when nothing is to interleave or no rate within 30 % fits.
    """
    if not windows_ms:
        raise ConfigError("no test to interleave came, at least one was expected")
    for name, (start, stop) in windows_ms.items():
        if not (-10000.0 <= start <= 0.0 <= stop <= 10000.0):
            raise ConfigError(f"{name}: sweep {start} to {stop} ms came, one around time zero was expected")
    names = list(windows_ms)
    after = [
        max(windows_ms[a][1], -windows_ms[b][0]) + margin_ms
        for a, b in zip(names, names[1:] + names[:1], strict=True)
    ]
    needed_ms = sum(after)
    # A sweep must not meet a pulse of the turn after next either: the gap to every later test is a sum of gaps.
    highest = 1000.0 / needed_ms
    chosen = suggest(min(rate_hz, highest), (mains_hz,), sweeps, highest_hz=highest)
    if chosen <= 0.0:
        raise ConfigError(
            f"{len(names)} tests need {needed_ms:g} ms per turn: no rate near {rate_hz:g}/s fits and avoids "
            f"{mains_hz:g} Hz; shorten the sweeps or interleave fewer tests"
        )
    cycle_ms = 1000.0 / chosen
    slack = (cycle_ms - needed_ms) / len(names)
    slots = []
    offset = 0.0
    for name, gap in zip(names, after, strict=True):
        slots.append(Slot(name, offset))
        offset += gap + slack
    return Interleaving(cycle_ms, chosen, _verified(slots, windows_ms, cycle_ms))


def _verified(
    slots: list[Slot], windows_ms: Mapping[str, tuple[float, float]], cycle_ms: float
) -> tuple[Slot, ...]:
    """The slots, verified: no other test's pulse inside any sweep, over the neighbouring cycles too."""
    for a in slots:
        start, stop = windows_ms[a.test]
        for b in slots:
            for turn in (-1, 0, 1):
                at = b.offset_ms - a.offset_ms + turn * cycle_ms
                if (a is not b or turn) and start <= at <= stop:
                    raise ConfigError(f"{a.test}: its sweep would contain a pulse of {b.test}; shorten the sweeps")
    return tuple(slots)
