"""The row layout all kernels share, and the door to the compiled modules.

In: a number of columns.  Out: the stride of its rows: 16 columns are one cache line of float32 and two vectors, so
kernels need no tail.  Always: padding columns hold zeros and stay zero through every linear kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ionmd.errors import MissingKernel

try:
    import ionmd.dsp._curves as curves
    import ionmd.dsp._kernels as kernels
except ImportError as e:  # a half-built tree: say what to do
    raise MissingKernel(f"the kernels of ionmd.dsp are not built ({e}): run `make build`; there is no slow path") from e

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
MAX_COLUMNS: int = kernels.MAX_STRIDE
unpack_slack: int = kernels.UNPACK_SLACK  # bytes that must follow packed samples

__all__ = ["F32", "F64", "MAX_COLUMNS", "curves", "flush_denormals", "kernels", "rows", "stride_of", "unpack_slack"]


def stride_of(columns: int) -> int:
    """Columns per row for `columns` used ones: the next multiple of 16."""
    if isinstance(columns, bool) or not (1 <= columns <= MAX_COLUMNS):
        raise ValueError(f"{columns} columns came, 1 to {MAX_COLUMNS} were expected")
    return (columns + 15) // 16 * 16


def rows(samples: int, columns: int) -> F32:
    """Zeroed float32[samples, stride_of(columns)]: what every streaming kernel reads and writes."""
    return np.zeros((samples, stride_of(columns)), np.float32)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Subnormals count as zero in this thread while the context lasts (float arithmetic of any kind).

    The streaming kernels do this by themselves on every call; the context is for a thread that runs other float
    code as well.  Threads are not touched by each other, and nothing is set process-wide.
    """
    before: Any = kernels.flush_on()
    try:
        yield
    finally:
        kernels.flush_restore(before)
