"""Template match: Pearson's r at each lag, by its plain twin and compiled."""

from __future__ import annotations

import numpy as np
import pytest

from ionmd.dsp import reference
from ionmd.dsp.match import TemplateMatch


def compiled(templates, x):
    return TemplateMatch(templates, len(x), x.shape[1]).process(np.ascontiguousarray(x, np.float32))


@pytest.fixture(params=[reference.match, compiled], ids=["numpy", "compiled"])
def match(request):
    return request.param


def curves(channels, n, seed=1):
    return np.cumsum(np.random.default_rng(seed).standard_normal((channels, n)), axis=1)


@pytest.mark.parametrize(("channels", "n", "m"), [(1, 40, 2), (3, 90, 31), (8, 100, 100), (9, 120, 64), (17, 75, 33)])
def test_it_is_the_correlation_of_every_stretch(match, channels, n, m):
    x, t = curves(channels, n), curves(channels, m, 9)
    got = match(t, x)
    want = [[np.corrcoef(x[c, k : k + m], t[c])[0, 1] for k in range(n - m + 1)] for c in range(channels)]
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_one_template_serves_all_channels(match):
    x, t = curves(10, 80), curves(1, 20, 5)
    np.testing.assert_allclose(match(t, x), match(np.repeat(t, 10, axis=0), x), atol=1e-6)


def test_offset_and_scale_do_not_matter(match):
    t = curves(1, 50, 3)
    x = np.zeros((2, 150))
    x[0, 60:110] = t[0] * 4.0
    x[0, :60], x[0, 110:] = x[0, 60], x[0, 109]
    x[1] = x[0] * -1e-3 + 3e3  # inverted, a thousand times smaller, on an electrode offset
    got = match(t, x)
    assert got[0].argmax() == 60
    assert got[0, 60] == pytest.approx(1.0, abs=1e-5)
    assert got[1].argmin() == 60


def test_a_flat_curve_matches_nothing(match):
    assert not np.any(match(curves(1, 20), np.full((3, 60), 5.0)))


def test_templates_that_cannot_match_are_refused():
    with pytest.raises(ValueError, match="flat"):
        TemplateMatch(np.ones(20), 3, 60)
    with pytest.raises(ValueError, match="expected"):
        TemplateMatch(curves(2, 20), 3, 60)
    with pytest.raises(ValueError, match="2 <= m <= n"):
        TemplateMatch(curves(1, 70), 3, 60)
