"""The same over USB: `ionmd run` beside the simulator, a scenario's operator, and the journal that is left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ionmd.case.verify import verify

ROOT = Path(__file__).parents[1]

SCENARIO = """
[scenario]
name = "usb"
seed = 3
duration_s = 30
[device]
inputs = 28
rate_hz = 10000
[patient]
probe_contact = true
probe_threshold_ma = 3.5
probe_muscles = ["DELT-R"]
[[event]]
kind = "loss"
at_s = 5.5
muscles = ["AH-L"]
ratio = 0.0
cause = "focal"
side = "left"
"""
TES = '{output = "tes", site = "C3/C4", amplitude_v = 300.0, width_us = 75, polarity = "biphasic", count = 5, ' \
      'interval_ms = 2.0, lease = "script"}'  # fmt: skip
FOUR = '{output = "tibial_right", site = "ankle", amplitude_ma = 40.0, width_us = 200, count = 4, ' \
       'interval_ms = 500.0, lease = "script"}'  # fmt: skip
FIRE = '{token = "script"}'
OPERATOR = [
    (0.1, "person.sign_in", '{name = "Kim"}'), (0.2, "case.open", '{case_id = "usb"}'), (0.3, "stim.acquire", "{}"),
    (0.4, "test.start", '{tests = ["mep_tes", "tof", "temg_probe", "emg_free"], lease = "script"}'),
    (0.5, "stim.arm", TES), (1.5, "stim.fire", FIRE), (3.0, "stim.fire", FIRE),
    (4.0, "baseline.set", '{test = "mep_tes", kind = "pre-position", reason = "two trains agree"}'),
    (6.0, "stim.fire", FIRE), (7.5, "stim.fire", FIRE),
    (8.5, "stim.arm", FOUR), (9.5, "stim.fire", FIRE),
    (12.0, "threshold.run", '{test = "temg_probe", lease = "script"}'), (18.0, "case.close", "{}"),
]  # fmt: skip


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> tuple[Path, list[dict]]:
    place = tmp_path_factory.mktemp("usb")
    steps = [f'[[operator]]\nat_s = {at}\nmethod = "{m}"\nparams = {p}\n' for at, m, p in OPERATOR]
    (place / "usb.toml").write_text(SCENARIO + "".join(steps))
    done = subprocess.run(
        [sys.executable, "-m", "ionmd", "run", "--simulate", str(place / "usb.toml"), "--speed", "max", "--duration",
         "19", "--socket", str(place / "s"), "--state-dir", str(place / "state")],
        capture_output=True, text=True, timeout=200, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    case = place / "state" / "cases" / "usb"
    return case, [json.loads(line) for line in (case / "journal.jsonl").read_text().splitlines()]


def of(record, kind: str) -> list[dict]:
    return [line["data"] for line in record[1] if line["kind"] == kind]


def test_nothing_that_the_operator_asked_was_refused_and_the_record_verifies(record):
    assert [a for a in of(record, "audit") if "refused" in a] == []
    assert verify(record[0]).problems == []


def test_four_trains_of_eight_muscles_lose_one_muscle_and_the_second_confirms_it(record):
    found = [r for r in of(record, "reading") if r.get("test") == "mep_tes"]
    assert len(found) == 32 and {r["derivation"] for r in found if r["status"] == "absent"} == {"AH-L"}
    changes = [a for a in of(record, "alarm") if a["kind"] == "physiological"]
    assert [(a["state"], a["derivations"], a["side"]) for a in changes] == [
        ("possible", ["AH-L"], "left"), ("active", ["AH-L"], "left")]  # fmt: skip


def test_the_train_of_four_and_the_threshold_are_there(record):
    tof = next(r for r in of(record, "reading") if r.get("test") == "tof")
    assert next(m["value"] for m in tof["measures"] if m["label"] == "T4/T1") > 0.9
    found = of(record, "threshold")[0]["threshold"]
    assert 3.0 <= found["threshold_ma"] <= 5.0 and found["muscles"] == ["DELT-R"]
    assert not [a for a in of(record, "alarm") if a["kind"] == "technical"]
