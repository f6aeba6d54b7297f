"""Sub-averages: a noisy sweep weighs by its own noise, a dead one by nothing."""

import numpy as np
import pytest

from ionmd.runner.sub import Shelf, Sub, Typical, join

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
    return Sub(1, N)


def seal(*subs, weighted=True):
    shelf = Shelf(0, 1, N)
    sealed = []
    for sub in subs:
        sealed.append(shelf.seal(sub, lambda x: np.where(np.isfinite(x), x, 0.0), weighted, sealed))
    return sealed


def test_a_quarter_of_loud_sweeps_costs_next_to_nothing():
    rng = np.random.default_rng(1)
    levels = np.where(np.arange(100) % 4 == 3, 8.0, 1.0)
    sub = make()
    fill(sub, Typical(1), rng, levels)
    sealed = seal(sub)
    weighted, share = join(sealed, True)
    plain, _ = join(sealed, False)
    assert int(weighted.n[0]) == 100 and share[0, 0] == pytest.approx(1.0)
    assert weighted.mean.std() < 1.15 / np.sqrt(75) < 0.4 * plain.mean.std()


def test_even_noise_stays_in_one_block():
    sub = make()
    fill(sub, Typical(1), np.random.default_rng(2), np.random.default_rng(3).uniform(0.85, 1.15, 60))
    assert len(sub.blocks()) == 1


def test_sweeps_of_an_electrode_that_died_are_refused():
    sub = make()
    fill(sub, Typical(1), np.random.default_rng(4), [1.0] * 20 + [0.01] * 10)
    assert sub.most == 20


def test_a_quiet_sub_average_never_weighs_more_than_three_ordinary_ones():
    rng = np.random.default_rng(5)
    subs = [make() for _ in range(5)]
    for k, sub in enumerate(subs):
        fill(sub, Typical(1), rng, [0.05 if k == 4 else 1.0] * 10)
    _, share = join(seal(*subs), True)
    assert share[4, 0] == pytest.approx(3 * share[0, 0])


def test_without_the_power_of_sweeps_what_the_filter_left_weighs():
    rng = np.random.default_rng(6)
    subs = [make() for _ in range(2)]
    for sub, level in zip(subs, (1.0, np.sqrt(2.0)), strict=True):
        for _ in range(400):
            sweep = np.zeros((N, 16), np.float32)
            sweep[:, 0] = rng.normal(0.0, level, N)
            sub.add(sweep, np.ones(1, np.uint8), np.zeros(1), np.zeros(1, np.int64))
    sealed = seal(*subs)
    _, share = join(sealed, True)
    spread = [float(s.spread[0]) for s in sealed]
    assert share[0, 0] / share[1, 0] == pytest.approx(spread[1] / spread[0])
    assert share[:, 0] == pytest.approx([2 / 3, 1 / 3], abs=0.05)


def test_a_place_is_used_again_only_when_nobody_needs_its_curves():
    shelf, rng = Shelf(2, 1, N), np.random.default_rng(7)
    sub, kept = make(), []
    for _ in range(6):
        fill(sub, Typical(1), rng, [1.0] * 4)
        sealed = shelf.seal(sub, lambda x: x, True, kept)
        assert sub.most == 0 and sealed.most == 4 and sealed.counts.tolist() == [4]
        before = [s.mean.copy() for s in kept]
        kept.append(sealed)
        assert all((s.mean == b).all() for s, b in zip(kept, before, strict=False))
        kept = kept[-2:]
    assert len({id(c) for s in kept for c in s.curves}) == 2
