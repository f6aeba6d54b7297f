"""`python -m bench.accuracy`: the table, or JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from bench.accuracy import ROWS


def main(arguments: list[str]) -> int:
    names = [a for a in arguments if not a.startswith("-")] or list(ROWS)
    rows = [ROWS[n]() for n in names]
    if "--json" in arguments:
        print(json.dumps([asdict(r) for r in rows]))
    else:
        for r in rows:
            print(f"{'ok    ' if r.ok else 'MISSED'} {r.name:22} asked {r.asked}\n{'':29} got   {r.measured}")
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
