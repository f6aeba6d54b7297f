"""Two runs with the same results give the same bytes, whenever and in whatever company they were written."""

from __future__ import annotations

from pathlib import Path

from ionmd.case.canonical import canonical_results
from ionmd.case.recorder import Recorder


def results(state: Path, start_ns: int, extra: bool, snr_db: float = 14.2) -> list[bytes]:
    recorder = Recorder(state, now_ns=lambda: start_ns)
    recorder.start()
    recorder.open_case("c1", {}, ["Fpz"], 0.03125, 1000)
    if extra:
        recorder.journal("comment", 1, {"text": "not a result"})
    recorder.journal("reading", 500, {"snr_db": snr_db, "test": "tof", "boot_id": str(start_ns)})
    recorder.close_case()
    assert recorder.stop()
    return list(canonical_results(state / "cases/c1"))


def test_time_boot_and_line_numbers_do_not_count_but_results_do(tmp_path: Path) -> None:
    first = results(tmp_path / "a", 10**18, extra=False)
    assert first == [b'{"data":{"snr_db":14.2,"test":"tof"},"kind":"reading","sample":500}']
    assert first == results(tmp_path / "b", 2 * 10**18, extra=True)
    assert first != results(tmp_path / "c", 10**18, extra=False, snr_db=14.3)
