"""Inputs -> derivations: input 1 minus input 2.

In: float32[n, stride_in] against the common reference.  Out: float32[n, stride_of(derivations)], padding zero.
Always: float32 differences, so a derivation of two inputs at the same offset is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ionmd.dsp.layout import F32, kernels, stride_of


class Montage:
    """Which input minus which.

    plus, minus   int32[derivations], columns of the input rows; -1 is the common reference (zero)
    """

    def __init__(self, plus: npt.ArrayLike, minus: npt.ArrayLike, stride_in: int) -> None:
        p, m = np.asarray(plus), np.asarray(minus)
        if p.ndim != 1 or p.shape != m.shape or p.dtype.kind not in "iu" or m.dtype.kind not in "iu":
            raise ValueError(f"plus {p.shape} {p.dtype} and minus {m.shape} {m.dtype}: integer lists expected")
        if not bool(((p >= -1) & (p < stride_in) & (m >= -1) & (m < stride_in)).all()):
            raise ValueError(f"inputs {p.tolist()} minus {m.tolist()} came, -1 to {stride_in - 1} was expected")
        self.derivations = len(p)
        self.stride_in = stride_in
        self.stride = stride_of(self.derivations)
        # column `stride_in` is the kernel's zero
        full = np.full((2, self.stride), stride_in, np.int32)
        full[0, : len(p)] = np.where(p < 0, stride_in, p)
        full[1, : len(m)] = np.where(m < 0, stride_in, m)
        self.kernel = kernels.Derive(full[0].copy(), full[1].copy(), stride_in, self.stride)

    @classmethod
    def pairs(cls, pairs: Sequence[tuple[int, int]], stride_in: int) -> Montage:
        return cls([a for a, _ in pairs], [b for _, b in pairs], stride_in)

    def apply(self, uv: F32, n: int, out: F32) -> None:
        """out[:n] = uv[:n, plus] - uv[:n, minus]; both C-contiguous, different memory."""
        self.kernel.apply(uv, n, out)
