"""The cases of a state directory as lists and pages show them; from each case's index.

In: files alone, no daemon.  Always: one case that cannot be read does not hide the others, it is listed as what it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ionmd.case.index import INDEX, open_index
from ionmd.case.journal import JOURNAL
from ionmd.errors import StorageError

_HEAD = ("state", "opened_utc", "closed_utc", "template", "source")


def list_cases(state_dir: Path) -> list[dict[str, Any]]:
    """Newest last: case_id, state, opened_utc, closed_utc, template, source.  A directory without a journal is no case;
    a case that cannot be read has the state `unreadable` and the reason in `problem`."""
    found = []
    root = state_dir / "cases"
    for path in case_dirs(root):
        row: dict[str, Any] = {"case_id": path.name, **dict.fromkeys(_HEAD, "")}
        try:
            with open_index(path) as index:
                facts = index.facts()
            row |= {key: str(facts.get(key, "")) for key in _HEAD}
            row["state"] = row["state"] or ("damaged" if facts["damaged_lines"] else "empty")
        except (OSError, StorageError) as error:
            row |= {"state": "unreadable", "problem": _words(error)}
        found.append(row)
    return sorted(found, key=lambda c: str(c["opened_utc"]))


def case_dirs(root: Path) -> list[Path]:
    """Directories of cases, by name.  StorageError when the directory of cases cannot be read."""
    try:
        if not root.is_dir():
            return []
        return sorted(p for p in root.iterdir() if p.is_dir() and _has_journal(p))
    except OSError as error:
        raise StorageError(
            f"{root}: {_words(error)}; the cases of a state directory were expected: run as the user (or in the group) "
            "that owns it, or choose another with --state-dir"
        ) from error


def show_case(path: Path) -> dict[str, Any]:
    """What one case holds, by its index: head, tests, people, counts, gaps, segments, files.  StorageError: no case."""
    try:
        if not (path / JOURNAL).is_file():
            raise StorageError(f"{path}: no {JOURNAL} is there; a case directory was expected (`ionmd case list`)")
        with open_index(path) as index:
            facts, kinds = index.facts(), index.kinds()
            tables = {name: index.rows(name) for name in (
                "segments", "gaps", "deliveries", "persons", "events", "baselines", "episodes", "alarms")}
            tests = index.sql.execute(
                "SELECT test, COUNT(*), SUM(status = 'present') FROM readings GROUP BY test ORDER BY MIN(n)").fetchall()
        files = {f.name: f.stat().st_size for f in sorted(path.iterdir()) if f.is_file() and not _of_index(f)}
    except OSError as error:
        raise StorageError(f"{path}: {_words(error)}; the files of a case must be readable") from error
    segments = tables.pop("segments")
    raw = [s for s in segments if isinstance(s["records"], int) and isinstance(s["samples_per_record"], int)]
    rate = next((float(s["rate_hz"]) for s in segments if isinstance(s["rate_hz"], (int, float))), 0.0)
    samples = sum(s["records"] * s["samples_per_record"] for s in raw)
    return {
        "case_id": path.name, **{key: str(facts.get(key, "")) for key in _HEAD}, "person": str(facts.get("person", "")),
        "path": str(path), "lines": facts["lines"], "head": facts["head"], "damaged_lines": facts["damaged_lines"],
        "kinds": kinds, "raw_samples": samples, "rate_hz": rate, "seconds": round(samples / rate, 1) if rate else 0.0,
        "segments": len(segments), "files": files,
        "tests": [{"test": t, "readings": n, "present": p or 0} for t, n, p in tests], **tables,
    }  # fmt: skip


def _has_journal(path: Path) -> bool:
    """Or may have one: who may not look into it shall not be told that there is nothing."""
    try:
        return (path / JOURNAL).is_file()
    except PermissionError:
        return True


def _of_index(path: Path) -> bool:
    return path.name.startswith(INDEX)


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
