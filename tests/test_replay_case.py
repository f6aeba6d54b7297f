"""A stored case through the same pipeline gives the same results, byte for byte; what differs is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rig import RATE, SCENARIOS, CaseRun, opening

from ionmd.agenda import Step
from ionmd.case.canonical import canonical_result, canonical_results
from ionmd.case.verify import verify
from ionmd.cli import main

LEFT, RIGHT = "ssep_median_left", "ssep_median_right"


def agenda(case_id: str = "case-1") -> list[Step]:
    """Odd samples: requests split quanta."""

    def at(seconds: float, method: str, /, **params: object) -> Step:
        return Step(round(seconds * RATE) + 7, method, params)

    return [
        *opening(case_id),
        *(at(0.25, "test.set", test=t, rate_hz=5.1, sweeps=75) for t in (LEFT, RIGHT)),
        at(0.3, "test.start", tests=[LEFT, RIGHT], lease="script"),
        at(6.0, "stim.acquire"),  # the cable was out: disarmed
        at(6.1, "test.stop"),
        at(6.2, "impedance.measure"),
        at(7.0, "test.start", tests=[LEFT, RIGHT], lease="script"),
        *(at(45.0, "baseline.set", test=t, kind="pre-position", reason="stable") for t in (LEFT, RIGHT)),
        at(46.0, "event.add", kind="step", text="decompression"),
        at(50.0, "marker.set", test=LEFT, derivation="CP4-Fpz", label="N20", latency_ms=20.5, reason="shoulder"),
        at(52.0, "derivation.exclude", test=LEFT, derivation="C5S-Fpz", reason="noisy"),
        at(55.0, "derivation.include", test=LEFT, derivation="C5S-Fpz", reason="quiet again"),
        at(57.0, "test.set", test=RIGHT, amplitude_ma=27.0, lease="script"),
        at(59.0, "alarm.pause", seconds=2.0, reason="surgeon"),
        at(60.0, "episode.add", informed=["surgeon"], words="right responses fall"),
        at(80.0, "case.close", reason="end"),
    ]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> CaseRun:
    return CaseRun(tmp_path_factory.mktemp("state"), SCENARIOS / "replay.toml", agenda(), 81.0).run()


@pytest.fixture(scope="module")
def case_dir(case: CaseRun) -> Path:
    return case.state_dir / "cases" / "case-1"


def replayed(name: str | Path, *options: str) -> tuple[int, list[dict], str]:
    """Exit code, the NDJSON lines and what was said on stderr."""
    result = CliRunner().invoke(main, ["replay", str(name), "--json", *options])
    return result.exit_code, [json.loads(x) for x in result.stdout.splitlines()], result.stderr


def copied(case_dir: Path, to: Path) -> Path:
    shutil.copytree(case_dir, to / "cases" / case_dir.name)
    return to / "cases" / case_dir.name


def test_the_case_holds_every_kind_of_trouble(case: CaseRun) -> None:
    assert case.refusals() == []
    alarms = case.of("alarm")
    assert {a.code for a in alarms} >= {"device.lost", "electrode.lost", "stimulus.not-delivered"}
    assert any(a.kind == "physiological" and a.state == "active" for a in alarms)
    gaps = [d["gap"] for d in case.of("device") if isinstance(d, dict) and "gap" in d]
    assert [(g["cause"], g["samples"], g["exact"]) for g in gaps] == [("session", 15_000, True), ("lost", 300, True)]


def test_a_closed_case_gives_the_same_results_byte_for_byte(case: CaseRun, case_dir: Path) -> None:
    code, found, said = replayed("case-1", "--state-dir", str(case.state_dir))
    assert code == 0, said
    results = [canonical_result(x["topic"], x["sample"], x["data"]) for x in found if x["topic"] != "replay"]
    recorded = list(canonical_results(case_dir))
    assert results == recorded
    assert len(recorded) > 100
    assert found[-1]["data"] == {
        "case_id": "case-1", "same": True, "results": len(recorded), "until_sample": found[-1]["sample"],
    }


def test_a_changed_sample_is_a_difference_and_is_named(case_dir: Path, tmp_path: Path) -> None:
    other = copied(case_dir, tmp_path)
    path = other / "raw-0002.bdf"
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 60_000] = bytes(60_000)
    path.write_bytes(data)
    code, found, said = replayed(other)
    assert code == 1
    assert found[-1]["data"]["same"] is False
    assert "first difference: result" in said and "recorded" in said and "replayed" in said


def test_a_missing_request_is_a_difference(case_dir: Path, tmp_path: Path) -> None:
    other = copied(case_dir, tmp_path)
    journal = other / "journal.jsonl"
    kept = [x for x in journal.read_bytes().splitlines(keepends=True) if b'"method":"derivation.exclude"' not in x]
    journal.write_bytes(b"".join(kept))
    code, found, _ = replayed(other)
    assert code == 1
    assert found[-1]["data"]["results"] > 20


KILLED = """
import os, signal, sys
from pathlib import Path
from rig import RATE, SCENARIOS, CaseRun
from test_replay_case import agenda
run = CaseRun(Path(sys.argv[1]), SCENARIOS / "replay.toml", agenda(), 81.0)
def watch(topic, data, sample, n):
    if sample > 34 * RATE:
        os.kill(os.getpid(), signal.SIGKILL)
