"""Interleaved timing: every candidate runs once a round, so that drift of a shared machine hits all alike.

In: cases, each with our kernel and its named peer as plain callables that do the same work (the case checks that the
results agree before anything is timed).  Out: the median over rounds of peer time / our time.
Always: both sides pay for their call from Python; nothing is timed that was not compared.  Time is CPU time of the
thread, so that being put aside on a shared machine is not counted (a shared cache or core still is: hence ratios).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WORKLOADS = {"W1": (32, 20_000), "W2": (64, 40_000)}  # channels, Hz


@dataclass(frozen=True)
class Case:
    """One line of the table.  `units` is channel-samples a call, for the absolute number."""

    kernel: str
    workload: str
    block_ms: float
    peer: str
    target: float
    ours: Callable[[], object]
    theirs: Callable[[], object] | float  # a number is a budget in ns per call
    units: float
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One measured line: the keys of `python -m bench --json`, then what the table shows beside them."""

    kernel: str
    workload: str
    block_ms: float
    peer: str
    ratio: float
    target: float
    ok: bool
    ours_ns: float
    peer_ns: float
    note: str

    def public(self) -> dict[str, object]:
        return {
            "kernel": self.kernel, "workload": self.workload, "block_ms": self.block_ms, "peer": self.peer,
            "ratio": round(self.ratio, 2), "target": self.target, "ok": self.ok,
        }  # fmt: skip


def _repeats(call: Callable[[], object], slice_s: float) -> int:
    call()
    begun = time.perf_counter()
    call()
    once = time.perf_counter() - begun
    return max(1, min(20_000, int(slice_s / max(once, 1e-9))))


def _time(call: Callable[[], object], repeats: int) -> float:
    begun = time.thread_time_ns()
    for _ in range(repeats):
        call()
    return (time.thread_time_ns() - begun) / repeats


def measure(case: Case, rounds: int = 15, slice_s: float = 0.004) -> Line:
    """Median over `rounds` of the ratio within a round; each side runs about `slice_s` a round."""
    peer = case.theirs
    n_ours = _repeats(case.ours, slice_s)
    n_theirs = 0 if isinstance(peer, float) else _repeats(peer, slice_s)
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(peer if isinstance(peer, float) else _time(peer, n_theirs))
        ours.append(_time(case.ours, n_ours))
    ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
    return Line(
        case.kernel, case.workload, case.block_ms, case.peer, ratio, case.target, ratio >= case.target,
        statistics.median(ours) / case.units, statistics.median(theirs) / case.units, case.note,
    )  # fmt: skip


def same(ours: object, theirs: object, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Both sides computed the same thing, or the bench stops."""
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=rtol, atol=atol)


def table(lines: list[Line]) -> str:
    head = f"{'kernel':<18}{'size':<5}{'ms':>6}  {'peer':<40}{'ours ns':>10}{'peer ns':>10}{'ratio':>8}{'target':>8}"
    rows = [head, "-" * len(head)]
    for x in lines:
        rows.append(
            f"{x.kernel:<18}{x.workload:<5}{x.block_ms:>6g}  {x.peer:<40}{x.ours_ns:>10.3f}{x.peer_ns:>10.3f}"
            f"{x.ratio:>8.1f}{x.target:>8g}  {'ok' if x.ok else 'MISSED'}{'  ' + x.note if x.note else ''}"
        )
    return "\n".join(rows)
