"""Cases that an earlier daemon left in the state directory: made readable after the start, taken up again on request.

Always: one of the two at a time, and a case that was taken up is not marked interrupted behind its back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from ionmd.case.casestate import CaseState
from ionmd.case.files import Files
from ionmd.case.opencase import check_case_id
from ionmd.case.repair import is_closed, repair
from ionmd.errors import StorageError

log = structlog.get_logger()


@dataclass(frozen=True)
class ResumePoint:
    """What a case needs to go on: read and repaired by `prepare_resume`, on any thread."""

    case_id: str
    state: CaseState
    next_segment: int
    actions: tuple[str, ...]
    unlisted: tuple[str, ...] = ()

    @property
    def end_sample(self) -> int:
        return self.state.end_sample


class EarlierCases:
    def __init__(self, files: Files, root: Path, now_ns: Callable[[], int]) -> None:
        self._files = files
        self._root = root
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._resumed: set[str] = set()

    def recover(self, names: list[str]) -> None:
        """What an interrupted daemon left is made readable."""
        for name in names:
            case_dir = self._root / name
            with self._lock:
                if name not in self._resumed and case_dir.is_dir() and not is_closed(case_dir):
                    result = repair(self._files, case_dir, mark_ns=self._now_ns())
                    log.warning("case_interrupted", case_id=name, actions=result.actions)

    def prepare(self, case_id: str) -> ResumePoint:
        """Repair and read an existing case; blocks (an 8 h case: seconds), so not for the pipeline thread.

        StorageError: no such case, or the disk refuses."""
        check_case_id(case_id)
        case_dir = self._root / case_id
        if not case_dir.is_dir():
            raise StorageError(f"case {case_id} does not exist: `ionmd case list` shows the ones that do")
        try:
            with self._lock:
                self._resumed.add(case_id)
                result = repair(self._files, case_dir)
        except OSError as error:
            raise StorageError(f"case {case_id}: {error}; it cannot be resumed while the disk refuses") from error
        numbers = [int(p.stem[4:]) for p in case_dir.glob("raw-*.bdf") if p.stem[4:].isdigit()]
        next_segment = max([*numbers, *result.state.segments], default=0) + 1
        return ResumePoint(case_id, result.state, next_segment, tuple(result.actions), tuple(result.unlisted))
