"""Windows of sweeps: when to look, what they say, and what several derivations say together."""

import numpy as np
import pytest

from ionmd.alarm.evidence import LOOKS_PER_SUB, WINDOW_SUBS, Evidence, Spread, SweepShares

SUB = 25
NEED = round(WINDOW_SUBS * SUB)


def sweep(k, weight=1.0, **share):
    return SweepShares(1000 * k, 1000 * k + 99, share, dict.fromkeys(share, weight))


def test_a_window_is_the_newest_sweeps_and_there_is_none_before_it_is_full():
    e = Evidence(SUB)
    for k in range(NEED - 1):
        e.add(sweep(k, a=0.0))
    assert e.window() is None
    for k in range(NEED - 1, 3 * NEED):
        e.add(sweep(k, a=1.0 if k >= 2 * NEED else 0.0, b=0.5))
    window = e.window()
    assert (window.first, window.last) == (1000 * 2 * NEED, 1000 * (3 * NEED - 1) + 99)
    assert window.ratio == {"a": 1.0, "b": 0.5} and window.sweeps == {"a": NEED, "b": NEED}


def test_looks_come_five_times_a_sub_average_and_whole_windows_share_no_sweep():
    e = Evidence(SUB)
    whole, glances, last = [], 0, -1
    for k in range(6 * NEED):
        e.add(sweep(k, a=1.0))
        look = e.due()
        if look and (window := e.window()) is not None:
            e.looked(look == "whole")
            glances += look == "glance"
            if look == "whole":
                assert window.first > last
                whole.append(k)
                last = window.last
    assert len(whole) == 6 and np.diff(whole).tolist() == [NEED] * 5
    assert glances == pytest.approx(5 * (NEED / (SUB / LOOKS_PER_SUB) - 1), abs=2)


def test_a_glance_that_raised_something_lets_the_next_whole_window_begin_afresh():
    e = Evidence(SUB)
    for k in range(NEED + 20):
        e.add(sweep(k, a=0.1))
    e.looked(whole=True)
    for k in range(NEED - 1):
        e.add(sweep(100 + k, a=0.1))
        assert e.due() != "whole"
    e.add(sweep(999, a=0.1))
    assert e.due() == "whole"


def test_noisy_sweeps_count_for_less_and_a_window_of_them_is_longer_but_not_endless():
    e = Evidence(SUB)
    for k in range(NEED):
        e.add(sweep(k, a=1.0))
    for k in range(NEED, 2 * NEED):
        e.add(sweep(k, 0.2, a=0.0))
    window = e.window()
    assert window.sweeps["a"] == pytest.approx(NEED, abs=1) and window.ratio["a"] == pytest.approx(0.8, abs=0.02)
    for k in range(2 * NEED, 8 * NEED):
        e.add(sweep(k, 0.2, a=0.0))
    assert e.window().sweeps["a"] < NEED  # four times the sweeps are enough, and it says how little they are worth


def test_a_control_is_asked_about_the_same_time_and_says_nothing_on_too_few():
    e = Evidence(SUB)
    for k in range(60):
        e.add(sweep(k, a=1.0 if k < 40 else 0.2))
    assert e.ratio("a", 40_000) == pytest.approx(0.2)
    assert e.ratio("a", 50_000) is None
    assert e.ratio("a") == pytest.approx((25 * 1.0 + 20 * 0.2) / 45)
    assert e.ratio("b") is None
    e.clear()
    assert e.ratio("a") is None and e.window() is None and e.due() == ""


def test_pooled_derivations_are_better_than_the_best_one_and_never_better_than_independent():
    rng = np.random.default_rng(5)
    mix = np.array([[1.0, 0.5, 0.0], [0.0, 0.8, 0.3], [0.2, 0.0, 1.5]])
    spread = Spread(["a", "b", "c"], mix @ mix.T)
    draws = 1.0 + (rng.normal(0.0, 1.0, (4000, 45, 3)) @ mix.T).mean(axis=1)
    se = {label: spread.se(label, 45) for label in "abc"}
    pooled = np.array([spread.pooled({x: (float(v), se[x]) for x, v in zip("abc", row, strict=True)}) for row in draws])
    assert pooled[:, 0].mean() == pytest.approx(1.0, abs=0.01)
    assert pooled[:, 0].std() == pytest.approx(pooled[0, 1], rel=0.06)
    assert pooled[0, 1] < min(se.values())


def test_what_is_not_known_has_no_weight():
    spread = Spread(["a"], np.array([[4.0]]))
    assert spread.se("a", 25) == pytest.approx(0.4) and spread.se("z", 25) == spread.se("a", 0) == float("inf")
    assert spread.pooled({"z": (0.1, 0.1)}) is None and spread.pooled({}) is None
    assert spread.pooled({"a": (0.3, 0.4), "z": (9.0, 0.1)}) == pytest.approx((0.3, 0.4))
