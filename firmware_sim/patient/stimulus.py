"""What a pulse is to the tissue: its facts as the firmware measured them, and how strong they are."""

from __future__ import annotations

import math
from typing import Protocol

CHRONAXIE_US = 200.0  # large fibres through skin


class PulseLike(Protocol):
    """firmware_sim.core.FwPulse, or anything with these facts; `delivered` in uA, or mV when `volts`."""

    sample: int
    output: int
    delivered: int
    volts: bool
    width_us: int
    polarity: int
    biphasic: bool


def phi(x: float) -> float:
    """Normal distribution function: the share of units whose threshold lies below."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def strength(width_us: int, reference_us: float, chronaxie_us: float = CHRONAXIE_US) -> float:
    """How strong a pulse of that width is against one of the reference width (Lapicque-Weiss)."""
    w = max(1.0, float(width_us))
    return (w / (w + chronaxie_us)) / (reference_us / (reference_us + chronaxie_us))
