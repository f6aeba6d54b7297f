"""One case as a page of text: `ionmd case show`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from ionmd.cli.common import clean

NEWEST = 12  # rows of events and alarms


def when(t_utc: object) -> str:
    """A time of the journal to the second."""
    return str(t_utc)[:19].replace("T", " ")


def case_page(page: dict[str, Any]) -> Iterator[str]:
    """Lines of what `ionmd.case.listing.show_case` found; times are seconds of case time."""
    rate = page["rate_hz"]

    def at(sample: object) -> str:
        return f"{sample / rate:.1f} s" if rate and isinstance(sample, (int, float)) else clean(sample)

    yield click.style(clean(page["case_id"]), bold=True) + f"  {clean(page['state'])}"
    yield from _pairs([
        ("opened", page["opened_utc"] and f"{when(page['opened_utc'])} UTC"),
        ("by", page["person"]),
        ("closed", page["closed_utc"] and f"{when(page['closed_utc'])} UTC"),
        ("template", page["template"]),
        ("source", page["source"]),
        ("recorded", f"{page['seconds']:g} s: {page['raw_samples']} samples at {rate:g} Hz, {page['segments']} "
                     f"segment{'s' * (page['segments'] != 1)}"),
        ("gaps", ", ".join(f"{g['samples']} samples at {at(g['first_sample'])} ({g['cause']})"
                           for g in page["gaps"] if g["source"] == "device")),
        ("journal", f"{page['lines']} lines, chain head {page['head'][:16]}"),
        ("damaged", f"{page['damaged_lines']} lines: `ionmd case verify` names them" if page["damaged_lines"] else ""),
        ("path", page["path"]),
    ])  # fmt: skip
    deliveries: dict[str, list[int]] = {}
    for d in page["deliveries"]:
        sums = deliveries.setdefault(d["test"], [0, 0])
        sums[0] += d["deliveries"]
        sums[1] += d["ok"]
    yield from _block("TEST", "READINGS", "PRESENT", "DELIVERIES", "AS SET", rows=[
        (t["test"], t["readings"], t["present"], *deliveries.get(t["test"], ["", ""])) for t in page["tests"]
    ])
    yield from _block("BASELINE", "TEST", "KIND", "AT", "BY", rows=[
        (b["id"], b["test"], b["kind"] or "activated", at(b["sample"]), b["person"]) for b in page["baselines"]
    ])
    yield from _block("PERSON", "FUNCTION", "FROM", "UNTIL", rows=[
        (p["name"], p["function"] or "technologist", at(p["since"]), "" if p["until"] is None else at(p["until"]))
        for p in page["persons"]
    ])
    yield from _block("EVENT", "AT", "TEXT", rows=[(e["kind"], at(e["at"]), e["text"]) for e in page["events"]])
    yield from _block("ALARM", "AT", "STATE", "PRIORITY", "SENTENCE", rows=[
        (a["id"], at(a["sample"]), a["state"], a["priority"], a["sentence"]) for a in page["alarms"]
    ])
    yield from _block("FILE", "BYTES", rows=list(page["files"].items()))


def _pairs(pairs: Sequence[tuple[str, object]]) -> Iterator[str]:
    for name, value in pairs:
        if value not in ("", None):
            yield f"{name:10} {clean(value)}"


def _block(*head: str, rows: Sequence[tuple[object, ...]]) -> Iterator[str]:
    """A table under an empty line; the newest rows when there are many; nothing without rows."""
    if not rows:
        return
    shown = [tuple("" if c is None else clean(c) for c in row) for row in rows[-NEWEST:]]
    widths = [max(len(row[i]) for row in [head, *shown]) for i in range(len(head))]
    yield ""
    for row in [head, *shown]:
        yield "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
    if len(rows) > NEWEST:
        yield f"({len(rows) - NEWEST} earlier ones: --json)"
