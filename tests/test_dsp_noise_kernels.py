"""The kernels of noise.c against their twins, at every remainder of their lanes."""

import numpy as np
import pytest

from ionmd.dsp import reference
from ionmd.dsp.layout import curves


@pytest.mark.parametrize(("n", "lags"), [(1, 1), (7, 7), (16, 16), (17, 16), (33, 17), (200, 95), (1601, 240)])
def test_every_lag_is_the_mean_of_the_products_it_has(n, lags):
    x = np.random.default_rng(n).normal(0.0, 3.0, n)
    out = np.full(lags + 1, np.nan)
    curves.autocovariance(x, n, lags, out)
    np.testing.assert_allclose(out[:lags], reference.autocovariance(x, lags), rtol=1e-12, atol=1e-12)
    assert np.isnan(out[lags])


@pytest.mark.parametrize(("n", "lags"), [(10, 11), (10, 0), (0, 0)])
def test_lags_that_do_not_fit_are_refused(n, lags):
    with pytest.raises(ValueError, match="lags"):
        curves.autocovariance(np.zeros(max(1, n)), n, lags, np.zeros(16))


def test_nan_is_not_hidden():
    x = np.ones(40)
    x[20] = np.nan
    out = np.zeros(20)
    curves.autocovariance(x, 40, 20, out)
    assert np.isnan(out).all()


@pytest.mark.parametrize(("n", "reach"), [(1, 0), (1, 3), (7, 2), (8, 5), (33, 12), (800, 41)])
def test_a_symmetric_kernel_adds_its_pairs_from_the_centre_outwards(n, reach):
    rng = np.random.default_rng(n + reach)
    wide, kernel, out = rng.normal(size=n + 2 * reach), rng.random(reach + 1), np.full(n + 1, np.nan)
    curves.smooth_symmetric(wide, n, kernel, reach, out)
    expected = wide[reach : reach + n] * kernel[0]
    for i in range(1, reach + 1):
        expected += kernel[i] * (wide[reach - i : reach - i + n] + wide[reach + i : reach + i + n])
    assert out[:n].tobytes() == expected.tobytes() and np.isnan(out[n])
