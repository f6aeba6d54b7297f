"""The record under a disk that fails: what was acknowledged is there, what is there is what was measured."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ionmd.case.journal import scan_journal
from ionmd.case.recorder import Recorder
from ionmd.case.troubles import Trouble
from ionmd.case.verify import recover, verify
from tests.faulty_files import FailingFiles, LyingDisk
from tests.test_case_recorder import LABELS, RATE, Source, lines


def run_case(state: Path, files: object, blocks: int = 12, stop_s: float = 8.0) -> tuple[list[int], Source, bool]:
    """A short case; (acknowledged line numbers, what was measured, everything reached the disk)."""
    acked: list[int] = []
    source = Source()
    recorder = Recorder(state, files=files, sync_s=0.01)  # type: ignore[arg-type]
    recorder.start()
    recorder.open_case("c1", {"template": "cervical"}, LABELS, 0.03125, RATE)
    for i in range(blocks):
        recorder.raw(source.fill(50))
        if i % 2:
            recorder.drain(0.02 if stop_s < 8 else 3.0)
        recorder.journal("event", source.next, {"i": i}, acked.append)
    closed = threading.Event()
    recorder.close_case(on_closed=lambda _path: closed.set())
    done = recorder.stop(stop_s) and closed.is_set()
    return acked, source, done


def stored_counts(case: Path) -> dict[int, np.ndarray]:
    """Valid samples of all segments, by case sample, through an independent reader."""
    import pyedflib

    found: dict[int, np.ndarray] = {}
    raw = [x["data"] for x in lines(case / "journal.jsonl", "raw")]
    for line in raw:
        if line["state"] not in ("closed", "suspect") or not line["records"]:
            continue
        with pyedflib.EdfReader(str(case / line["file"])) as reader:
            data = np.array([reader.readSignal(i, digital=True) for i in range(len(LABELS))]).T
        for lo, hi in line["valid"]:
            for sample in range(lo, hi):
                assert sample not in found, f"sample {sample} is stored twice"
                found[sample] = data[sample - line["first_sample"]]
    return found


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "dirsync", "ftruncate rename"])
def test_one_failed_call_anywhere_loses_nothing(tmp_path: Path, call: str, code: int) -> None:
    """The nth call of each kind fails once, for n growing until no call is left to fail."""
    for nth in [*range(1, 12), 20, 30]:
        state = tmp_path / str(nth)
        state.mkdir()
        (state / "cases").mkdir()
        (state / "system").mkdir()
        files = FailingFiles(nth, code, calls=call, torn=True)
        acked, source, done = run_case(state, files)
        if not files.fired:
            break
        if call.startswith("ftruncate") or not done:  # the manifest's one attempt may be what failed
            assert (state / "cases/c1/journal.jsonl").exists()
        assert acked == sorted(acked) and len(acked) == 12
        case = state / "cases/c1"
        assert scan_journal(case / "journal.jsonl").findings == []
        stored = stored_counts(case)
        assert sorted(stored) == list(range(source.next))
        for sample, row in stored.items():
            np.testing.assert_array_equal(row, source.given[sample])
        assert verify(case).problems == []


def test_nothing_is_acknowledged_before_its_sync_succeeds(tmp_path: Path) -> None:
    files = FailingFiles(1, errno.EIO, times=10_000, calls="fsync")
    troubles: list[Trouble] = []
    recorder = Recorder(tmp_path, files=files, on_trouble=troubles.append, sync_s=0.01)
    recorder.start()
    recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    acked: list[int] = []
    for i in range(20):
        recorder.journal("event", i, {"i": i}, acked.append)
    recorder.drain(0.4)
    assert acked == [] and any(t.code == "disk_journal" and t.active for t in troubles)
    files.times = 0
    assert recorder.drain(5) and len(acked) == 20
    assert any(t.code == "disk_journal" and not t.active for t in troubles)
    recorder.stop()


def test_a_full_disk_keeps_the_journal_and_sheds_samples_with_a_counted_gap(tmp_path: Path) -> None:
    free = [0]
    recorder = Recorder(tmp_path, sync_s=0.01, free=lambda _p: free[0], backlog_bytes=12_000)
    recorder.start()
    source = Source()
    recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    acked = threading.Event()
    for _ in range(60):
        recorder.raw(source.fill(50))
    recorder.journal("alarm", source.next, {"id": "a1"}, lambda _n: acked.set())
    assert acked.wait(5)
    stats = recorder.stats()
    assert stats.shed_samples > 0 and {"disk_space", "raw_shed"} <= set(stats.troubles)
    free[0] = 1 << 40
    assert recorder.drain(5)
    recorder.raw(source.fill(50))
    recorder.close_case()
    assert recorder.stop()
    case = tmp_path / "cases/c1"
    stored = stored_counts(case)
    for sample, row in stored.items():
        np.testing.assert_array_equal(row, source.given[sample])
    gap = [x["data"] for x in lines(case / "journal.jsonl", "raw") if x["data"]["state"] == "gap"]
    assert sum(g["samples"] for g in gap) == stats.shed_samples == source.next - len(stored)
    assert gap[0]["cause"].startswith("shed")


@pytest.mark.parametrize("seed", range(25))
def test_a_power_cut_loses_no_acknowledged_line_and_leaves_an_exact_prefix(tmp_path: Path, seed: int) -> None:
    import pyedflib

    rng = np.random.default_rng(seed)
    disk = LyingDisk()
    disk.die_at = int(rng.integers(4, 60))
    acked, source, _ = run_case(tmp_path, disk, stop_s=0.05)
    disk.cut(rng)
    case = tmp_path / "cases/c1"
    if not case.exists():
        assert acked == []
        return
    recover(case, boot="after the cut")
    assert recover(case, boot="after the cut") == []
    assert verify(case).problems == []
    stored = lines(case / "journal.jsonl")
    assert {x["n"] for x in stored} >= set(acked)
    for path in case.glob("raw-*.bdf"):
        known = [x["data"] for x in stored if x["kind"] == "raw" and x["data"].get("file") == path.name]
        records = (path.stat().st_size - 256 * 5) // ((3 * 100 + 80) * 3)
        if not known or not records or verify(case).segments == 0:
            continue
        with pyedflib.EdfReader(str(path)) as reader:
            signal = np.array([reader.readSignal(i, digital=True) for i in range(3)]).T
        first = known[0]["first_sample"]
        for i in range(len(signal)):
            sample = first + i
            if sample in source.given:  # the last record of a closed segment ends in padding
                np.testing.assert_array_equal(signal[i], source.given[sample])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("finished")
    assert run_case(state, None)[2]
    return state / "cases/c1"


def copy(case: Path, to: Path) -> Path:
    to.mkdir(parents=True)
    for path in case.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_finished_case_verifies(finished: Path) -> None:
    report = verify(finished)
    assert report.ok and report.state == "closed" and report.raw_samples == 600


def test_a_journal_cut_at_any_byte_of_its_tail_recovers_to_whole_lines(finished: Path, tmp_path: Path) -> None:
    whole = (finished / "journal.jsonl").read_bytes()
    for number, at in enumerate(range(len(whole) - 1, len(whole) - 900, -37)):
        case = copy(finished, tmp_path / str(number) / "cases" / "c1")
        (case / "manifest.json").unlink()
        (case / "journal.jsonl").write_bytes(whole[:at])
        kept = whole[:at].count(b"\n")
        recover(case)
        assert recover(case) == []
        after = (case / "journal.jsonl").read_bytes()
        assert after.startswith(whole[: whole[:at].rfind(b"\n") + 1]) and after.count(b"\n") in (kept, kept + 1)
        assert verify(case).problems == []


def test_a_raw_file_cut_anywhere_is_reported_with_its_name(finished: Path, tmp_path: Path) -> None:
    size = (finished / "raw-0001.bdf").stat().st_size
    for number, at in enumerate([0, 1, 255, 1279, size // 2, size - 1]):
        case = copy(finished, tmp_path / str(number))
        os.truncate(case / "raw-0001.bdf", at)
        assert any("raw-0001.bdf" in p for p in verify(case).problems)


def test_edit_delete_reorder_and_append_are_found_and_named(finished: Path, tmp_path: Path) -> None:
    whole = (finished / "journal.jsonl").read_bytes().splitlines(keepends=True)
    edited = [*whole]
    edited[3] = edited[3].replace(b'"sample":', b'"sample":9', 1)
    swapped = [*whole]
    swapped[2], swapped[3] = swapped[3], swapped[2]
    for name, changed, at in (("edit", edited, 4), ("delete", [*whole[:4], *whole[5:]], 5), ("swap", swapped, 3),
                              ("twice", [*whole[:4], whole[3], *whole[4:]], 5)):  # fmt: skip
        case = copy(finished, tmp_path / name)
        (case / "journal.jsonl").write_bytes(b"".join(changed))
        findings = scan_journal(case / "journal.jsonl").findings
        assert findings and findings[0].line == at, name
        assert not verify(case).ok
    case = copy(finished, tmp_path / "append")
    (case / "journal.jsonl").write_bytes(b"".join(whole[:-1]))
    assert any("manifest" in p for p in verify(case).problems)


def test_a_flipped_bit_in_the_samples_is_found_in_its_record_without_a_manifest(finished: Path, tmp_path: Path) -> None:
    case = copy(finished, tmp_path / "flip")
    (case / "manifest.json").unlink()
    path = case / "raw-0001.bdf"
    data = bytearray(path.read_bytes())
    data[256 * 5 + 2 * (3 * 100 + 80) * 3 + 17] ^= 4
    path.write_bytes(data)
    assert any("raw-0001.bdf" in p and "record 2" in p for p in verify(case).problems)


CHILD = """
import sys
from pathlib import Path
from ionmd.case.recorder import Recorder
from tests.test_case_recorder import LABELS, RATE, Source
recorder = Recorder(Path(sys.argv[1]), sync_s=0.01)
recorder.start()
recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
source = Source(seed=7)
print("ready", flush=True)
while True:
    recorder.raw(source.fill(50))
    recorder.journal("event", source.next, {}, lambda n: print(n, flush=True))
    recorder.wait_room(1.0)
