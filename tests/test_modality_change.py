"""A sub-average of 25 sweeps against a reference: ratio and shift with errors that mean what they say."""

import math

import numpy as np
import pytest

from ionmd.modality.change import latency_shift, projection_ratio
from tests.test_modality_evoked import WINDOW, filtered, measure, noise, shape


def reference():
    return filtered(shape())


@pytest.mark.parametrize("truth", [1.0, 0.5, 0.0])
def test_the_ratio_of_25_sweeps_is_right_within_its_error(truth):
    _, estimate = measure(noise(np.random.default_rng(50), 300))
    short = estimate.scaled(25)
    z = []
    for seed in range(30):
        sub = filtered(noise(np.random.default_rng(seed), 25).mean(axis=0) + truth * shape())
        ratio, se = projection_ratio(sub, reference(), WINDOW, short)
        z.append((ratio - truth) / se)
    assert abs(np.mean(z)) < 0.6 and 0.6 < np.std(z) < 1.5
    assert se < 0.25


def test_the_shift_of_a_later_response_is_found():
    _, estimate = measure(noise(np.random.default_rng(50), 300))
    for shift_ms in (-1.0, 0.0, 1.0, 2.0):
        sub = filtered(noise(np.random.default_rng(1), 100).mean(axis=0) + shape(shift_ms=shift_ms))
        shift, se = latency_shift(sub, reference(), WINDOW, estimate.scaled(100), 25)
        assert abs(shift * 0.2 - shift_ms) < max(0.3, 4 * se * 0.2)


def test_a_flat_reference_or_a_lost_response_gives_no_number():
    _, estimate = measure(noise(np.random.default_rng(50), 50))
    assert math.isnan(projection_ratio(reference(), np.zeros(400), WINDOW, estimate)[0])
    assert math.isnan(latency_shift(np.zeros(400), reference(), WINDOW, estimate, 25)[0])
