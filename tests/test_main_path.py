"""From a stimulus in the device to a finding: one short case in virtual time, looked at from outside."""

import json
from pathlib import Path

import pytest
from rig import RATE, SCENARIOS, CaseRun, opening

from ionmd.agenda import Step
from ionmd.case.verify import verify

TESTS = ["ssep_median_left", "ssep_median_right"]
LOSS, LEAD_OFF = 75 * RATE, 105 * RATE


def agenda() -> list[Step]:
    steps = opening()
    for test in TESTS:
        steps.append(Step(2500, "test.set", {"test": test, "rate_hz": 5.1, "sweeps": 150}))
    steps.append(Step(3000, "test.start", {"tests": TESTS, "lease": "script"}))
    steps += [
        Step(66 * RATE, "baseline.set", {"test": t, "kind": "pre-position", "reason": "stable"}) for t in TESTS
    ]
    steps.append(Step(100 * RATE, "episode.add", {"informed": ["surgeon"], "words": "right SSEP is falling"}))
    steps.append(Step(118 * RATE, "case.close", {"reason": "end"}))
    return steps


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> CaseRun:
    return CaseRun(tmp_path_factory.mktemp("state"), SCENARIOS / "loss.toml", agenda(), 119.0).run()


def changes(case: CaseRun) -> list:
    return [a for a in case.of("alarm") if a.kind == "physiological"]


def test_no_request_of_the_case_was_refused(case):
    assert case.refusals() == []


def test_both_tests_average_verified_deliveries(case):
    finished = [a for a in case.of("average") if a.kind == "average"]
    assert {a.test for a in finished} == set(TESTS)
    assert all(a.stimulus.ok and abs(a.stimulus.delivered_ma - 25.0) < 1.0 for a in finished if a.sample < LEAD_OFF)


def test_a_loss_is_shown_within_50_sweeps_and_confirmed_within_150(case):
    rate = next(r.stimulus.rate_hz for r in case.of("reading") if r.test == "ssep_median_right")
    after = [a for a in changes(case) if a.sample > LOSS and a.test == "ssep_median_right"]
    possible = next(a for a in after if a.state == "possible")
    active = next(a for a in after if a.state == "active")
    assert (possible.sample - LOSS) / RATE * rate <= 50
    assert (active.sample - LOSS) / RATE * rate <= 150


def test_the_change_names_side_test_and_cause(case):
    active = next(a for a in changes(case) if a.state == "active")
    assert (active.test, active.side, active.cause, active.priority) == ("ssep_median_right", "right", "focal", "high")
    assert "right" in active.sentence and active.evidence
    assert {c.rule for c in active.criterion} >= {"drift-corrected"}


def test_the_surgeon_was_told_in_an_episode_of_that_change(case):
    episodes = [d["episode"] for d in case.of("case") if "episode" in d]
    told = [e for e in episodes if e.entries]
    assert told and told[-1].entries[0].informed == ["surgeon"]


def test_a_lead_that_falls_off_is_technical_and_never_an_alert_about_the_patient(case):
    technical = [a for a in case.of("alarm") if a.kind == "technical" and a.sample > LEAD_OFF]
    assert technical and technical[0].code == "stimulus.not-delivered"
    assert technical[0].sample - LEAD_OFF < 1 * RATE
    assert not [a for a in changes(case) if a.test == "ssep_median_left" and a.opened_sample > LEAD_OFF]


def test_the_record_verifies_and_holds_every_sample(case):
    report = verify(case.state_dir / "cases" / "case-1")
    assert report.problems == []
    assert report.state == "closed"
    assert report.raw_samples >= 117 * RATE


def test_a_changed_line_of_the_record_is_found(case, tmp_path):
    import shutil

    copy = tmp_path / "case-1"
    shutil.copytree(case.state_dir / "cases" / "case-1", copy)
    journal = copy / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"kind":"alarm"' in line)
    lines[at] = lines[at].replace('"high"', '"low"')
    journal.write_text("".join(lines))
    assert verify(copy).problems


def results(state_dir: Path) -> list[str]:
    """Average, reading and alarm lines without wall time, boot id and hashes."""
    kept = []
    for raw in (state_dir / "cases" / "case-1" / "journal.jsonl").read_text().splitlines():
        line = json.loads(raw)
        if line["kind"] in ("average", "reading", "alarm"):
            kept.append(json.dumps([line["kind"], line["sample"], line["data"]], sort_keys=True))
    return kept


def test_two_runs_with_one_seed_give_the_same_results_byte_for_byte(tmp_path):
    short = [s for s in agenda() if s.at_sample < 20 * RATE]
    runs = [CaseRun(tmp_path / str(i), SCENARIOS / "loss.toml", short, 20.0).run() for i in range(2)]
    first, second = (results(r.state_dir) for r in runs)
    assert len(first) > 8
    assert first == second