"""


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_loses_no_acknowledged_line_and_the_files_open_before_any_repair(tmp_path: Path, seed: int) -> None:
    import edfio
    import mne
    import pyedflib

    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                             cwd=Path(__file__).parents[1])  # fmt: skip
    assert child.stdout is not None
    rng = np.random.default_rng(seed)
    acked = 0
    for _ in range(int(rng.integers(200, 1500))):
        text = child.stdout.readline().strip()
        acked = int(text) if text.isdigit() else acked
    child.send_signal(signal.SIGKILL)
    for text in child.stdout:
        acked = int(text) if text.strip().isdigit() and text.endswith("\n") else acked
    child.wait()
    case = tmp_path / "cases/c1"
    path = str(case / "raw-0001.bdf")
    source = Source(seed=7)
    with pyedflib.EdfReader(path) as reader:
        prefix = np.array([reader.readSignal(i, digital=True) for i in range(3)]).T
    while source.next < len(prefix) + 100:
        source.fill(50)
    np.testing.assert_array_equal(prefix, source.array(0, len(prefix)))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both say that the file is longer than its count, which it is
        assert edfio.read_bdf(path).num_data_records >= len(prefix) // 100
        assert mne.io.read_raw_bdf(path, verbose="error").n_times >= len(prefix)
    recover(case)
    assert recover(case) == []
    report = verify(case)
    assert report.problems == [] and report.state == "interrupted"
    assert {json.loads(x)["n"] for x in (case / "journal.jsonl").read_bytes().splitlines()} >= set(range(1, acked + 1))
    recorder = Recorder(tmp_path, sync_s=0.01)  # the lock died with its holder
    recorder.start()
    assert recorder.drain(5)
    recorder.resume_case("c1")
    recorder.close_case()
    assert recorder.stop()
    assert verify(case).ok


def test_a_removed_file_and_directory_are_noticed_and_written_again(tmp_path: Path) -> None:
    import shutil

    recorder = Recorder(tmp_path, sync_s=0.01)
    recorder.start()
    source = Source()
    recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    for _ in range(4):
        recorder.raw(source.fill(50))
    assert recorder.drain(5)
    shutil.rmtree(tmp_path / "cases/c1")
    for _ in range(4):
        recorder.raw(source.fill(50))
    recorder.journal("event", source.next, {}, lambda n: None)
    assert recorder.drain(5)
    recorder.close_case()
    assert recorder.stop()
    assert scan_journal(tmp_path / "cases/c1/journal.jsonl").findings == []
    assert (tmp_path / "cases/c1/raw-0002.bdf").exists()
