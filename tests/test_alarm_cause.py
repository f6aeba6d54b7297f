"""Why a response may have changed: the order of the questions, and that no answer lowers the priority."""

from __future__ import annotations

import pytest

from ionmd.alarm.cause import Surroundings, call, sentence

DOWN, STEADY = 0.2, 0.95


def around(**fields) -> Surroundings:
    return Surroundings(**{"delivered": True, "delivery_text": "stimulus delivered: 25.1 of 25 mA set", **fields})


@pytest.mark.parametrize(
    ("surroundings", "cause"),
    [
        (around(delivered=False), "technical"),
        (around(electrode_faults=["electrode CP4: flat"]), "technical"),
        (around(peripheral={"EPL-EPR": DOWN}), "peripheral"),
        (around(peripheral={"EPL-EPR": STEADY}, outside={"median": DOWN}), "systemic"),
        (around(peripheral={"EPL-EPR": STEADY}, crossing={"left": DOWN, "tibial": DOWN}), "cord or systemic"),
        (around(crossing={"left": DOWN}, outside={"median": STEADY}), "focal"),
        (around(crossing={"left": STEADY}), "focal"),
        (around(), "unknown"),
        (around(crossing={"left": None}), "unknown"),
        (around(crossing={"left": 0.6}, changed=0.1), "focal"),
        (around(crossing={"left": 0.6}, changed=0.45), "unknown"),
    ],
)
def test_the_first_question_that_has_an_answer_names_the_cause(surroundings, cause):
    found = call(surroundings)
    assert found.cause == cause
    assert found.priority == "high"
    assert found.evidence


def test_all_limbs_down_is_not_called_systemic_without_a_control_that_avoids_the_level():
    found = call(around(crossing={"median left": DOWN, "tibial left": DOWN, "tibial right": DOWN}))
    assert found.cause == "cord or systemic"
    assert any("no control avoids it" in e for e in found.evidence)


def test_a_peripheral_control_that_is_not_known_is_no_evidence():
    assert call(around(peripheral={"EPL-EPR": None}, crossing={"left": STEADY})).cause == "focal"


def test_one_of_two_peripheral_controls_that_holds_speaks_against_a_peripheral_cause():
    assert call(around(peripheral={"a": DOWN, "b": STEADY}, crossing={"left": STEADY})).cause == "focal"


def test_every_control_that_is_known_is_evidence_in_numbers():
    found = call(around(peripheral={"EPL-EPR": 1.02}, outside={"vep": 0.9}, crossing={"left": 0.95}))
    assert [e for e in found.evidence if "% of baseline" in e] == [
        "peripheral control EPL-EPR: 102 % of baseline", "control vep: 90 % of baseline",
        "control left: 95 % of baseline",
    ]


def test_the_sentence_names_what_how_much_and_why_in_plain_words():
    assert sentence("Median nerve SSEP, right", "right", "active", 0.24, None, "focal") == (
        "Change: Median nerve SSEP, right is down to 24 % of baseline; only this pathway changed."
    )
    assert sentence("", "left", "possible", None, 2.14, "unknown") == (
        "Possible change: left response is delayed by 2.1 ms; the cause is not clear."
    )
    assert "-" not in sentence("X", "none", "active", -0.1, None, "focal")


@pytest.mark.parametrize("cause", ["technical", "peripheral", "systemic", "cord or systemic", "focal", "unknown"])
def test_no_sentence_calms(cause):
    text = sentence("X", "none", "active", 0.3, None, cause).lower()
    assert not any(word in text for word in ("safe", "green", "no breach", "harmless", "only a"))