run.daemon._on_event = watch
run.run()
"""


def test_a_case_whose_daemon_was_killed_is_replayed_up_to_its_end_before_and_after_recovery(tmp_path: Path) -> None:
    here = Path(__file__).parent
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=here, capture_output=True,
                           env={**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"})  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2000:]
    other = tmp_path / "cases" / "case-1"
    code, _, said = replayed(other)
    assert code == 0, said
    assert "interrupted: compared up to sample" in said
    recovered = CliRunner().invoke(main, ["case", "recover", "case-1", "--state-dir", str(tmp_path)])
    assert recovered.exit_code == 0, recovered.output
    code, found, said = replayed("case-1", "--state-dir", str(tmp_path))
    assert code == 0, said
    assert found[-1]["data"]["results"] > 10
    assert verify(other).problems == []


def test_a_killed_case_whose_samples_end_first_is_compared_as_far_as_they_go(case_dir: Path, tmp_path: Path) -> None:
    other = copied(case_dir, tmp_path)
    (other / "manifest.json").unlink()
    journal, raw = other / "journal.jsonl", other / "raw-0002.bdf"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) * 3 // 5]))
    with raw.open("r+b") as file:
        file.truncate(raw.stat().st_size // 3)
    code, found, said = replayed(other)
    assert code == 0, said
    assert "are not in the record; the journal goes on" in said
    assert 20 * RATE < found[-1]["data"]["until_sample"] < 32 * RATE


def test_a_closed_case_without_some_of_its_samples_is_no_equal(case_dir: Path, tmp_path: Path) -> None:
    other = copied(case_dir, tmp_path)
    with (other / "raw-0002.bdf").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) // 3)
    code, _, said = replayed(other)
    assert code == 1 and "the results after them cannot be had again" in said


def test_a_resumed_case_is_replayed_sitting_by_sitting(tmp_path: Path) -> None:
    first = [s for s in agenda() if s.at_sample < 12 * RATE]
    CaseRun(tmp_path, SCENARIOS / "replay.toml", first, 11.0).run()
    again = [
        Step(1000, "person.sign_in", {"name": "Kim"}),
        Step(2000, "case.open", {"case_id": "case-1", "resume": True}),
        Step(120_000, "stim.acquire", {}),
        Step(121_000, "test.start", {"tests": [LEFT], "lease": "script"}),
        Step(400_000, "case.close", {}),
    ]
    second = CaseRun(tmp_path, SCENARIOS / "loss.toml", again, 41.0)
    assert second.run().refusals() == []
    code, found, said = replayed("case-1", "--state-dir", str(tmp_path))
    assert code == 0, said
    assert found[-1]["data"]["results"] == len(list(canonical_results(tmp_path / "cases/case-1"))) > 5


ELECTRODE_OFF = """
[scenario]
name = "off"
title = "an electrode that was never on"
seed = 2
duration_s = 20

[device]
inputs = 8
rate_hz = 10000

[[event]]
kind = "electrode"
at_s = 0
electrodes = ["CP4"]
state = "off"
"""


def test_what_was_known_before_the_case_is_known_to_its_replay(tmp_path: Path) -> None:
    """An electrode found bad, a lease, people and a pulse off the grid, all from before the case was opened."""
    (tmp_path / "off.toml").write_text(ELECTRODE_OFF)
    agenda = [
        Step(1000, "person.sign_in", {"name": "Kim"}),
        Step(1100, "impedance.measure", {}),
        Step(8000, "stim.acquire", {}),
        Step(8013, "case.open", {"case_id": "case-1"}),
        Step(9001, "test.start", {"tests": [LEFT], "lease": "script"}),
        Step(15_000, "stim.release", {"lease": "script"}),
        Step(16_000, "case.close", {}),
    ]
    run = CaseRun(tmp_path, tmp_path / "off.toml", agenda, 2.0).run()
    assert run.refusals() == []
    assert [a.code for a in run.of("alarm") if a.sample == 8013] == ["electrode.lost"]
    code, found, said = replayed("case-1", "--state-dir", str(tmp_path))
    assert code == 0, said
    assert [x["data"]["code"] for x in found if x["topic"] == "alarm"][:2] == ["electrode.lost", "stimulation.stopped"]


def test_a_case_and_a_test_together_are_a_usage_error(case_dir: Path) -> None:
    code, _, said = replayed(case_dir, "--test", LEFT)
    assert code == 2 and "a case is replayed with the tests it was recorded with" in said


def test_what_is_no_case_is_told(tmp_path: Path) -> None:
    code, _, said = replayed(tmp_path)
    assert code == 1 and "a case directory (`ionmd case list`) or a recording" in said
    code, _, said = replayed("nothing", "--state-dir", str(tmp_path))
    assert code == 2 and "the id of a case" in said
