"""Derivations: input 1 - input 2, both twins."""

from __future__ import annotations

import numpy as np
import pytest

from ionmd.dsp import derive, reference
from ionmd.dsp.layout import rows


@pytest.fixture(params=[reference.Montage, derive.Montage], ids=["numpy", "compiled"])
def montage(request):
    return request.param


def test_derivation_is_input_1_minus_input_2_and_padding_is_zero(montage):
    uv = rows(30, 20)
    uv[:, :20] = np.random.default_rng(2).standard_normal((30, 20))
    m = montage([3, 0, 19, 5], [1, 2, -1, 5], uv.shape[1])
    out = np.full((30, m.stride), 9, np.float32)
    m.apply(uv, 25, out)
    np.testing.assert_array_equal(out[:25, 0], uv[:25, 3] - uv[:25, 1])
    np.testing.assert_array_equal(out[:25, 1], uv[:25, 0] - uv[:25, 2])
    np.testing.assert_array_equal(out[:25, 2], uv[:25, 19])
    assert (out[:25, 3:] == 0).all()
    assert (out[25:] == 9).all()


def test_both_twins_agree_over_many_montages():
    rng = np.random.default_rng(5)
    for d in (1, 7, 16, 40):
        uv = rows(12, 64)
        uv[:] = rng.standard_normal(uv.shape)
        plus, minus = rng.integers(-1, 64, d), rng.integers(-1, 64, d)
        a, b = reference.Montage(plus, minus, 64), derive.Montage(plus, minus, 64)
        x, y = rows(12, d), rows(12, d)
        a.apply(uv, 12, x)
        b.apply(uv, 12, y)
        np.testing.assert_array_equal(x, y)


def test_a_lost_input_spoils_its_own_derivations_only(montage):
    uv = rows(4, 16)
    uv[:, 3] = np.nan
    m = montage([3, 0, 1], [0, 3, 2], 16)
    out = rows(4, 3)
    m.apply(uv, 4, out)
    assert np.isnan(out[:, :2]).all()
    assert (out[:, 2] == 0).all()


@pytest.mark.parametrize(("plus", "minus"), [([16], [0]), ([0], [-2]), ([0, 1], [2]), ([0.5], [1]), ([True], [False])])
def test_inputs_that_do_not_exist_are_refused(plus, minus):
    with pytest.raises(ValueError, match=r"came|expected"):
        derive.Montage(plus, minus, 16)


def test_input_columns_named_beyond_the_kernel_s_rows_are_refused():
    with pytest.raises(ValueError, match="stride"):
        derive.Montage([0], [1], 17)
