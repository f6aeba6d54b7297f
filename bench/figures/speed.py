"""`--speed max` over USB: how many device seconds a second, and whether a seed gives the same results byte for byte.

Timed by the record: sample and t_utc of its lines, so that start-up does not count.
"""

from __future__ import annotations

import hashlib
import statistics
from datetime import datetime
from pathlib import Path

from bench.figures.row import Row
from bench.figures.script import Script, cases
from ionmd.case.canonical import canonical_results
from ionmd.case.journal import JOURNAL, Line, read_lines

TIMES = 20.0
INPUTS, RATE_HZ, BLOCK = 8, 10_000, 50
TESTS = ["ssep_median_left", "ssep_median_right"]


def rows(quick: bool) -> list[Row]:
    seconds, runs = (60.0, 2) if quick else (240.0, 5)
    script = Script(seconds, INPUTS, RATE_HZ, BLOCK).start(8.0, TESTS)
    speeds, digests = [], []
    for case in cases(script, "demo", [11] * runs):
        speeds.append(device_seconds_a_second(case))
        digests.append(hashlib.sha256(b"\n".join(canonical_results(case))).hexdigest())
    times, same = statistics.median(speeds), len(set(digests)) == 1
    return [
        Row("--speed max, 8 inputs x 10 kHz over USB", f">= {TIMES:g} x real time",
            f"{times:.1f} x (of {', '.join(f'{s:.1f}' for s in speeds)}); two SSEPs, recording", times >= TIMES),
        Row("runs with one seed", "the same results byte for byte",
            f"{runs} runs, {'equal' if same else 'DIFFERENT'}: {digests[0][:12]}", same),
    ]  # fmt: skip


def device_seconds_a_second(case: Path) -> float:
    """Between the first second of the stimulation and the last line of the case."""
    lines = [x for x in read_lines(case / JOURNAL) if x.sample >= 10 * RATE_HZ]
    return (lines[-1].sample - lines[0].sample) / RATE_HZ / (_unix_s(lines[-1]) - _unix_s(lines[0]))


def _unix_s(line: Line) -> float:
    return datetime.fromisoformat(line.t_utc).timestamp()
