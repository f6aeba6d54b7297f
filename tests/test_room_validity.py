"""Not monitored: why, and for how long; through whole short cases in virtual time."""

from __future__ import annotations

import json

from rig import RATE, CaseRun, opening

from ionmd.case.journal import JOURNAL, read_lines
from ionmd.daemon import Step

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


def run(tmp_path, events: str, steps: list[Step], seconds: float) -> CaseRun:
    scenario = tmp_path / "validity.toml"
    scenario.write_text(HEAD + events)
    agenda = opening()
    agenda += [
        Step(2500, "test.set", {"test": TEST, "rate_hz": 5.1, "sweeps": 100}),
        Step(3000, "test.start", {"tests": [TEST], "lease": "script"}), *steps,
        Step(round((seconds - 1) * RATE), "case.close", {"reason": "end"}),
    ]
    return CaseRun(tmp_path / "state", scenario, sorted(agenda, key=lambda s: s.at_sample), seconds).run()


def status_at(case: CaseRun, seconds: float) -> dict:
    """The answer of the `status` that was asked at that time."""
    found = [r for m, r, e in case.answers if m == "status" and e is None]
    states = {round(s.sample / RATE): s for s in found}
    test = next(t for t in states[round(seconds)].tests if t.test == TEST)
    return {d.derivation: d for d in test.derivations} | {"test": test}


def ask(*seconds: float) -> list[Step]:
    return [Step(round(s * RATE), "status", {}) for s in seconds]


def test_sweeps_that_are_all_rejected_are_a_state_with_its_reason_and_its_end(tmp_path):
    case = run(tmp_path, NOISY.format(until=60), ask(28, 50, 80), 90)
    assert case.refusals() == []
    assert not status_at(case, 50)["CP4-Fpz"].monitored
    assert "every sweep is rejected" in str(status_at(case, 50)["CP4-Fpz"].reason)
    assert "rejected" not in str(status_at(case, 80)["CP4-Fpz"].reason)
    assert "rejected" not in str(status_at(case, 50)["C5S-Fpz"].reason)


def test_a_reading_that_grows_old_is_reminded_of_and_the_reminder_ends_with_the_next_valid_one(tmp_path):
    case = run(tmp_path, NOISY.format(until=240).replace('"CP4"', '"CP4", "Fpz", "CP3", "C5S"'), [], 300)
    old = [a for a in case.of("alarm") if a.code == "reading.old"]
    assert [a.state for a in old] == ["active", "cleared"]
    assert old[0].priority == "low" and "no valid reading for 3 min" in old[0].sentence
    assert any("every sweep is rejected" in e for e in old[0].evidence)
    assert 180 <= old[0].sample / RATE - 30 <= 200
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
    case = run(tmp_path, "", [*steps, *ask(51, 70)], 80)
    assert case.refusals() == []
    assert status_at(case, 51)["CP4-Fpz"].monitored
    late = status_at(case, 70)["CP4-Fpz"]
    assert not late.monitored and "200" in late.reason and "300" in late.reason
    kinds = [line.kind for line in read_lines(case.state_dir / "cases" / "case-1" / JOURNAL)]
    assert "alarm" not in kinds or json.dumps(kinds)
