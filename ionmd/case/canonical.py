"""Results of a case as bytes that two runs can be compared by: average, reading and alarm, in journal order.

Left out is what belongs to one run and not to the patient: line numbers, t_utc, boot_id and hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ionmd.case.journal import JOURNAL, canonical, read_lines

RESULTS = ("average", "reading", "alarm")
RUN_KEYS = frozenset({"t_utc", "boot_id", "hash", "prev", "n"})


def without_run(value: object) -> object:
    """`value` without RUN_KEYS, at every depth."""
    if isinstance(value, dict):
        return {key: without_run(x) for key, x in value.items() if key not in RUN_KEYS}
    if isinstance(value, list):
        return [without_run(x) for x in value]
    return value


def canonical_result(kind: str, sample: int, data: object) -> bytes:
    """One result, decoded from JSON, as its line of canonical JSON without newline."""
    return canonical({"kind": kind, "sample": sample, "data": without_run(data)})


def canonical_results(case_dir: Path) -> Iterator[bytes]:
    """One line of canonical JSON per result, without newline.  OSError when there is no journal."""
    for line in read_lines(case_dir / JOURNAL):
        if line.kind in RESULTS:
            yield canonical_result(line.kind, line.sample, line.data)


def first_difference(recorded: bytes, replayed: bytes) -> str:
    """Where two canonical results part, as `path: recorded, replayed`; empty when they are equal."""
    return _differ("", msgspec.json.decode(recorded), msgspec.json.decode(replayed))


def _differ(path: str, a: object, b: object) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if found := _differ(f"{path}.{key}" if path else key, a.get(key), b.get(key)):
                return found
        return ""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next((d for i, (x, y) in enumerate(zip(a, b, strict=True)) if (d := _differ(f"{path}[{i}]", x, y))), "")
    if a == b:
        return ""
    if isinstance(a, str) and isinstance(b, str) and max(len(a), len(b)) > 80:  # a curve
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        return f"{path} from character {at} on: recorded {a[at : at + 24]}..., replayed {b[at : at + 24]}..."
    return f"{path}: recorded {_short(a)}, replayed {_short(b)}"


def _short(value: object) -> str:
    text = canonical(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
