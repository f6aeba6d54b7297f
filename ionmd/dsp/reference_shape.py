"""Numpy twins of ext/dsp/shape.c: a known shape fitted to a curve in coloured noise, by the book.

Never used by the daemon: tests hold the kernels against these.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def at(curves: F64, first: float, step: float, count: int) -> F64:
    """float64[curve, place] by cubic convolution, zero outside."""
    places = first + step * np.arange(count)
    out = np.zeros((len(curves), count))
    for i, place in enumerate(places):
        if 1.0 <= place < curves.shape[1] - 2:
            j = int(place)
            u = place - j
            a, b, c, d = curves[:, j - 1], curves[:, j], curves[:, j + 1], curves[:, j + 2]
            out[:, i] = (
                b + 0.5 * u * (c - a) + u * u * (a - 2.5 * b + 2.0 * c - 0.5 * d)
                + u**3 * (1.5 * (b - c) + 0.5 * (d - a))
            )  # fmt: skip
    return out


def _solve(covariance: F64, design: F64, held: int, prior: float) -> tuple[F64, F64]:
    """Inverse of the normal equations with their prior, and design^T covariance^-1."""
    through = design.T @ np.linalg.inv(covariance)
    a = through @ design
    a[range(1, held + 1), range(1, held + 1)] += 1.0 / prior**2
    inverse: F64 = np.linalg.inv(a).astype(np.float64)
    return inverse, through


def search(curves: F64, covariance: F64, y: F64, firsts: F64, step: float, prior: float) -> tuple[int, F64]:
    """The shift whose fit of the curves and a level explains most, and its coefficients."""
    best: tuple[float, int, F64] = (-np.inf, 0, np.zeros(0))
    for s, first in enumerate(firsts):
        design = np.column_stack([at(curves, float(first), step, len(y)).T, np.ones(len(y))])
        inverse, through = _solve(covariance, design, len(curves) - 1, prior)
        c = inverse @ (through @ y)
        best = max(best, (float(through @ y @ c), s, c), key=lambda found: found[0])
    return best[1], best[2]


def cover(covariance: F64, design: F64, held: int, prior: float) -> tuple[F64, F64]:
    """Covariance of the coefficients float64[w, w] and their gain from the noise float64[w, point]."""
    inverse, through = _solve(covariance, design, held, prior)
    return inverse, inverse @ through
