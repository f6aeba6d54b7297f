"""64 inputs x 40 kHz x 24 bit through the real libusb, recording on: nothing lost, and what that costs.

The count is exact when the record holds every sample between the lines that opened and closed the case, and the
device's counter, the decoder and the record agree that none is missing.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from bench.figures.cart import Cart
from bench.figures.row import Row
from ionmd.case.verify import verify

INPUTS, RATE_HZ, BLOCK = 64, 40_000, 40
TESTS = ["ssep_median_left", "ssep_median_right", "ssep_tibial_left", "ssep_tibial_right"]
CPU_PERCENT, MEMORY_MIB, FLAT_MIB = 40.0, 200.0, 8.0


def rows(quick: bool) -> list[Row]:
    seconds, runs = (10.0, 1) if quick else (60.0, 5)
    found = [_run(seconds) for _ in range(runs)]
    gaps = sum(f["gaps"] + f["lost"] for f in found)
    exact = all(f["recorded"] == f["expected"] for f in found)
    cpu = statistics.median(f["cpu"] for f in found)
    memory = statistics.median(f["memory"] for f in found)
    growth = statistics.median(f["growth"] for f in found)
    counts = ", ".join(f"{f['recorded']}/{f['expected']}" for f in found[:2])
    each = ", ".join(format(f["cpu"], ".0f") for f in found)
    return [
        Row(f"64 x 40 kHz over libusb, recording, {seconds:g} s", "0 gaps, exact sample count",
            f"{gaps} gaps or lost samples in {runs} runs; recorded/expected {counts}; {found[0]['mb_s']:.2f} MB/s",
            gaps == 0 and exact),
        Row(f"same, four SSEPs running, median of {runs}",
            f"<= {CPU_PERCENT:g} % of one core, <= {MEMORY_MIB:g} MiB, flat",
            f"{cpu:.1f} % (of {each}), {memory:.0f} MiB, {growth:+.1f} MiB in the second half",
            cpu <= CPU_PERCENT and memory <= MEMORY_MIB and growth <= FLAT_MIB),
    ]  # fmt: skip


def _run(seconds: float) -> dict[str, Any]:
    with Cart("quiet", inputs=INPUTS, rate_hz=RATE_HZ, block_samples=BLOCK) as cart, cart.client() as client:
        lease = cart.open_case(client)
        client.call("test.start", tests=TESTS, lease=lease)
        _keep(client, lease, 5.0)  # buffers have their size by then
        cpu, began = cart.cpu_s(), time.monotonic()
        _keep(client, lease, seconds / 2)
        middle = cart.resident_mib()
        _keep(client, lease, seconds / 2)
        wall = time.monotonic() - began
        cpu = (cart.cpu_s() - cpu) / wall * 100.0
        memory = cart.resident_mib()
        device = client.call("status")["device"]
        client.call("test.stop")
        client.call("case.close", reason="end")
        cart.stop_daemon()
        report = verify(cart.state / "cases" / "bench")
        opened, closed, valid = _bounds(cart.state / "cases" / "bench" / "journal.jsonl")
        return {
            "cpu": cpu, "memory": memory, "growth": memory - middle, "gaps": device.get("gaps", 0),
            "lost": device.get("lost_samples", 0) + len(report.problems), "recorded": valid,
            "expected": closed - opened, "mb_s": INPUTS * RATE_HZ * 3 / 1e6,
        }  # fmt: skip


def _keep(client: Any, lease: str, seconds: float) -> None:
    """Hold the lease as a cart's front end does, and read what comes."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        client.call("stim.keepalive", lease=lease)
        time.sleep(min(0.3, left))


def _bounds(journal: Path) -> tuple[int, int, int]:
    """Samples at which the case was opened and closed, and how many are in its files, by its own journal."""
    opened = closed = valid = 0
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] == "request" and entry["data"]["method"] == "case.open":
            opened = int(entry["data"]["at"])
        if entry["kind"] == "close":
            closed = int(entry["sample"])
        valid += sum(hi - lo for lo, hi in entry["data"].get("valid", [])) if entry["kind"] == "raw" else 0
    return opened, closed, valid
