"""The recorder end to end on a real directory: what goes in comes out, bit for bit, in three independent readers."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from ionmd.case.journal import scan_journal
from ionmd.case.recorder import Recorder
from ionmd.errors import ConfigError, StorageError
from ionmd.model import Block, Mark, MarkKind

RATE = 1000
LABELS = ["Fpz", "CP3", "CP4"]


class Source:
    """Seeded blocks; `counts` keeps what was given out, by sample."""

    def __init__(self, inputs: int = 3, seed: int = 1, rate: int = RATE) -> None:
        self.rng = np.random.default_rng(seed)
        self.block = Block(64, inputs, rate)
        self.next = 0
        self.given: dict[int, np.ndarray] = {}

    def fill(self, rows: int) -> Block:
        block = self.block
        block.clear()
        block.first, block.n = self.next, rows
        block.counts[:rows, : block.inputs] = self.rng.integers(-(2**23), 2**23, (rows, block.inputs))
        for i in range(rows):
            self.given[self.next + i] = block.counts[i, : block.inputs].copy()
        self.next += rows
        return block

    def array(self, first: int, stop: int) -> np.ndarray:
        return np.array([self.given[s] for s in range(first, stop)], np.int32)


@pytest.fixture
def recorder(tmp_path: Path):
    made = Recorder(tmp_path, sync_s=0.05)
    made.start()
    yield made
    made.stop()


def lines(path: Path, kind: str = "") -> list[dict]:
    found = [json.loads(x) for x in path.read_bytes().splitlines()]
    return [x for x in found if not kind or x["kind"] == kind]


def test_a_finished_case_reads_the_same_in_edfio_mne_and_pyedflib(recorder: Recorder, tmp_path: Path) -> None:
    import edfio
    import mne
    import pyedflib

    source = Source()
    recorder.open_case("c1", {"template": "cervical"}, LABELS, 0.03125, RATE)
    for i in range(40):
        block = source.fill(50)
        if i == 10:
            block.marks.append(Mark(MarkKind.PULSE, block.first + 7, output=1, delivered=24.9))
        recorder.raw(block)
    recorder.close_case()
    assert recorder.drain(5)
    path = str(tmp_path / "cases/c1/raw-0001.bdf")
    truth = source.array(0, 2000)
    with pyedflib.EdfReader(path) as reader:
        ours = np.array([reader.readSignal(i, digital=True) for i in range(3)]).T
        onsets, _, texts = reader.readAnnotations()
        assert reader.getSignalLabels() == LABELS
    np.testing.assert_array_equal(ours, truth)
    assert (round(float(onsets[0]), 6), texts[0]) == (0.507, "stim 1 24.9")
    file = edfio.read_bdf(path)
    np.testing.assert_array_equal(np.array([s.digital for s in file.signals]).T, truth)
    assert file.annotations[0].text == "stim 1 24.9"
    raw = mne.io.read_raw_bdf(path, preload=True, verbose="error")
    np.testing.assert_allclose(raw.get_data().T * 1e6, truth * 0.03125, atol=1e-6)


def test_a_line_is_on_disk_when_its_callback_runs(recorder: Recorder, tmp_path: Path) -> None:
    recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    seen: list[tuple[int, bytes]] = []
    done = threading.Event()

    def on_durable(n: int) -> None:
        seen.append((n, (tmp_path / "cases/c1/journal.jsonl").read_bytes()))
        done.set()

    n = recorder.journal("request", 7, {"method": "test.start"}, on_durable)
    assert done.wait(5) and seen[0][0] == n == 2
    assert b'"method":"test.start"' in seen[0][1].splitlines()[n - 1]


def test_lines_outside_a_case_go_to_the_system_journal_and_its_numbers_go_on(tmp_path: Path) -> None:
    for expected in (1, 2):
        recorder = Recorder(tmp_path)
        recorder.start()
        assert recorder.journal("audit", 0, {"what": "started"}) == expected
        assert recorder.stop()
    scan = scan_journal(tmp_path / "system/journal.jsonl")
    assert (scan.lines, scan.findings) == (2, [])


def test_a_short_gap_is_padded_and_a_long_one_starts_a_segment(recorder: Recorder, tmp_path: Path) -> None:
    import pyedflib

    source = Source()
    recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    recorder.raw(source.fill(50))
    source.next += 333
    recorder.raw(source.fill(50))
    source.next += RATE + 1
    recorder.raw(source.fill(50))
    recorder.close_case()
    assert recorder.drain(5)
    case = tmp_path / "cases/c1"
    closed = [x["data"] for x in lines(case / "journal.jsonl", "raw") if x["data"]["state"] == "closed"]
    assert [x["valid"] for x in closed] == [[[0, 50], [383, 433]], [[1434, 1484]]]
    with pyedflib.EdfReader(str(case / "raw-0001.bdf")) as reader:
        signal = reader.readSignal(0, digital=True)
        texts = list(reader.readAnnotations()[2])
    assert (signal[50:383] == source.given[49][0]).all()
    np.testing.assert_array_equal(signal[383:433], source.array(383, 433)[:, 0])
    assert "gap 333 samples, padded: lost" in texts
    gaps = [x["data"] for x in lines(case / "journal.jsonl", "raw") if x["data"]["state"] == "gap"]
    assert [(g["first_sample"], g["samples"], g["padded"]) for g in gaps] == [(50, 333, True), (433, 1001, False)]


def test_segments_rotate_below_their_size(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, sync_s=0.01, segment_bytes=10_000)
    recorder.start()
    source = Source()
    recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    for _ in range(60):
        recorder.raw(source.fill(50))
    recorder.close_case()
    assert recorder.stop()
    files = sorted((tmp_path / "cases/c1").glob("raw-*.bdf"))
    assert len(files) > 3 and all(f.stat().st_size <= 10_000 for f in files)
    opened = [x["data"] for x in lines(tmp_path / "cases/c1/journal.jsonl", "raw") if x["data"]["state"] == "closed"]
    assert sum(hi - lo for x in opened for lo, hi in x["valid"]) == 3000


def test_a_second_daemon_on_the_same_directory_is_told_who_holds_it(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="in use by another ionmd"):
        Recorder(tmp_path).start()


def test_directories_and_files_are_private(recorder: Recorder, tmp_path: Path) -> None:
    source = Source()
    recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    recorder.raw(source.fill(50))
    recorder.close_case()
    assert recorder.drain(5)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_case_stopped_half_way_is_resumed_with_its_numbers_and_a_new_segment(tmp_path: Path) -> None:
    source = Source()
    recorder = Recorder(tmp_path, sync_s=0.05)
    recorder.start()
    recorder.open_case("c1", {"template": "cervical"}, LABELS, 0.03125, RATE)
    recorder.raw(source.fill(50))
    last = recorder.journal("event", 50, {"kind": "comment"})
    assert recorder.stop()
    recorder = Recorder(tmp_path, sync_s=0.05)
    recorder.start()
    assert recorder.drain(5)
    point = recorder.resume_case("c1")
    assert point.state.header["template"] == "cervical" and point.end_sample >= 50
    source.next = point.end_sample + 10
    recorder.raw(source.fill(50))
    assert recorder.journal("event", source.next, {"kind": "comment"}) > last
    recorder.close_case()
    assert recorder.stop()
    scan = scan_journal(tmp_path / "cases/c1/journal.jsonl")
    assert scan.findings == []
    assert {p.name for p in (tmp_path / "cases/c1").glob("raw-*")} == {"raw-0001.bdf", "raw-0002.bdf"}


def test_neither_a_sandbox_without_nice_nor_a_job_that_crashes_ends_the_thread_of_jobs(tmp_path, monkeypatch) -> None:
    def denied(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("ionmd.case.digest.os.setpriority", denied)
    recorder, done = Recorder(tmp_path), threading.Event()
    recorder.start()
    recorder.background(lambda: [][0])
    recorder.background(done.set)
    assert done.wait(20)
    recorder.stop()


def test_wrong_arguments_are_refused_before_anything_is_written(recorder: Recorder, tmp_path: Path) -> None:
    for case_id in ("../x", "", ".hidden", "a" * 65, "a/b"):
        with pytest.raises(StorageError):
            recorder.open_case(case_id, {}, LABELS, 0.03125, RATE)
    for labels, lsb, rate in (
        (["a", "a"], 0.03125, RATE), (["x" * 17], 0.03125, RATE), (["µ"], 0.03125, RATE), ([], 0.03125, RATE),
        (["a"], float("nan"), RATE), (["a"], -1.0, RATE), (["a"], 11.0, RATE), (["a"], 0.03125, 1000.5),
        (["a"], [0.03125, 0.03125], RATE),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            recorder.open_case("ok", {}, labels, lsb, rate)
    with pytest.raises(ValueError):
        recorder.journal("Not A Word", 0, {})
    with pytest.raises(TypeError):
        recorder.journal("event", 0, {"x": object()})
    assert list((tmp_path / "cases").iterdir()) == []


def test_an_existing_case_is_not_opened_twice(recorder: Recorder) -> None:
    recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    with pytest.raises(StorageError, match="close it first"):
        recorder.open_case("c2", {}, LABELS, 0.03125, RATE)
    recorder.close_case()
    with pytest.raises(StorageError, match="exists"):
        recorder.open_case("c1", {}, LABELS, 0.03125, RATE)
    with pytest.raises(StorageError, match="does not exist"):
        recorder.resume_case("none")
