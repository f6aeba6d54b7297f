"""Not monitored: why, and for how long; through whole short cases in virtual time."""

from __future__ import annotations

import msgspec
from rig import RATE, CaseRun, opening

from ionmd import catalog
from ionmd.agenda import Step

TEST = "ssep_median_left"
HEAD = """
[scenario]
name = "validity"
seed = 4
duration_s = 400
[device]
inputs = 8
rate_hz = 10000
"""
NOISY = """
[[event]]
kind = "electrode"
at_s = 30
until_s = {until}
electrodes = ["CP4"]
state = "noisy"
"""


def run(tmp_path, events: str, steps: list[Step], seconds: float, reject_uv: float = 25.0) -> CaseRun:
    scenario = tmp_path / "validity.toml"
    scenario.write_text(HEAD + events)
    agenda = opening()
    agenda += [
        Step(2500, "test.set", {"test": TEST, "rate_hz": 5.1, "sweeps": 100, "reject_uv": reject_uv}),
        Step(3000, "test.start", {"tests": [TEST], "lease": "script"}), *steps,
        Step(round((seconds - 1) * RATE), "case.close", {"reason": "end"}),
    ]
    agenda.sort(key=lambda s: s.at_sample)
    cervical = catalog.templates()["cervical"]
    head = msgspec.structs.replace(cervical.template, reminder_min=0.5)
    templates = {"cervical": msgspec.structs.replace(cervical, template=head)}
    return CaseRun(tmp_path / "state", scenario, agenda, seconds, templates=templates).run()


def state_at(case: CaseRun, derivation: str, seconds: float) -> dict:
    """The newest word about a derivation by then: monitored, or not: why."""
    return [
        data for topic, data, sample in case.events
        if topic == "quality" and data.get("derivation") == derivation and sample <= seconds * RATE
    ][-1]


def test_sweeps_that_are_all_rejected_are_a_state_with_its_reason_and_its_end(tmp_path):
    case = run(tmp_path, NOISY.format(until=60), [], 90)
    assert case.refusals() == []
    assert not state_at(case, "CP4-Fpz", 50)["monitored"]
    assert "every sweep is rejected: noise or movement" in state_at(case, "CP4-Fpz", 50)["reasons"]
    assert state_at(case, "CP4-Fpz", 80)["reasons"] == ["no baseline yet"]
    assert state_at(case, "EPL-EPR", 50)["reasons"] == ["no baseline yet"]


def test_the_few_sweeps_that_pass_in_a_noisy_minute_raise_no_change_of_the_patient(tmp_path):
    baseline = Step(46 * RATE, "baseline.set", {"test": TEST, "kind": "pre-position", "reason": "stable"})
    case = run(tmp_path, NOISY.format(until=90).replace("at_s = 30", "at_s = 47"), [baseline], 110, reject_uv=50.0)
    assert case.refusals() == []
    few = {r.sweeps for r in case.of("reading") if r.kind == "recent" and r.sample > 68 * RATE and r.role == "alert"}
    assert 0 < min(few) < 10  # of 100: there were such averages
    assert [a.sentence for a in case.of("alarm") if a.kind == "physiological"] == []


def test_a_reading_that_grows_old_is_reminded_of_and_the_reminder_ends_with_the_next_valid_one(tmp_path):
    case = run(tmp_path, NOISY.format(until=85).replace('"CP4"', '"CP4", "Fpz", "CP3", "C5S"'), [], 110)
    old = [a for a in case.of("alarm") if a.code == "reading.old"]
    assert [a.state for a in old] == ["active", "cleared"]
    assert old[0].priority == "low" and "no valid reading for 30 s" in old[0].sentence
    assert any("every sweep is rejected" in e for e in old[0].evidence)
    assert 30 <= old[0].sample / RATE - 30 <= 45
    assert not [a for a in case.of("alarm") if a.kind == "physiological"]


def test_in_a_critical_step_the_reminder_comes_at_once_and_is_medium(tmp_path):
    step = Step(20 * RATE, "event.add", {"kind": "step", "text": "decompression"})
    case = run(tmp_path, NOISY.format(until=60).replace('"CP4"', '"CP4", "Fpz", "CP3"'), [step], 100)
    old = [a for a in case.of("alarm") if a.code == "reading.old"]
    assert old and old[0].priority == "medium" and old[0].sample / RATE < 60


def test_a_changed_pulse_width_makes_the_baseline_useless_and_says_so(tmp_path):
    steps = [
        Step(50 * RATE, "baseline.set", {"test": TEST, "kind": "pre-position", "reason": "stable"}),
        Step(52 * RATE, "test.set", {"test": TEST, "width_us": 300, "lease": "script"}),
    ]
    case = run(tmp_path, "", steps, 80)
    assert case.refusals() == []
    assert state_at(case, "CP4-Fpz", 51)["monitored"]
    late = state_at(case, "CP4-Fpz", 78)
    assert not late["monitored"] and "200" in late["why"] and "300" in late["why"]


def test_a_test_that_is_stopped_is_not_monitored_and_says_so(tmp_path):
    case = run(tmp_path, "", [Step(20 * RATE, "test.stop", {"tests": [TEST]})], 22)
    assert state_at(case, "CP4-Fpz", 22) == {
        "test": TEST, "derivation": "CP4-Fpz", "monitored": False, "why": "test not running",
        "reasons": ["test not running"],
    }
