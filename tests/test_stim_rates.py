"""An average must not keep the mains, and interleaved sweeps must not contain each other's pulses."""

import numpy as np
import pytest

from ionmd import catalog
from ionmd.errors import ConfigError
from ionmd.stim.rates import interleave, mains_rule, residual


def left_of(rate_hz, f_hz, sweeps):
    n = np.arange(sweeps)
    return abs(np.exp(2j * np.pi * f_hz / rate_hz * n).mean())


def test_residual_bounds_what_averaging_really_leaves():
    for rate in np.linspace(2.0, 6.0, 41):
        for n in (24, 25, 150, 300):
            assert left_of(rate, 50.0, n) <= residual(rate, 50.0, n) + 1e-9


def test_rates_that_divide_the_mains_fail():
    for rate, mains in [(5.0, 50.0), (2.5, 50.0), (4.0, 60.0), (3.0, 60.0)]:
        ok, worst, better = mains_rule(rate, mains, 300)
        assert not ok and worst == 1.0
        assert mains_rule(better, mains, 300)[0] and abs(better / rate - 1) <= 0.3


def test_3_17_fails_at_60_hz_and_43_9_fails_at_50_hz():
    assert not mains_rule(3.17, 60.0, 300)[0]
    assert mains_rule(3.17, 50.0, 300)[0]
    assert not mains_rule(43.9, 50.0, 400)[0]
    assert mains_rule(43.9, 60.0, 400)[0]


def test_the_rule_is_for_the_rate_of_each_average_after_interleaving():
    """4.79/s alternated between two sides gives each side sweeps at 2.395/s: 60 Hz beats once in 19 of them."""
    assert mains_rule(4.79, 60.0, 300)[0]
    assert not mains_rule(4.79 / 2, 60.0, 300)[0]
    turns = interleave({"left": (-20.0, 60.0), "right": (-20.0, 60.0)}, 4.79 / 2, 60.0)
    assert turns.rate_hz != 2.395 and mains_rule(turns.rate_hz, 60.0, 300)[0]
    assert turns.cycle_ms == pytest.approx(1000.0 / turns.rate_hz)


def test_odd_and_even_halves_are_judged_too():
    """At 100/s the 50 Hz of odd sweeps has one phase and that of even sweeps the opposite one: the mean is clean."""
    assert left_of(100.0, 50.0, 300) < 1e-9
    assert left_of(50.0, 50.0, 150) == pytest.approx(1.0)
    assert not mains_rule(100.0, 50.0, 300)[0]


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_rates_of_the_catalogue_pass_at_both_mains(mains_hz):
    for d in catalog.tests().values():
        if d.stimulus is not None and d.stimulus.rate_hz > 0 and d.test.modality == "evoked":
            assert mains_rule(d.stimulus.rate_hz, mains_hz, d.average.sweeps)[0], d.test.id


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_no_sweep_of_the_cervical_template_contains_the_pulse_of_another_test(mains_hz):
    windows = {
        name: (d.epoch.start_ms, d.epoch.stop_ms)
        for name in catalog.templates()["cervical"].interleave
        if (d := catalog.tests()[name]).epoch
    }
    turns = interleave(windows, 2.55, mains_hz)
    assert turns.rate_hz == 2.55
    pulses = [(s.test, s.offset_ms + k * turns.cycle_ms) for k in range(4) for s in turns.slots]
    for test, at in pulses:
        start, stop = windows[test]
        inside = [other for other, t in pulses if at + start <= t <= at + stop]
        assert inside == [test]


def test_tests_that_do_not_fit_lower_the_rate_and_nonsense_is_refused():
    turns = interleave({"a": (-20.0, 200.0), "b": (-20.0, 200.0)}, 2.55)
    assert turns.rate_hz < 1000.0 / 402.0 and mains_rule(turns.rate_hz, 50.0, 300)[0]
    for wrong in (float("nan"), 0.0, -1.0, True, 1e9):
        with pytest.raises(ConfigError):
            mains_rule(wrong, 50.0, 300)
    with pytest.raises(ConfigError):
        interleave({}, 2.55)
