"""`python -m bench.accuracy`: the table, or JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from bench.accuracy import ROWS


def main(arguments: list[str]) -> int:
    names = [a for a in arguments if not a.startswith("-")] or list(ROWS)
    unknown = [n for n in names if n not in ROWS]
    if unknown:
        print(f"row {unknown[0]!r} came, one of {', '.join(ROWS)} was expected", file=sys.stderr)
        return 2
    rows = []
    for name in names:
        r = ROWS[name]()
        rows.append(r)
        if "--json" not in arguments:
            verdict = "ok    " if r.ok else "MISSED"
            print(f"{verdict} {r.name:22} asked {r.asked}\n{'':29} got   {r.measured}", flush=True)
    if "--json" in arguments:
        print(json.dumps([asdict(r) for r in rows]))
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
