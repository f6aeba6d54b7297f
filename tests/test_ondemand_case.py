"""Tests that answer on demand, through the whole way: requests in, answers held against what the patient really did."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from ondemand_truth import Truth, recorded_pulses
from rig import RATE, SCENARIOS, CaseRun, opening

from ionmd.agenda import Step
from ionmd.cli import main

FILE = SCENARIOS / "ondemand.toml"
TESTS = ["mep_tes", "tof", "temg_probe", "emg_free"]
TES = {"output": "tes", "site": "C3/C4", "amplitude_v": 300.0, "width_us": 75, "polarity": "biphasic", "count": 5,
       "interval_ms": 2.0, "lease": "script"}  # fmt: skip
FOUR = {"output": "tibial_right", "site": "ankle", "amplitude_ma": 40.0, "width_us": 200, "count": 4,
        "interval_ms": 500.0, "lease": "script"}  # fmt: skip
LOST = {"APB-R", "TA-R", "AH-R"}
LOSS, CONTACT, BURST, CAUTERY = 8 * RATE, 29 * RATE, 40 * RATE, (42 * RATE, round(43.5 * RATE))


def fired(at_s: float, what: dict) -> list[Step]:
    """One delivery: armed a second before."""
    at = round(at_s * RATE)
    return [Step(at - RATE, "stim.arm", what), Step(at, "stim.fire", {"token": "script"})]


def agenda() -> list[Step]:
    return [
        *opening(), Step(3000, "test.start", {"tests": TESTS, "lease": "script"}),
        *fired(2, TES), *fired(4, TES),
        Step(5 * RATE, "baseline.set", {"test": "mep_tes", "kind": "pre-position", "reason": "two trains agree"}),
        *fired(6.5, TES), *fired(9.5, TES), *fired(11.5, TES),
        *fired(14, FOUR),
        Step(15 * RATE, "stim.fire", {"token": "script"}),  # too soon
        Step(17 * RATE, "threshold.run", {"test": "temg_probe", "lease": "script"}),
        Step(30 * RATE, "threshold.run", {"test": "temg_probe", "lease": "script"}),
        *fired(62, FOUR),
        Step(65 * RATE, "case.close", {"reason": "end"}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[CaseRun, Truth]:
    with recorded_pulses() as pulses:
        case = CaseRun(tmp_path_factory.mktemp("state"), FILE, agenda(), 66.0, inputs=28).run()
    return case, Truth(str(FILE), 1, pulses, 28, RATE)


@pytest.fixture(scope="module")
def case(seen) -> CaseRun:
    return seen[0]


@pytest.fixture(scope="module")
def truth(seen) -> Truth:
    return seen[1]


def readings(case: CaseRun, test: str) -> list:
    return [r for r in case.of("reading") if getattr(r, "test", "") == test]


def size(reading, label: str) -> float | None:
    return next(m.amplitude_uv if m.amplitude_uv is not None else m.value for m in reading.measures if m.label == label)


def trains(case: CaseRun) -> list[int]:
    return sorted({r.first_sample for r in readings(case, "mep_tes")})


# ---------------------------------------------------------------- motor evoked potentials


def test_every_train_gives_eight_muscles_and_is_announced_before(case):
    assert len(trains(case)) == 5 and len(readings(case, "mep_tes")) == 40
    told = [(d["at_sample"], sample) for t, d, sample in case.events
            if t == "stim" and d.get("state") == "about to fire"]  # fmt: skip
    assert [at for at, _ in told] == trains(case)
    assert all(at - sample >= 200 * RATE // 1000 for at, sample in told)


def test_size_and_presence_are_those_of_the_patient(case, truth):
    for r in readings(case, "mep_tes"):
        real = np.ptp(truth.muscle(r.derivation, r.first_sample, 100))
        if real < 10.0:
            assert r.status == "absent" and r.markers == [], r
        else:
            assert r.status == "present", r
            assert size(r, "MEP p-p") == pytest.approx(real, rel=0.12, abs=25.0)
            assert r.stimulus.ok and r.stimulus.set_v == 300.0 and r.stimulus.pulses == 5


def test_onsets_are_those_of_the_patient(case, truth):
    """The noise of muscle (2 uV) decides when a response that begins slowly is seen: 0.5 ms in the median."""
    away = []
    for r in readings(case, "mep_tes"):
        real = truth.muscle(r.derivation, r.first_sample, 100)
        real = np.abs(real - real[0])
        if r.status == "present":
            away.append(r.markers[0].onset_ms - float(np.argmax(real > 0.02 * real.max())) * 1000 / RATE)
    assert len(away) == 34 and np.median(np.abs(away)) < 0.5 and np.percentile(np.abs(away), 90) < 1.5


def test_two_trains_are_a_baseline_of_every_muscle_that_answered(case):
    baseline = next(d["baseline"] for d in case.of("case") if "baseline" in d)
    assert len(baseline.readings) == 8 and baseline.averages == ["mep_tes-1", "mep_tes-2"]
    pair = [r for r in readings(case, "mep_tes") if r.first_sample in trains(case)[:2] and r.derivation == "APB-L"]
    kept = next(r for r in baseline.readings if r.derivation == "APB-L")
    assert size(kept, "MEP p-p") == pytest.approx(np.mean([size(r, "MEP p-p") for r in pair]))


def test_a_bad_train_asks_for_a_repeat_at_once_and_the_next_one_confirms(case):
    changes = [a for a in case.of("alarm") if a.kind == "physiological"]
    possible, active = changes[0], next(a for a in changes if a.state == "active")
    assert possible.state == "possible" and possible.opened_sample > LOSS
    assert set(possible.derivations) == LOST and any("repeat" in e for e in possible.evidence)
    wanted = [(d, s) for t, d, s in case.events if t == "stim" and d.get("state") == "repeat wanted"]
    assert [(d["test"], s - possible.sample <= RATE // 100) for d, s in wanted] == [("mep_tes", True)]
    bad = [r for r in trains(case) if r > LOSS]
    assert bad[0] < possible.sample < bad[1] < active.sample
    assert active.sample - bad[1] < RATE // 2


def test_the_change_names_muscles_side_and_cause(case):
    active = next(a for a in case.of("alarm") if a.kind == "physiological" and a.state == "active")
    assert (active.test, active.side, active.cause, active.priority) == ("mep_tes", "right", "focal", "high")
    assert all(muscle in active.sentence for muscle in LOST)
    assert {c.rule for c in active.criterion} >= {"loss", "drift-corrected"}


def test_a_train_before_the_loss_raises_nothing(case):
    assert not [a for a in case.of("alarm") if a.opened_sample < LOSS]


# ---------------------------------------------------------------- train of four


def test_the_four_responses_and_their_ratio_are_those_of_the_patient(case, truth):
    found = readings(case, "tof")
    assert len(found) == 2
    for r in found:
        real = [np.ptp(truth.muscle("AH-R", r.first_sample + k * RATE // 2, 30)) for k in range(4)]
        for k in range(4):
            assert size(r, f"T{k + 1}") == pytest.approx(real[k], rel=0.03, abs=30.0)
        assert size(r, "T4/T1") == pytest.approx(real[3] / real[0], abs=0.03)
        assert size(r, "count") == 4.0
    fresh, relaxed = (size(r, "T4/T1") for r in found)
    assert fresh > 0.9 > relaxed


def test_a_train_too_soon_is_refused_with_the_time_to_wait(case):
    method, words = case.refusals()[0]
    assert method == "stim.fire" and "20 s" in words and "fire again in 19" in words
    assert len(case.refusals()) == 1


# ---------------------------------------------------------------- probe


def thresholds(case: CaseRun) -> list:
    return [d["threshold"] for d in case.of("reading") if isinstance(d, dict) and "threshold" in d]


def test_a_probe_in_the_air_is_a_state_and_never_an_alarm_or_a_threshold(case):
    first = thresholds(case)[0]
    assert first["no_contact"] and first["threshold_ma"] is None and not first["not_reached"]
    assert first["sample"] < CONTACT
    states = [d["state"] for d in case.of("stim") if d.get("state") in ("contact", "no contact")]
    assert states == ["no contact", "contact"]
    assert not [a for a in case.of("alarm") if a.kind == "technical"]
    assert not [r for r in readings(case, "temg_probe") if r.sample < CONTACT]


def test_the_threshold_is_that_of_the_root_with_width_polarity_and_return(case, truth):
    found = thresholds(case)[1]
    pulses = [(r.stimulus.set_ma, np.ptp(truth.muscle("DELT-R", r.first_sample, 50)))
              for r in readings(case, "temg_probe") if r.derivation == "DELT-R"]  # fmt: skip
    answered = [ma for ma, uv in pulses if uv >= 100.0]
    assert found["threshold_ma"] == pytest.approx(min(answered), abs=1.0)
    assert answered.count(found["threshold_ma"]) >= 2
    assert found["muscles"] == ["DELT-R"]
    assert (found["width_us"], found["polarity"], found["return_electrode"]) == (
        200, "cathodal", "needle in paraspinal muscle")  # fmt: skip
    assert found["train_of_four_ratio"] == pytest.approx(size(readings(case, "tof")[0], "T4/T1"))
    assert found["steps"] == len(pulses)


# ---------------------------------------------------------------- free EMG


def bursts(case: CaseRun) -> list[dict]:
    return [d["burst"] for d in case.of("emg") if "burst" in d]


def test_a_burst_is_an_event_of_its_muscle_and_nothing_else_is(case):
    ended = [b for b in bursts(case) if b["stop_sample"] is not None]
    assert [b["derivation"] for b in ended] == ["TA-L"]
    assert ended[0]["start_sample"] == pytest.approx(BURST, abs=RATE // 20)
    assert ended[0]["stop_sample"] == pytest.approx(BURST + 0.4 * RATE, abs=RATE // 10)


def test_neither_trains_nor_the_probe_nor_twitches_count_as_activity(case):
    assert {b["derivation"] for b in bursts(case)} == {"TA-L"}
    loud = [c["rms_uv"] for d in case.of("emg") for c in d.get("muscles", [])
            if c["rms_uv"] is not None and not BURST - RATE < d["sample"] < BURST + 2 * RATE]  # fmt: skip
    assert max(loud) < 8.0


def test_cautery_mutes_as_a_state_and_a_burst_under_it_is_not_told(case):
    changes = [(d["muted"], d["cause"], d["sample"]) for d in case.of("emg") if "muscles" not in d and "muted" in d]
    assert [(m, c) for m, c, _ in changes] == [(True, "cautery"), (False, "")]
    assert changes[0][2] == pytest.approx(CAUTERY[0], abs=RATE // 100)
    assert CAUTERY[1] < changes[1][2] <= CAUTERY[1] + RATE // 2
    inside = [d for d in case.of("emg") if "muscles" in d and CAUTERY[0] + RATE <= d["sample"] < CAUTERY[1]]
    assert inside and all(d["muted"] and not c["active"] and c["rms_uv"] is None for d in inside
                          for c in d["muscles"])  # fmt: skip


# ---------------------------------------------------------------- the record


def test_the_stored_case_replays_to_the_same_results(case):
    done = CliRunner().invoke(main, ["replay", str(case.state_dir / "cases" / "case-1"), "--json"])
    assert done.exit_code == 0, done.stderr
    again = [json.loads(x) for x in done.stdout.splitlines()]
    found = [x["data"] for x in again if x["topic"] == "reading" and x["data"].get("test") == "mep_tes"]
    assert len(found) == len(readings(case, "mep_tes"))
