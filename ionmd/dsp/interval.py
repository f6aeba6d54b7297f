"""95 % intervals of latency and amplitude of a peak in an average.

Pure.  In: the peak and the noise left in the average, with how well that is known.  Out: half-widths.
Around a peak the curve is a parabola; noise n moves its top by -n'(t) / s''(t) and lifts it by n(t).  Noise is
coloured, so var n' comes from its autocovariance, not from its rms.
Formulas: docs/sources.md#intervals; coverage is measured by bench/accuracy.py.
"""

from __future__ import annotations

import math

from ionmd.dsp.noise import NoiseEstimate
from ionmd.dsp.presence import t_quantile
from ionmd.dsp.waves import Peak

LEVEL = 0.975


def slope_variance(noise: NoiseEstimate) -> float:
    """Variance of the noise's first difference per sample, central difference: uV^2 per sample^2."""
    r = noise.autocovariance
    return max(0.0, float(r[0] - r[2]) / 2.0) if len(r) > 2 else max(0.0, 2.0 * float(r[0]))


def quantile(noise: NoiseEstimate) -> float:
    return t_quantile(LEVEL, noise.noise_dof)


def latency_half_width(peak: Peak, noise: NoiseEstimate) -> float:
    """Half-width in samples."""
    if not peak.curvature > 0.0:
        return math.inf
    return quantile(noise) * math.sqrt(slope_variance(noise)) / peak.curvature


def amplitude_half_width(noise: NoiseEstimate, baseline_samples: int) -> float:
    """Half-width in uV of a peak's value to the pre-stimulus mean."""
    r0 = noise.residual_uv**2
    base = r0 / noise.dof(baseline_samples) if baseline_samples > 1 else 0.0
    return quantile(noise) * math.sqrt(r0 + base)


def difference_half_width(a: Peak, b: Peak, noise: NoiseEstimate) -> float:
    """Half-width in uV of the peak-to-peak amplitude between two waves."""
    return quantile(noise) * math.sqrt(noise.variance_of_difference(b.position - a.position))
