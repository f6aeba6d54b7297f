"""`python -m bench`: every kernel against its named peer; `--json` for machines, `--only NAME` for one kernel."""

from __future__ import annotations

import argparse
import json
import sys

from bench import curves, isa, publish, stream, sweeps
from bench.harness import measure, table

GROUPS = {
    "unpack": stream.unpack,
    "iir": stream.iir,
    "average": sweeps.average,
    "peak": curves.peak,
    "match": curves.match,
    "emg": stream.emg,
    "welch": curves.welch,
    "block": stream.whole_block,
    "call": stream.call_cost,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a list of lines instead of the table")
    parser.add_argument("--only", choices=sorted([*GROUPS, "publisher"]), action="append", help="only these kernels")
    parser.add_argument("--rounds", type=int, default=15, help="rounds per line (default 15)")
    args = parser.parse_args()
    print(f"instruction set: {isa.NAMES[isa.level()]} (it decides the targets of unpack and iir)", file=sys.stderr)
    lines = [
        measure(case, args.rounds)
        for name, group in GROUPS.items()
        if not args.only or name in args.only
        for case in group()
    ]
    if not args.only or "publisher" in args.only:
        lines += publish.lines(args.rounds)
    print(json.dumps([line.public() for line in lines], indent=1) if args.json else table(lines))
    return 0 if all(line.ok for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
