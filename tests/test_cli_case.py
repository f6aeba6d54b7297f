"""`ionmd case` and its errors on what a disk may hold: each names what came, what was expected and what to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_case_recorder import LABELS, RATE, Source

from ionmd.case.recorder import Recorder
from ionmd.cli import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("finished")
    recorder = Recorder(state)
    recorder.start()
    header = {"template": "cervical", "source": "simulated", "person": "Kim"}
    recorder.open_case("whole", header, LABELS, 0.03125, RATE)
    source = Source()
    for _ in range(4):
        recorder.raw(source.fill(50))
    recorder.journal("event", 100, {"event": {"id": "E1", "kind": "step", "text": "exposure", "at": 100}})
    recorder.journal("alarm", 150, {"id": "A1", "state": "active", "priority": "high", "sentence": "A lead is off."})
    recorder.close_case()
    assert recorder.stop()
    return state


@pytest.fixture
def state(finished: Path, tmp_path: Path) -> Path:
    """One whole case and one of each kind of trouble."""
    cases = tmp_path / "cases"
    cases.mkdir()
    for name in ("whole", "cut", "flip", "unlisted", "garbled"):
        shutil.copytree(finished / "cases" / "whole", cases / name)
    os.truncate(cases / "cut" / "journal.jsonl", (cases / "cut" / "journal.jsonl").stat().st_size - 30)
    raw = bytearray((cases / "flip" / "raw-0001.bdf").read_bytes())
    raw[-700] ^= 1
    (cases / "flip" / "raw-0001.bdf").write_bytes(raw)
    (cases / "unlisted" / "manifest.json").unlink()
    (cases / "garbled" / "manifest.json").write_text('{"x')
    (cases / "garbled" / "journal.jsonl").write_bytes(b"\xff\x00\n" * 3)
    (cases / "foreign").mkdir()
    (cases / "foreign" / "notes.txt").write_text("not a case")
    return tmp_path


def run(state: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["case", *words, "--state-dir", str(state)])


def test_the_list_shows_every_case_whatever_its_state(state: Path) -> None:
    found = {c["case_id"]: c for c in json.loads(run(state, "list", "--json").stdout)["cases"]}
    assert {name: c["state"] for name, c in found.items()} == {
        "whole": "closed", "cut": "open", "flip": "closed", "unlisted": "closed", "garbled": "damaged",
    }
    assert (found["whole"]["template"], found["whole"]["source"]) == ("cervical", "simulated")
    text = run(state, "list").stdout
    assert "CASE" in text and "OPENED (UTC)" in text and "whole" in text


def test_an_empty_state_directory_says_so(tmp_path: Path) -> None:
    assert run(tmp_path, "list").stdout == f"no case in {tmp_path}\n"
    assert run(tmp_path, "verify").stdout == f"no case in {tmp_path}\n"
    assert run(tmp_path, "recover").stdout == "no interrupted case\n"


def test_the_page_of_a_case_has_its_people_events_alarms_and_files(state: Path) -> None:
    text = run(state, "show", "whole").stdout
    for words in ("whole  closed", "cervical", "Kim", "0.2 s: 200 samples at 1000 Hz, 1 segment", "exposure",
                  "A lead is off.", "raw-0001.bdf"):  # fmt: skip
        assert words in text
    page = json.loads(run(state, "show", "whole", "--json").stdout)
    assert page["raw_samples"] == 200 and page["kinds"]["event"] == 1 and "index.sqlite" not in page["files"]


def test_verify_without_an_id_takes_every_directory_and_names_what_is_wrong(state: Path) -> None:
    result = run(state, "verify", "--json")
    assert result.exit_code == 1
    cases = {c["case_id"]: c for c in json.loads(result.stdout)["cases"]}
    assert [name for name, c in cases.items() if c["ok"]] == ["unlisted", "whole"]
    assert any("torn line" in n for n in cases["cut"]["notes"])
    assert any("manifest.json" in p for p in cases["cut"]["problems"])
    assert any("raw-0001.bdf: record 1 (samples 100 to 200)" in p for p in cases["flip"]["problems"])
    assert any("manifest.json is missing" in n for n in cases["unlisted"]["notes"])
    assert cases["garbled"]["problems"][0] == "journal.jsonl:1: not a journal line (no hash at its end)"
    assert any("manifest.json is damaged" in p for p in cases["garbled"]["problems"])
    assert "a case directory was expected" in cases["foreign"]["problems"][0]
    text = run(state, "verify", "whole").stdout
    assert text.startswith("whole  closed  verified: ")


def test_recover_says_what_it_did_and_what_it_could_not_do(state: Path) -> None:
    result = run(state, "recover")
    assert result.exit_code == 1
    assert "cut: journal.jsonl: " in result.stdout and "it was never acknowledged; marked interrupted" in result.stdout
    assert "garbled: journal.jsonl: 9 damaged bytes" in result.stdout and "kept in journal.cut-0001" in result.stdout
    assert "whole" not in result.stdout
    assert "foreign: not recovered:" in result.stderr and "a case directory was expected" in result.stderr
    again = run(state, "recover", "cut", "garbled")
    assert (again.exit_code, again.stdout) == (0, "cut: nothing to do\ngarbled: nothing to do\n")


def test_recover_is_refused_while_a_daemon_writes_there(state: Path) -> None:
    recorder = Recorder(state)
    recorder.start()
    try:
        result = run(state, "recover", "cut")
    finally:
        recorder.stop()
    assert result.exit_code == 1 and "in use by another ionmd" in result.stderr


@pytest.mark.parametrize("words", [("show", "none"), ("verify", "none"), ("recover", "none")])
def test_an_unknown_case_is_told_with_what_to_do(state: Path, words: tuple[str, ...]) -> None:
    result = run(state, *words)
    assert result.exit_code == 1
    assert result.stderr.startswith("ionmd: case none came;") and "`ionmd case list`" in result.stderr


@pytest.mark.parametrize("case_id", ["../whole", "a/b", ".hidden", "x" * 65])
def test_what_can_be_no_id_is_a_usage_error(state: Path, case_id: str) -> None:
    result = run(state, "show", case_id)
    assert result.exit_code == 2 and "case id" in result.stderr


def test_a_directory_that_is_no_case_is_told(state: Path) -> None:
    result = run(state, "show", "foreign")
    assert result.exit_code == 1 and "no journal.jsonl is there; a case directory was expected" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_case_that_may_not_be_read_hides_no_other(state: Path) -> None:
    (state / "cases" / "cut").chmod(0)
    try:
        result = run(state, "list")
        assert result.exit_code == 0 and "cut: Permission denied" in result.stderr and "whole" in result.stdout
        assert run(state, "verify").exit_code == 1
        assert "must be readable" in run(state, "show", "cut").stderr
    finally:
        (state / "cases" / "cut").chmod(0o700)
