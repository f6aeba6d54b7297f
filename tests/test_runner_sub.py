"""Sub-averages: a noisy sweep weighs by its own noise, a dead one by nothing."""

import numpy as np
import pytest

from ionmd.runner.sub import Sub, Typical, join

N = 200


def fill(sub, typical, rng, levels):
    for level in levels:
        sweep = np.zeros((N, 16), np.float32)
        sweep[:, 0] = rng.normal(0.0, level, N)
        accept = np.ones(1, np.uint8)
        power = np.array([level * level])
        kinds = typical.classify(power, accept)
        accept[kinds < 0] = 0
        sub.add(sweep, accept, power, kinds)


def make():
    return Sub(1, N, [(0, 0)])


def test_a_quarter_of_loud_sweeps_costs_next_to_nothing():
    rng = np.random.default_rng(1)
    levels = np.where(np.arange(100) % 4 == 3, 8.0, 1.0)
    sub = make()
    fill(sub, Typical(1), rng, levels)
    weighted, share = join([sub], True)
    plain, _ = join([sub], False)
    assert int(weighted.n[0]) == 100 and share[0, 0] == pytest.approx(1.0)
    assert weighted.mean.std() < 1.15 / np.sqrt(75) < 0.4 * plain.mean.std()


def test_even_noise_stays_in_one_block():
    sub = make()
    fill(sub, Typical(1), np.random.default_rng(2), np.random.default_rng(3).uniform(0.85, 1.15, 60))
    assert list(sub.sums) == [0]


def test_sweeps_of_an_electrode_that_died_are_refused():
    sub = make()
    fill(sub, Typical(1), np.random.default_rng(4), [1.0] * 20 + [0.01] * 10)
    assert sub.most == 20


def test_a_quiet_sub_average_never_weighs_more_than_three_ordinary_ones():
    rng = np.random.default_rng(5)
    subs = [make() for _ in range(5)]
    for k, sub in enumerate(subs):
        fill(sub, Typical(1), rng, [0.05 if k == 4 else 1.0] * 10)
    _, share = join(subs, True)
    assert share[4, 0] == pytest.approx(3 * share[0, 0])


def test_without_the_power_of_sweeps_the_fallback_weighs():
    rng = np.random.default_rng(6)
    subs = [make() for _ in range(2)]
    for sub in subs:
        for _ in range(10):
            sweep = np.zeros((N, 16), np.float32)
            sweep[:, 0] = rng.normal(0.0, 1.0, N)
            sub.add(sweep, np.ones(1, np.uint8), np.zeros(1), np.zeros(1, np.int64))
    _, share = join(subs, True, np.array([[1.0], [2.0]]))
    assert share[:, 0] == pytest.approx([2 / 3, 1 / 3])
