"""uV, ms, mA, Hz: conversions that are written once.

Ranges are refused as `if not (lo <= x <= hi)`: nan fails every comparison, so it is refused too.
"""

from __future__ import annotations

import math

from ionmd.errors import ConfigError


def ms_to_samples(ms: float, rate_hz: float) -> int:
    """Nearest whole number of samples; halves go up (no banker's rounding: the edge must not depend on parity)."""
    return math.floor(ms * rate_hz / 1000.0 + 0.5)


def samples_to_ms(samples: int, rate_hz: float) -> float:
    return samples * 1000.0 / rate_hz


def ma_to_ua(ma: float) -> int:
    """Device units of current; the device works on whole microamperes."""
    return math.floor(ma * 1000.0 + 0.5)


def v_to_mv(v: float) -> int:
    return math.floor(v * 1000.0 + 0.5)


def require_range(name: str, value: object, lo: float, hi: float, unit: str = "") -> float:
    """`value` as float, or ConfigError saying what came and what was expected.  Booleans, nan and inf are refused."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (lo <= value <= hi):
        raise ConfigError(f"{name}: {value!r} came, a number from {lo:g} to {hi:g} {unit}".rstrip() + " was expected")
    return float(value)
