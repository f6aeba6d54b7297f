"""index.sqlite is derived: whatever happens to it, its content is what the journal says."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from test_case_recorder import LABELS, RATE, Source

from ionmd.case.index import INDEX, open_index
from ionmd.case.index_tables import SCHEMA
from ionmd.case.recorder import Recorder
from ionmd.errors import StorageError

PERSON = {"person": {"name": "Kim", "credential": "CNIM", "function": "technologist"}, "uid": 7, "since": 0}
LINES = [
    ("session", {"device_session": 4_000_000_000, "boot_id": 1 << 63, "device_first_sample": 0, "gap_samples": 0,
                 "gap_exact": True, "method": "start", "uncertainty_samples": 0, "rate_hz": 1000.0, "serial": "S1"}),
    ("attendance", {"attendance": PERSON}),
    ("event", {"event": {"id": "E1", "kind": "step", "text": "x'); --", "at": 5, "entered_at": 9, "person": "Kim"}}),
    ("gap", {"gap": {"first_sample": 40, "samples": 7, "exact": True, "cause": "lost"}}),
    ("average", {"id": "t-1", "test": "t", "kind": "average", "first_sample": 1, "sweeps": 300, "rejected": 2}),
    ("reading", {"id": "t-1/A", "test": "t", "derivation": "A", "status": "present", "snr_db": 3.5,
                 "markers": [{"label": "N20", "status": "present", "latency_ms": 19.5}],
                 "measures": [{"label": "N20-P23", "status": "present", "amplitude_uv": 2.5}]}),
    ("baseline", {"baseline": {"id": "B1", "test": "t", "kind": "other", "averages": ["t-1"], "active": True}}),
    ("alarm", {"id": "A1", "kind": "technical", "state": "active", "priority": "high", "sentence": "off"}),
    ("episode", {"episode": {"id": "P1", "alarm": "A1", "opened_sample": 60, "entries": [{"words": "told"}]}}),
    ("delivery", {"test": "t", "output": 0, "ok": True}),
    ("delivery", {"test": "t", "output": 0, "ok": False, "refused": 14}),
    ("baseline", {"baseline": {"active": "B1", "test": "t", "reason": "as before", "person": "Kim"}}),
    ("reading", "not the shape that was expected"),
]  # fmt: skip


@pytest.fixture
def case_dir(tmp_path: Path) -> Path:
    recorder = Recorder(tmp_path)
    recorder.start()
    recorder.open_case("c1", {"template": "cervical", "source": "simulated"}, LABELS, 0.03125, RATE)
    recorder.raw(Source().fill(60))
    for i, (kind, data) in enumerate(LINES):
        recorder.journal(kind, i, data)
    recorder.close_case()
    assert recorder.stop()
    return tmp_path / "cases" / "c1"


def content(case_dir: Path) -> dict[str, list[dict]]:
    with open_index(case_dir) as index:
        return {table: index.rows(table) for table in SCHEMA}


def test_a_closed_case_has_its_index_with_line_and_sample_of_every_row(case_dir: Path) -> None:
    assert (case_dir / INDEX).stat().st_mode & 0o777 == 0o600
    found = content(case_dir)
    facts = {row["key"]: row["value"] for row in found["meta"]}
    assert (facts["state"], facts["template"], facts["source"]) == ("closed", "cervical", "simulated")
    assert facts["lines"] == sum(row["lines"] for row in found["kinds"])
    assert [(r["n"], r["sample"], r["boot_id"]) for r in found["sessions"]] == [(2, 0, str(1 << 63))]
    assert [(r["n"], r["sample"], r["name"], r["uid"]) for r in found["persons"]] == [(3, 1, "Kim", 7)]
    assert [(r["text"], r["at"]) for r in found["events"]] == [("x'); --", 5)]
    assert [(r["source"], r["first_sample"], r["samples"]) for r in found["gaps"]] == [("device", 40, 7)]
    assert [(r["n"], r["label"], r["latency_ms"], r["provenance"]) for r in found["markers"]] == [
        (7, "N20", 19.5, "auto")
    ]
    assert [(r["n"], r["label"], r["amplitude_uv"]) for r in found["measures"]] == [(7, "N20-P23", 2.5)]
    assert [(r["n"], r["kind"], r["snr_db"]) for r in found["readings"]] == [(7, "average", 3.5), (14, "average", None)]
    assert [(r["id"], r["active"]) for r in found["baselines"]] == [("B1", 1), ("B1", 1)]
    assert [r["entries"] for r in found["episodes"]] == ['[{"words":"told"}]']
    assert [(r["deliveries"], r["ok"], r["refused"], r["first_n"], r["last_n"]) for r in found["deliveries"]] == [
        (2, 1, 1, 11, 12)
    ]
    assert [(r["file"], r["records"], r["state"]) for r in found["segments"]] == [("raw-0001.bdf", 1, "closed")]


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 + 3] ^= 0xFF  # the header of a page of rows
    path.write_bytes(data)


def another(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as sql:
        sql.execute("CREATE TABLE meta (key, value)")
        sql.execute("CREATE TABLE readings (x)")
    sql.close()


def of_another_journal(path: Path) -> None:
    with sqlite3.connect(path) as sql:
        sql.execute("UPDATE meta SET value = 'f00' WHERE key = 'head'")
        sql.execute("DELETE FROM readings")
    sql.close()


def a_link(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_text("keep")
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("damage", [Path.unlink, zeros, half, flipped, another, of_another_journal, a_link])
def test_a_lost_or_damaged_index_is_made_again_with_the_same_content(case_dir: Path, damage) -> None:
    before = content(case_dir)
    damage(case_dir / INDEX)
    assert content(case_dir) == before
    assert not (case_dir / INDEX).is_symlink()
    elsewhere = case_dir.parent / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_text() == "keep"
    with open_index(case_dir) as index:
        assert not index.in_memory


def test_the_index_of_a_growing_journal_is_read_on(case_dir: Path) -> None:
    whole = content(case_dir)
    journal = case_dir / "journal.jsonl"
    data = journal.read_bytes()
    (case_dir / INDEX).unlink()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for end in (ends[3], ends[8] + 20, len(data)):  # the second one has a torn line at its end
        journal.write_bytes(data[:end])
        with open_index(case_dir) as index:
            assert index.facts()["lines"] == data[:end].count(b"\n")
    assert content(case_dir) == whole


def test_where_no_index_can_be_written_it_is_made_in_memory(case_dir: Path) -> None:
    before = content(case_dir)
    (case_dir / INDEX).unlink()
    (case_dir / INDEX).mkdir()
    with open_index(case_dir) as index:
        assert index.in_memory
        assert {table: index.rows(table) for table in SCHEMA} == before


def test_a_table_that_is_not_there_is_refused_by_name(case_dir: Path) -> None:
    with open_index(case_dir) as index, pytest.raises(ValueError, match="readings; DROP"):
        index.rows("readings; DROP TABLE meta")


def test_a_journal_is_needed_and_a_forged_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        open_index(tmp_path)
    from ionmd.case.journal import NO_HASH, head_of, link

    line, _ = link(head_of(1 << 70, "event", 1, 0, b"{}"), NO_HASH)
    (tmp_path / "journal.jsonl").write_bytes(line)
    with pytest.raises(StorageError, match="no index can be made"):
        open_index(tmp_path)
