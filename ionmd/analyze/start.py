"""When the stimulus really began, from a column that shows it (a microphone, a photodiode, a stimulus copy).

Pure.  In: the column and a rule, `envelope P %` or `threshold X`.  Out: time zero in ms on the file's axis, or None
when the column does not show it clearly.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ionmd.errors import ConfigError

F64 = npt.NDArray[np.float64]
ENVELOPE_MS = 0.5  # each side: a 1 kHz tone has a smooth envelope
CLEAR = 4.0  # the peak of the envelope over its median: less, and the stimulus is lost in the column's own noise


def stimulus_onset_ms(column: F64, rule: str, t0_ms: float, dt_ms: float) -> float | None:
    """envelope P %   the envelope first reaches P % of its largest value
    threshold X    |column - its median| first reaches X
    Raises ConfigError for another rule."""
    x = np.abs(column - float(np.median(column)))
    kind, _, amount = rule.partition(" ")
    if kind == "threshold":
        above = np.flatnonzero(x >= float(amount))
        return t0_ms + int(above[0]) * dt_ms if len(above) else None
    if kind != "envelope":
        raise ConfigError(f"onset_rule {rule!r} came, 'envelope P %' or 'threshold X' was expected")
    share = float(amount.rstrip("% ")) / 100.0
    envelope = running_max(x, max(1, round(ENVELOPE_MS / dt_ms)))
    top = float(envelope.max())
    if not top > CLEAR * float(np.median(envelope)):
        return None
    # the running maximum looks ahead by its half-width: the first sample that itself is that large is the onset
    above = np.flatnonzero(x >= share * top)
    return t0_ms + int(above[0]) * dt_ms


def running_max(x: F64, half: int) -> F64:
    """Largest of x[i - half .. i + half]."""
    wide = np.concatenate([np.full(half, x[0]), x, np.full(half, x[-1])])
    out: F64 = np.lib.stride_tricks.sliding_window_view(wide, 2 * half + 1).max(axis=1)
    return out
