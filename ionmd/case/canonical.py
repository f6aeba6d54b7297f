"""Results of a case as bytes that two runs can be compared by: average, reading and alarm, in journal order.

Left out is what belongs to one run and not to the patient: line numbers, t_utc, boot_id and hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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


def canonical_results(case_dir: Path) -> Iterator[bytes]:
    """One line of canonical JSON per result, without newline.  OSError when there is no journal."""
    for line in read_lines(case_dir / JOURNAL):
        if line.kind in RESULTS:
            yield canonical({"kind": line.kind, "sample": line.sample, "data": without_run(line.data)})
