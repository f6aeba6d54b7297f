"""What kernels store into begins at a cache line."""

import numpy as np
import pytest

from ionmd import aligned
from ionmd.dsp.average import SweepSum
from ionmd.model import Block


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 16), (2, 1001, 64)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.float64])
def test_zeros_begin_at_a_line_and_are_ordinary_arrays(shape, dtype):
    a = aligned.zeros(shape, dtype)
    assert a.shape == shape and a.dtype == dtype and a.flags.c_contiguous and a.flags.writeable
    assert a.ctypes.data % 64 == 0 and not a.any()


def test_blocks_and_sums_are_such():
    block = Block(100, 8, 20_000.0)
    assert block.uv.ctypes.data % 64 == block.counts.ctypes.data % 64 == 0
    assert SweepSum(8, 100)._sum.ctypes.data % 64 == 0
