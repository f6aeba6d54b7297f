"""The line of a TOML file on which a key stands, so that an error can name it.  Text in, number out; no TOML is judged.

Keys are those of error messages: `epoch.stop_ms`, `marker[0] P1.window_ms[1]`, `electrode CP3.input`, `interleave`.
"""

from __future__ import annotations

import re

_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\-\"']+)\s*\]\]?")
_ENTRY = re.compile(r"\s*([A-Za-z0-9_\-\"']+)\s*=\s*(.*)")
_NAMES = ("label", "name", "id")
_KEY = re.compile(
    r"(?P<table>[\w.]+?)(?:\[(?P<number>\d+)\])?(?: (?P<name>[^.(\[]+))?(?:\.(?P<leaf>\w+))?(?:\[\d+\])?(?: \(.*\))?$"
)


def line_of(text: str, key: str) -> int | None:
    """1-based; of the entry if it is there, else of its table; None when neither is found."""
    wanted = _KEY.match(key)
    if wanted is None:
        return None
    table, number, name, leaf = wanted["table"], wanted["number"], wanted["name"], wanted["leaf"]
    if leaf is None and "." in table:
        table, _, leaf = table.rpartition(".")
    places: list[tuple[int, str, int, dict[str, int], set[str]]] = [(0, "", 0, {}, set())]
    counts: dict[str, int] = {}
    for at, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            path = header[2].replace('"', "").replace("'", "")
            k = counts.get(path, -1) + 1
            counts[path] = k
            places.append((at, path, k, {}, set()))
        elif entry := _ENTRY.match(line):
            word = entry[1].strip("\"'")
            places[-1][3].setdefault(word, at)
            if word in _NAMES:
                places[-1][4].add(entry[2].split("#")[0].strip().strip("\"'"))
    for at, path, k, entries, names in places:
        if path != table or (number is not None and k != int(number)):
            continue
        if number is None and name is not None and name.strip() not in names:
            continue
        return entries.get(leaf, at) if leaf else at
    top = places[0][3]
    return top.get(table) or next((p[0] for p in places if p[1].startswith(f"{table}.")), None)
