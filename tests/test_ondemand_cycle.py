"""Deliveries on demand while SSEPs run: neither side spoils the other, and no twitch passes for a finding."""

import pytest
from rig import RATE, CaseRun, opening
from test_ondemand_case import FOUR, TES, fired, size

from ionmd.agenda import Step

SSEP = ["ssep_median_left", "ssep_tibial_left", "ssep_median_right", "ssep_tibial_right"]
SCENARIO = """
[scenario]
name = "cycle"
seed = 5
duration_s = 60
[device]
inputs = 28
rate_hz = 10000
[[event]]
kind = "loss"
at_s = 0
muscles = ["APB-L", "APB-R", "AH-L", "AH-R"]
ratio = 0.0
cause = "focal"
side = "both"
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> CaseRun:
    place = tmp_path_factory.mktemp("cycle")
    (place / "cycle.toml").write_text(SCENARIO)
    agenda = [
        *opening(), Step(3000, "test.start", {"tests": [*SSEP, "mep_tes", "tof", "emg_free"], "lease": "script"}),
        *(step for k in range(6) for step in fired(5 + 2.37 * k, TES)), *fired(22, FOUR),
        Step(295_000, "case.close", {}),
    ]  # fmt: skip
    return CaseRun(place / "state", place / "cycle.toml", agenda, 30.0, inputs=28).run()


def test_nothing_was_refused_or_missed(case):
    assert case.refusals() == []
    assert case.of("alarm") == []


def test_no_sweep_of_an_average_is_lost_to_a_train(case):
    rejected = {a.test: a.rejected_reasons for a in case.of("average") if a.test in SSEP and a.rejected_reasons}
    assert rejected == {}


def test_a_twitch_of_a_stimulated_nerve_is_no_motor_evoked_potential(case):
    found = [r for r in case.of("reading") if getattr(r, "test", "") == "mep_tes"]
    assert len(found) == 48
    assert {r.derivation for r in found if r.status != "absent"} == {"DELT-L", "DELT-R", "TA-L", "TA-R"}


def test_the_train_of_four_is_four_of_its_own_responses(case):
    tof = next(r for r in case.of("reading") if getattr(r, "test", "") == "tof")
    assert size(tof, "count") == 4.0 and 0.9 < size(tof, "T4/T1") < 1.1


def test_twitches_are_no_spontaneous_activity_and_what_was_held_is_said(case):
    emg = case.of("emg")
    assert [d for d in emg if "burst" in d] == []
    seconds = [d for d in emg if "muscles" in d and d["sample"] > 2 * RATE]
    assert all(50.0 < d["held_ms"] < 900.0 for d in seconds)
    assert max(c["rms_uv"] for d in seconds for c in d["muscles"]) < 12.0


def test_a_delivery_by_hand_is_no_answer_to_a_threshold_search(tmp_path):
    (tmp_path / "p.toml").write_text(
        '[scenario]\nname = "p"\n[device]\ninputs = 20\nrate_hz = 10000\n[patient]\nprobe_contact = true\n'
        'probe_muscles = ["DELT-R"]\n'
    )
    probe = {"output": "probe", "site": "root", "amplitude_ma": 20.0, "width_us": 200, "polarity": "cathodal",
             "lease": "script"}  # fmt: skip
    agenda = [
        *opening(), Step(3000, "test.start", {"tests": ["temg_probe"], "lease": "script"}),
        Step(4000, "stim.arm", probe), Step(RATE, "threshold.run", {"test": "temg_probe", "lease": "script"}),
        Step(2 * RATE, "stim.arm", probe), Step(3 * RATE, "stim.fire", {"token": "script"}),
        Step(4 * RATE, "test.stop", {"tests": ["temg_probe"]}),
    ]  # fmt: skip
    run = CaseRun(tmp_path / "state", tmp_path / "p.toml", agenda, 5.0, inputs=20).run()
    refused = run.refusals()
    assert [m for m, _ in refused] == ["stim.arm", "stim.fire"] and "threshold search" in refused[0][1]
    found = next(d["threshold"] for d in run.of("reading") if isinstance(d, dict))
    assert found["threshold_ma"] is None and not found["not_reached"] and found["ended"] == "the test was stopped"
    assert all(r.stimulus.set_ma < 20.0 for r in run.of("reading") if not isinstance(r, dict))


def test_a_repetition_that_cannot_go_on_says_so_and_is_disarmed(tmp_path):
    (tmp_path / "r.toml").write_text('[scenario]\nname = "r"\n[device]\ninputs = 28\nrate_hz = 10000\n')
    again = {**FOUR, "rate_hz": 0.2, "lease": "script"}  # the test's own gap between deliveries is 20 s
    agenda = [
        *opening(), Step(3000, "test.start", {"tests": ["tof"], "lease": "script"}), Step(RATE, "stim.arm", again),
        Step(2 * RATE, "stim.fire", {"token": "script"}), Step(15 * RATE, "case.close", {}),
    ]  # fmt: skip
    case = CaseRun(tmp_path / "state", tmp_path / "r.toml", agenda, 17.0, inputs=28).run()
    (told,) = [d for d in case.of("stim") if d["state"] == "not delivered"]
    assert told["test"] == "tof"
    assert told["reason"].startswith("the repetition on tibial_right ended: tof was delivered")
    assert len([d for d in case.of("stim") if d["state"] == "delivery"]) == 1 and case.of("alarm") == []
