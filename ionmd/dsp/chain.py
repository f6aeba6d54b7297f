"""A block through all stages of one stream in one call: (int24) -> derivations -> hold -> filter -> (features).

In: microvolts float32[n, stride_in] of the inputs, or the bytes of a converter.  Out: filtered derivations
float32[n, stride], in `rows`.
Always: the same bits as Montage, Hold, Cascade and EmgFeatures one after the other (tests); nothing is allocated after
construction; what the call itself costs is in docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ionmd import aligned
from ionmd.dsp.derive import Montage
from ionmd.dsp.features import EmgFeatures
from ionmd.dsp.iir import Cascade
from ionmd.dsp.layout import F32, kernels, stride_of, unpack_slack

Spans = Sequence[tuple[int, int]] | None


class Int24:
    """Packed little-endian int24 rows [n, inputs] -> counts and uv, both [rows, stride].

    lsb_uv   microvolts per count of each input
    The bytes must have `unpack_slack` more behind them (vector loads overrun).
    process(raw, n): rows 0..n of counts and uv;  counts_lo, counts_hi int32[stride]: extremes of that call
    """

    process: Callable[[bytes | bytearray | memoryview | npt.NDArray[np.uint8], int], None]

    def __init__(self, lsb_uv: Sequence[float], rows: int) -> None:
        inputs = len(lsb_uv)
        self.inputs, self.stride = inputs, stride_of(inputs)
        self.counts: npt.NDArray[np.int32] = aligned.zeros((rows, self.stride), np.int32)
        self.uv: F32 = aligned.zeros((rows, self.stride), np.float32)
        self.counts_lo: npt.NDArray[np.int32] = np.zeros(self.stride, np.int32)
        self.counts_hi: npt.NDArray[np.int32] = np.zeros(self.stride, np.int32)
        scale = np.zeros(self.stride, np.float32)
        scale[:inputs] = lsb_uv
        if not bool((scale[:inputs] > 0).all() and np.isfinite(scale).all()):
            raise ValueError(f"microvolts per count {list(lsb_uv)} came, positive numbers were expected")
        self.kernel = kernels.Unpack(scale, self.counts, self.uv, self.counts_lo, self.counts_hi, inputs, self.stride)
        self.process = self.kernel.process


class Chain:
    """The stages of a stream, bound once.

    feed(uv, n, spans) -> bool          rows 0..n into `rows`; spans: row ranges [start, stop) to hold (None: none);
                                        True: the filter's state is finite
    feed_int24(raw, n, spans) -> bool   the same from packed bytes, when made with `int24`
    forget()                            after a gap: no good row is known to hold
    derived  float32[capacity, stride]  the derivations before the filter, of the last call
    """

    feed: Callable[[F32, int, Spans], bool]
    feed_int24: Callable[[bytes | bytearray | memoryview | npt.NDArray[np.uint8], int, Spans], bool]
    forget: Callable[[], None]

    def __init__(
        self, montage: Montage, cascade: Cascade, capacity: int, features: EmgFeatures | None = None,
        int24: Int24 | None = None,
    ) -> None:  # fmt: skip
        self.montage, self.cascade, self.features, self.int24 = montage, cascade, features, int24
        self.capacity = capacity
        self.derived: F32 = aligned.zeros((capacity, montage.stride), np.float32)
        self.rows: F32 = aligned.zeros((capacity, montage.stride), np.float32)
        self._kernel = kernels.Chain(
            montage.kernel, cascade.kernel, self.derived, self.rows, np.zeros(montage.stride, np.float32),
            features.kernel if features is not None else None, int24.kernel if int24 is not None else None,
        )  # fmt: skip
        self.feed, self.feed_int24 = self._kernel.feed, self._kernel.feed_int24
        self.forget = self._kernel.forget


__all__ = ["Chain", "Int24", "Spans", "unpack_slack"]
