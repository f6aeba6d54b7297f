"""How well a template fits a curve at each lag: normalised cross-correlation.

In: finished curves float32[channels, n] and templates of m samples.  Out: float32[channels, n - m + 1], -1..1.
Always: offset and scale of curve and template do not matter; a flat stretch gives 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ionmd.dsp.layout import F32, curves


class TemplateMatch:
    """`templates` [m] for all channels or [channels, m], bound once for curves of n samples.

    Raises ValueError for a flat template or one longer than the curves.
    """

    def __init__(self, templates: npt.ArrayLike, channels: int, n: int) -> None:
        t = np.atleast_2d(np.asarray(templates, np.float64))
        if t.ndim != 2 or len(t) not in (1, channels):
            raise ValueError(f"templates of shape {t.shape} came, [m] or [{channels}, m] was expected")
        self.channels, self.n, self.m = channels, n, t.shape[1]
        self._templates = normalised(t)
        self._kernel = curves.Match(self._templates, channels, len(t) > 1, self.m, n)

    def process(self, x: F32, out: F32 | None = None) -> F32:
        """x float32[channels, n] -> `out`, made when it is None."""
        if out is None:
            out = np.empty((self.channels, self.n - self.m + 1), np.float32)
        self._kernel.process(x, out)
        return out


def normalised(templates: npt.NDArray[np.float64]) -> F32:
    """Zero mean and unit energy, float32[templates, m]."""
    t = templates - templates.mean(axis=1, keepdims=True)
    energy = np.sqrt((t * t).sum(axis=1, keepdims=True))
    if not bool(np.isfinite(energy).all() and (energy > 0).all()):
        raise ValueError("a flat template or one with nan came, a shape was expected")
    return np.ascontiguousarray(t / energy, np.float32)
