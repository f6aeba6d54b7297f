"""Filters as second-order sections: Butterworth, notch, steady state, and the name of a filter.

In: order, edges in Hz, rate.  Out: float64[sections, 6] = b0 b1 b2 a0 a1 a2 with a0 = 1, poles nearest the unit
circle last, the gain in the first section: scipy's own order, so tables compare (to 1e-12, test_dsp_design).
Always: the same arguments give the same bits; only `math` and `cmath` are used.
Method: analogue prototype, pre-warped bilinear transform, nearest pole-zero pairing.  Source: docs/sources.md#filters
"""

from __future__ import annotations

import cmath
import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np

from ionmd.dsp.layout import F64
from ionmd.testdef import Filter

NOTCH_Q = 30.0

MAX_ORDER = 8


def butter_sos(order: int, band_hz: tuple[float, float], rate_hz: float) -> F64:
    """Butterworth sections; `order` is that of the prototype, so a band-pass has twice as many poles.

    band_hz   (low, high); low 0 is a low-pass, high 0 (or inf) a high-pass, both set a band-pass
    Raises ValueError when an edge is not inside 0..rate/2.
    """
    if isinstance(order, bool) or not (1 <= order <= MAX_ORDER):
        raise ValueError(f"filter order {order!r} came, 1 to {MAX_ORDER} was expected")
    if not (0 < rate_hz < math.inf):
        raise ValueError(f"rate {rate_hz!r} Hz came, a positive number was expected")
    low, high = float(band_hz[0]), float(band_hz[1])
    if high == math.inf:
        high = 0.0
    for edge in (low, high):
        if edge != 0 and not (0 < edge < rate_hz / 2):
            raise ValueError(f"filter edge {edge:g} Hz came, more than 0 and less than {rate_hz / 2:g} Hz was expected")
    if low == 0 and high == 0:
        raise ValueError("a filter without edges came, band_hz needs a low or a high edge")
    if low and high and not (low < high):
        raise ValueError(f"band {low:g} to {high:g} Hz came, the low edge must be below the high one")

    prototype = [-cmath.exp(1j * math.pi * m / (2 * order)) for m in range(-order + 1, order, 2)]
    if order % 2:
        prototype[order // 2] = complex(-1.0, 0.0)
    zeros: list[complex]
    if low and high:
        w1, w2 = _warp(low, rate_hz), _warp(high, rate_hz)
        width, centre = w2 - w1, math.sqrt(w1 * w2)
        half = [p * width / 2 for p in prototype]
        roots = [cmath.sqrt(h * h - centre * centre) for h in half]
        poles = [h + r for h, r in zip(half, roots, strict=True)] + [h - r for h, r in zip(half, roots, strict=True)]
        zeros, gain = [0j] * order, width**order
    elif high:
        w = _warp(high, rate_hz)
        poles, zeros, gain = [p * w for p in prototype], [], w**order
    else:
        w = _warp(low, rate_hz)
        product = complex(1.0)
        for p in prototype:
            product *= -p
        poles, zeros, gain = [w / p for p in prototype], [0j] * order, (1 / product).real
    return _sections(*_bilinear(zeros, poles, gain))


def notch_sos(freq_hz: float, q: float, rate_hz: float) -> F64:
    """One section that removes `freq_hz`; `q` is frequency over -3 dB width.  Equal to scipy.signal.iirnotch."""
    if not (0 < freq_hz < rate_hz / 2):
        raise ValueError(f"notch {freq_hz!r} Hz came, more than 0 and less than {rate_hz / 2:g} Hz was expected")
    if not (0 < q < math.inf):
        raise ValueError(f"notch quality {q!r} came, a positive number was expected")
    w0 = 2 * math.pi * freq_hz / rate_hz
    gain = 1.0 / (1.0 + math.tan(w0 / q / 2.0))
    cosine = math.cos(w0)
    return np.array([[gain, gain * (-2.0 * cosine), gain, 1.0, -2.0 * gain * cosine, 2.0 * gain - 1.0]])


def design(spec: Filter, rate_hz: float) -> F64:
    """Second-order sections of a filter of a test file; none (0, 6) when it filters nothing."""
    sections = []
    if spec.kind == "butterworth" and spec.band_hz is not None:
        low, high = spec.band_hz
        if not (high < 0.49 * rate_hz):
            high = 0.0  # the device's own anti-alias filter is below this edge already
        if low > 0.0 or high > 0.0:
            sections.append(butter_sos(spec.order, (low, high), rate_hz))
    if spec.notch_hz > 0.0:
        sections.append(notch_sos(spec.notch_hz, NOTCH_Q, rate_hz))
    return np.concatenate(sections) if sections else np.zeros((0, 6))


def sosfilt_zi(sos: F64) -> F64:
    """State float64[sections, 2] of a filter that has seen the constant 1 forever (scipy.signal.sosfilt_zi)."""
    sos = check_sos(sos)
    zi, scale = np.zeros((len(sos), 2)), 1.0
    for k, (b0, b1, b2, _, a1, a2) in enumerate(sos.tolist()):
        c1, c2 = b1 - a1 * b0, b2 - a2 * b0
        z1 = (c1 + c2) / (1.0 + a1 + a2)
        zi[k] = scale * z1, scale * ((1.0 + a1) * z1 - c1)
        scale *= (b0 + b1 + b2) / (1.0 + a1 + a2)
    return zi


def check_sos(sos: F64) -> F64:
    """`sos` as float64[sections, 6] with finite entries, a0 = 1 and all poles inside the unit circle, else ValueError.

    Poles on or outside the circle would turn a constant offset into growing numbers.
    """
    sos = np.ascontiguousarray(sos, np.float64)
    if sos.ndim != 2 or sos.shape[1] != 6:
        raise ValueError(f"sections of shape {sos.shape} came, (sections, 6) was expected")
    for k, (a0, a1, a2) in enumerate(sos[:, 3:].tolist()):
        if not bool(np.isfinite(sos[k]).all()) or a0 != 1.0 or not (abs(a2) < 1.0 and abs(a1) < 1.0 + a2):
            raise ValueError(f"section {k}: {sos[k].tolist()} came, finite, a0 = 1 and stable was expected")
    return sos


def filter_id(
    sos: F64, phase: str, padding: str, epoch: Sequence[float] = (), blank: Sequence[float | str] = ()
) -> str:
    """12 hex digits that name how a curve was made; equal ids mean comparable curves (design 2).

    The hash covers the coefficients' exact bits, phase (`causal`, `zero`), padding (`odd`, `zi`, `none`), the epoch's
    limits and the blanking window with its method.
    """

    def exact(value: object) -> object:
        return value if isinstance(value, (str, bool)) or value is None else float(value).hex()  # type: ignore[arg-type]

    table = np.asarray(sos, np.float64).reshape(-1, 6).tolist()
    coefficients = [[exact(c) for c in row] for row in table]
    facts = [coefficients, phase, padding, [exact(e) for e in epoch], [exact(b) for b in blank]]
    return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()[:12]


def _warp(edge_hz: float, rate_hz: float) -> float:
    return 4.0 * math.tan(math.pi * (2 * edge_hz / rate_hz) / 2.0)  # a rate of 2, as scipy normalises


def _bilinear(zeros: list[complex], poles: list[complex], gain: float) -> tuple[list[complex], list[complex], float]:
    ratio = complex(1.0)
    for z in zeros:
        ratio *= 4.0 - z
    for p in poles:
        ratio /= 4.0 - p
    digital = [(4.0 + z) / (4.0 - z) for z in zeros] + [complex(-1.0)] * (len(poles) - len(zeros))
    return digital, [(4.0 + p) / (4.0 - p) for p in poles], gain * ratio.real


def _upper(roots: list[complex]) -> list[complex]:
    """One of each conjugate pair (imaginary part positive, sorted), then the real roots, exactly real and sorted."""
    tolerance = 100 * 2.220446049250313e-16
    real = sorted(r.real for r in roots if abs(r.imag) <= tolerance * abs(r))
    above = sorted((r for r in roots if r.imag > tolerance * abs(r)), key=lambda r: (r.real, r.imag))
    below = sorted((r for r in roots if r.imag < -tolerance * abs(r)), key=lambda r: (r.real, -r.imag))
    return [(u + w.conjugate()) / 2 for u, w in zip(above, below, strict=True)] + [complex(r) for r in real]


def _sections(zeros: list[complex], poles: list[complex], gain: float) -> F64:
    """Sections from roots: the pole nearest the unit circle takes its nearest zeros, and comes last."""
    count = (len(poles) + 1) // 2
    zeros = zeros + [0j] * (len(poles) - len(zeros))
    if len(poles) % 2:
        zeros, poles = [*zeros, 0j], [*poles, 0j]
    z, p = _upper(zeros), _upper(poles)
    sos = np.zeros((count, 6))
    for k in range(count - 1, -1, -1):
        p1 = p.pop(min(range(len(p)), key=lambda i: abs(1 - abs(p[i]))))
        if p1.imag:
            p2 = p1.conjugate()
        else:
            p2 = p.pop(min((i for i, r in enumerate(p) if not r.imag), key=lambda i: abs(abs(p[i]) - 1)))
        only_real = p1.imag and len(p) + 1 == len(z) and sum(not r.imag for r in p) == 1 == sum(not r.imag for r in z)
        # one real zero left for the one real pole left: do not take it here
        z1 = z.pop(_nearest(z, p1, [bool(r.imag) or not only_real for r in z]))
        z2 = z1.conjugate() if z1.imag else z.pop(_nearest(z, p1, [not r.imag for r in z]))
        sos[k] = [1.0, -(z1 + z2).real, (z1 * z2).real, 1.0, -(p1 + p2).real, (p1 * p2).real]
    sos[0, :3] *= gain
    return sos


def _nearest(roots: list[complex], to: complex, allowed: list[bool]) -> int:
    return min((i for i, ok in enumerate(allowed) if ok), key=lambda i: abs(to - roots[i]))
