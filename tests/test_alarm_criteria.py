"""Both rules on one derivation: only a fall and a lengthening count, and only what is known well enough speaks."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionmd.alarm.criteria import classical, compare, judge
from ionmd.model import Marker, Measure, Reading, StimulusSummary
from ionmd.testdef import AlarmRule

RULE = AlarmRule()


def reading(p2p: float | None, latency: float | None = 20.0, half: float = 0.2, status: str = "present") -> Reading:
    markers = [] if latency is None else [
        Marker("N20", "negative", "present", latency, latency_ci_ms=(latency - half, latency + half))
    ]
    measures = [] if p2p is None else [Measure("N20-P23", status, p2p)]
    stimulus = StimulusSummary(True)
    return Reading("t", "d", "alert", "r", 1, 0, status, 300, 0, "simulated", "f", stimulus, markers, measures)


def crossed(now: Reading, then: Reading, rule: AlarmRule = RULE) -> set[str]:
    return {c.rule for c in classical(now, then, rule) if c.crossed}


@pytest.mark.parametrize(
    ("now", "rules"),
    [
        (reading(1.01), set()),
        (reading(0.99), {"amplitude"}),
        (reading(4.0), set()),  # a rise is no change for the worse
        (reading(2.0, 21.9), set()),
        (reading(2.0, 22.2), {"latency"}),
        (reading(2.0, 17.0), set()),  # shorter hints at a technical cause
        (reading(2.0, 23.0, half=1.5), set()),  # a latency nobody knows to a millisecond is not compared
        (reading(0.5, 23.0), {"amplitude", "latency"}),
        (reading(None, None, status="absent"), {"loss"}),
    ],
)
def test_ssep_warning_half_the_amplitude_or_a_tenth_more_latency(now, rules):
    assert crossed(now, reading(2.0)) == rules


def test_a_reading_without_a_number_crosses_nothing_by_the_fixed_rule():
    assert crossed(reading(None, None, status="uncertain"), reading(2.0)) == set()


def test_an_absolute_latency_rule_takes_the_place_of_the_fraction():
    rule = AlarmRule(latency_rise=0.0, latency_rise_ms=1.0)
    assert crossed(reading(2.0, 21.1), reading(2.0), rule) == {"latency"}


def test_nan_as_an_amplitude_counts_as_crossed_not_as_fine():
    assert crossed(reading(nan), reading(2.0)) == {"amplitude"}


def test_a_comparison_says_how_much_is_left_and_how_much_later_it_comes():
    found = compare(reading(1.2, 20.5), reading(2.0), "B1", RULE)
    assert (found.amplitude_ratio, found.latency_change_ms) == (0.6, 0.5)
    assert compare(reading(None, None, status="absent"), reading(2.0), "B1", RULE).amplitude_ratio == 0.0


def corrected(ratio: float, se: float = 0.1, expected: float = 1.0, expected_se: float = 0.0, rule: AlarmRule = RULE):
    return judge(reading(2.0), reading(2.0), rule, ratio, se, expected, expected_se)


@pytest.mark.parametrize(
    ("ratio", "se", "expected", "cross"),
    [
        (0.30, 0.10, 1.0, True),
        (0.49, 0.10, 1.0, True),
        (0.51, 0.10, 1.0, False),
        (0.40, 0.30, 1.0, False),  # 0.6 below, but two standard errors only
        (0.20, 0.30, 1.0, True),
        (0.40, 0.10, 0.6, False),  # controls fade by 0.6: 0.67 is left of what was expected
        (0.25, 0.10, 0.6, True),
    ],
)
def test_the_drift_corrected_rule_asks_for_the_fall_and_for_its_certainty(ratio, se, expected, cross):
    assert corrected(ratio, se, expected).crossed is cross


@pytest.mark.parametrize(("ratio", "se"), [(nan, 0.1), (0.1, 0.36), (inf, 0.1), (0.1, inf)])
def test_what_varies_too_much_or_is_no_number_is_not_judgeable_and_says_why(ratio, se):
    found = corrected(ratio, se)
    assert not found.judgeable and not found.crossed and found.why_not


def test_uncertainty_of_the_control_widens_the_verdict():
    assert corrected(0.4, 0.1).crossed
    assert not corrected(0.4, 0.1, 1.0, 0.6).crossed


@given(
    ratio=st.floats(-2, 3, allow_nan=False), se=st.floats(0.01, 0.35), expected=st.floats(0.5, 1.0),
    less=st.floats(0.0, 1.0),
)
def test_a_smaller_response_never_makes_an_alarm_go_away(ratio, se, expected, less):
    if corrected(ratio, se, expected).crossed:
        assert corrected(ratio - less, se, expected).crossed


@given(ratio=st.floats(0.0, 1.5), se=st.floats(0.01, 0.35), expected=st.floats(0.5, 1.0))
def test_drift_alone_never_raises_an_alarm_that_the_raw_value_would_not(ratio, se, expected):
    if corrected(ratio, se, expected).crossed:
        assert corrected(ratio, se, 1.0).crossed or ratio / expected < 0.5
