"""From the loss in the demo's scenario to `possible` and to the confirmed alert, in sweeps of that test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.figures.row import Row
from bench.figures.script import Script, cases
from firmware_sim import events, scenario
from ionmd.case.journal import JOURNAL, read_lines

TESTS = ["ssep_median_left", "ssep_tibial_left", "ssep_median_right", "ssep_tibial_right"]
POSSIBLE, CONFIRMED = 50, 150
RATE_HZ = 10_000


def rows(quick: bool) -> list[Row]:
    seeds = range(1, 3 if quick else 11)
    loss: Any = next(e for e in scenario.load("demo").events if isinstance(e, events.Loss))
    lost = [t for t in TESTS if t.removeprefix("ssep_") in loss.nerves]
    end_s = float(loss.at_s) + 110.0
    script = Script(end_s, 12, RATE_HZ, 50).start(8.0, TESTS)
    for test in TESTS:
        script.at(260.0, "baseline.set", test=test, kind="post-opening", reason="two averages agree")
    possible: list[float] = []
    confirmed: list[float] = []
    false = 0
    for case in cases(script, "demo", seeds):
        found = crossings(case, float(loss.at_s))
        false += found.pop("false")
        for test in lost:
            first, second = found.get(test, (float("inf"), float("inf")))
            possible.append(first)
            confirmed.append(second)
    return [
        Row(f"loss -> possible, {len(seeds)} seeds x {len(lost)} tests", f"<= {POSSIBLE} sweeps of that test",
            f"worst {max(possible):.0f}, median {sorted(possible)[len(possible) // 2]:.0f}", max(possible) <= POSSIBLE),
        Row("loss -> confirmed", f"<= {CONFIRMED} sweeps of that test",
            f"worst {max(confirmed):.0f}, median {sorted(confirmed)[len(confirmed) // 2]:.0f}; "
            f"{false} confirmed changes elsewhere or earlier", max(confirmed) <= CONFIRMED and false == 0),
    ]  # fmt: skip


def crossings(case: Path, loss_s: float) -> dict[str, Any]:
    """Test -> (sweeps to possible, sweeps to confirmed); `false` counts confirmed changes that are none."""
    rate: dict[str, float] = {}
    found: dict[str, Any] = {"false": 0}
    for line in read_lines(case / JOURNAL):
        if line.kind == "reading":
            rate[line.data["test"]] = line.data["stimulus"].get("rate_hz") or 0.0
        if line.kind != "alarm" or line.data["kind"] != "physiological":
            continue
        test, after = line.data["test"], line.sample / RATE_HZ - loss_s
        sweeps = after * rate.get(test, 0.0)
        if line.data["state"] == "possible" and after > 0:
            found.setdefault(test, (sweeps, float("inf")))
        if line.data["state"] == "active":
            if after <= 0 or "left" in test:
                found["false"] += 1
            elif test in found and found[test][1] == float("inf"):
                found[test] = (found[test][0], sweeps)
            elif test not in found:
                found[test] = (sweeps, sweeps)
    return found
