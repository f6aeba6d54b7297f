"""`python -m bench.figures`: every figure of the whole daemon with its target; exit code 1 when one is missed."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time

from bench.figures.row import Row, table

FAMILIES = ("wide", "latency", "ssep", "loss", "speed", "simulator", "ready", "visual")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.figures", description=__doc__)
    parser.add_argument("--only", choices=FAMILIES, action="append", help="only these families")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer runs: not the figures asked for")
    parser.add_argument("--json", action="store_true", help="print a list of rows instead of the table")
    args = parser.parse_args()
    rows: list[Row] = []
    for name in args.only or FAMILIES:
        began = time.monotonic()
        new = importlib.import_module(f"bench.figures.{name}").rows(args.quick)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        rows += new
        if not args.json:
            print(table(new), flush=True)
    if args.json:
        print(json.dumps([row.public() for row in rows], indent=1))
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
