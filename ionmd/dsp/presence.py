"""Is there a response at all?  One F test that knows how coloured the noise is.

Pure.  In: the power of an average inside a window, the residual noise of that average and how many independent values
each of the two rests on.  Out: a probability-like score, monotone in the evidence, and the SNR.  Neighbouring samples
of filtered noise are not independent, so the degrees of freedom come from the noise's own autocovariance
(Elberling and Don's Fmp with Satterthwaite's degrees of freedom; docs/sources.md#presence).
Own arithmetic and `math` alone: the same bytes on the same architecture.
"""

from __future__ import annotations

import math
import statistics

import numpy as np

from ionmd.dsp.layout import F64, curves


def effective_dof(autocovariance: F64, samples: int) -> float:
    """Independent values in `samples` successive samples, for the mean of squares; 1 at least, `samples` at most."""
    r0 = float(autocovariance[0])
    if samples < 2 or not r0 > 0.0:
        return 1.0
    lags = min(len(autocovariance), samples)
    rho = autocovariance[1:lags] / r0
    total = samples + 2.0 * float(np.add.reduce((samples - np.arange(1, lags)) * rho * rho))
    return max(1.0, samples * samples / total)


def f_cdf(f: float, dof1: float, dof2: float) -> float:
    """P(F <= f).  Real-valued degrees of freedom; dof2 may be inf-like large."""
    if not f > 0.0:
        return 0.0
    x = dof1 * f / (dof1 * f + dof2)
    return incomplete_beta(dof1 / 2.0, dof2 / 2.0, x)


def f_tail(f: float, dof1: float, dof2: float) -> float:
    """P(F > f), accurate when tiny."""
    if not f > 0.0:
        return 1.0
    return incomplete_beta(dof2 / 2.0, dof1 / 2.0, dof2 / (dof1 * f + dof2))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised I_x(a, b) by Lentz's continued fraction; relative error about 1e-12."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    below = x < (a + 1.0) / (a + b + 2.0)
    fraction: float = curves.beta_fraction(a, b, x) if below else curves.beta_fraction(b, a, 1.0 - x)
    return front * fraction / a if below else 1.0 - front * fraction / b


def normal_tail(z: float) -> float:
    """P(N(0,1) > z)."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def t_quantile(p: float, dof: float) -> float:
    """The p-quantile of Student's t, p in (0.5, 1): Newton on its exact tail, which is convex there."""
    dof = min(dof, 1e6)
    z = statistics.NormalDist().inv_cdf(p)
    t = z + (z**3 + z) / (4.0 * dof)  # the first term of Cornish and Fisher: close, and below for few degrees
    log_scale = math.lgamma((dof + 1.0) / 2.0) - math.lgamma(dof / 2.0) - 0.5 * math.log(dof * math.pi)
    for _ in range(60):
        tail = 0.5 * incomplete_beta(dof / 2.0, 0.5, dof / (dof + t * t))
        density = math.exp(log_scale - (dof + 1.0) / 2.0 * math.log1p(t * t / dof))
        step = (tail - (1.0 - p)) / density
        t = max(t + step, 0.5 * t)  # a start above the root must not jump past zero
        if abs(step) < 1e-13 * t:
            break
    return t


def snr_db(fmp: float) -> float:
    """10 log10(Fmp - 1), not below -20 dB."""
    return 10.0 * math.log10(max(fmp - 1.0, 0.01))
