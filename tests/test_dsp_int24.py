"""Packed converter bytes into counts and microvolts; both twins."""

from __future__ import annotations

import numpy as np
import pytest

from ionmd.dsp import chain, reference
from ionmd.dsp.layout import unpack_slack


@pytest.fixture(params=[reference.Int24, chain.Int24], ids=["numpy", "compiled"])
def int24(request):
    return request.param


def packed(counts):
    """Little-endian, three bytes each, and what vector loads may read behind them (not zero)."""
    raw = counts.astype("<i4").reshape(-1, 1).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return raw + b"\xa5" * unpack_slack


def samples(rows, inputs, seed=1):
    x = np.random.default_rng(seed).integers(-(1 << 23), 1 << 23, (rows, inputs), dtype=np.int32)
    x[0, 0], x[-1, -1] = -(1 << 23), (1 << 23) - 1
    return x


@pytest.mark.parametrize("inputs", [1, 2, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64])
@pytest.mark.parametrize("rows", [1, 16, 37])
def test_every_count_and_its_microvolts_are_exact(int24, inputs, rows):
    counts = samples(rows, inputs)
    lsb = [0.0223517 + 0.001 * k for k in range(inputs)]
    unit = int24(lsb, rows)
    unit.process(packed(counts), rows)
    np.testing.assert_array_equal(unit.counts[:, :inputs], counts)
    np.testing.assert_array_equal(unit.uv[:, :inputs], counts.astype(np.float32) * np.asarray(lsb, np.float32))
    np.testing.assert_array_equal(unit.counts_lo[:inputs], counts.min(axis=0))
    np.testing.assert_array_equal(unit.counts_hi[:inputs], counts.max(axis=0))
    assert not unit.counts[:, inputs:].any()
    assert not unit.uv[:, inputs:].any()


def test_the_extremes_are_those_of_the_last_call():
    unit = chain.Int24([1.0] * 3, 10)
    unit.process(packed(np.full((10, 3), 500)), 10)
    unit.process(packed(np.full((10, 3), -7)), 4)
    assert unit.counts_lo[:3].tolist() == [-7, -7, -7]
    assert unit.counts_hi[:3].tolist() == [-7, -7, -7]


def test_too_few_bytes_or_rows_are_refused_before_any_is_read():
    unit = chain.Int24([1.0] * 3, 10)
    good = packed(samples(10, 3))
    with pytest.raises(ValueError, match="behind them"):
        unit.process(good[:-1], 10)
    with pytest.raises(ValueError, match="rows"):
        unit.process(packed(samples(11, 3)), 11)
    with pytest.raises(ValueError, match="rows"):
        unit.process(good, -1)
    assert not unit.counts.any()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(bad):
    with pytest.raises(ValueError, match="positive"):
        chain.Int24([1.0, bad], 10)
