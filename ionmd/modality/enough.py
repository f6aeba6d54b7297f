"""How many sweeps does a test need?  From the interval it asks for and the interval it has.

Pure.  In: what was measured and of how many sweeps.  Out: the sweeps that an average needs until its 95 % intervals are
as narrow as [average] asks; noise falls with the square root of the sweeps, so the need is known long before it is met.
Source: docs/sources.md#sweeps-needed.
"""

from __future__ import annotations

import math

from ionmd.modality.evoked import Measured
from ionmd.testdef import TestDefinition


def sweeps_needed(definition: TestDefinition, measured: Measured, sweeps: int) -> int | None:
    """Sweeps until `enough_share` (amplitude) and `enough_ms` (latency) hold; None when neither is asked for or the
    response cannot be measured.  Enough is there when this is no more than `sweeps`."""
    asked = definition.average
    if sweeps < 1 or not (asked.enough_share > 0.0 or asked.enough_ms > 0.0):
        return None
    worst = 0.0
    if asked.enough_share > 0.0:
        sizes = [m for m in measured.measures if m.amplitude_ci_uv is not None and m.amplitude_uv]
        if not sizes:
            return None
        size = sizes[0]
        assert size.amplitude_ci_uv is not None and size.amplitude_uv  # noqa: S101 - chosen so
        # the upper half: the lower one may be cut off at zero
        worst = max(worst, (size.amplitude_ci_uv[1] - size.amplitude_uv) / size.amplitude_uv / asked.enough_share)
    if asked.enough_ms > 0.0:
        widths = [m.latency_ci_ms[1] - m.latency_ci_ms[0] for m in measured.markers if m.latency_ci_ms is not None]
        if not widths:
            return None
        worst = max(worst, 0.5 * widths[0] / asked.enough_ms)
    return min(10**6, max(1, math.ceil(sweeps * worst * worst)))
