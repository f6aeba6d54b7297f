"""From the last sample of a sweep at the device to the reading at a subscriber.

32 inputs x 20 kHz, four interleaved SSEPs with short sub-averages, 8 subscribers, recording on.  The device's clock is
the simulator's own (sample -> monotonic time, asked of it once), so the time that a block fills on the device counts.
Every reading at every subscriber is one value.
"""

from __future__ import annotations

import select
import statistics
import time

from bench.figures.cart import Cart
from bench.figures.row import Row, percentile
from ionmd.case.journal import JOURNAL, read_lines
from ionmd.client import Client

INPUTS, RATE_HZ, BLOCK, SUBSCRIBERS = 32, 20_000, 40, 8
TESTS = ["ssep_median_left", "ssep_median_right", "ssep_tibial_left", "ssep_tibial_right"]
SUB_SWEEPS, P99_MS = 5, 25.0


def rows(quick: bool) -> list[Row]:
    seconds, runs = (15.0, 1) if quick else (60.0, 5)
    found = [_run(seconds) for _ in range(runs)]
    p99 = statistics.median(percentile(f, 99) for f in found)
    p50 = statistics.median(percentile(f, 50) for f in found)
    each = ", ".join(format(percentile(f, 99), ".0f") for f in found)
    figure = f"last sample of a sweep -> reading, {SUBSCRIBERS} subscribers, median of {runs}"
    value = f"p99 {p99:.1f} ms (of {each}), p50 {p50:.1f} ms, {len(found[0])} readings"
    return [Row(figure, f"p99 <= {P99_MS:g} ms", value, p99 <= P99_MS)]


def _run(seconds: float) -> list[float]:
    with Cart("quiet", inputs=INPUTS, rate_hz=RATE_HZ, block_samples=BLOCK) as cart, cart.client() as client:
        lease = cart.open_case(client)
        for test in TESTS:
            client.call("test.set", test=test, sub_sweeps=SUB_SWEEPS)
        watchers = [Client(cart.socket) for _ in range(SUBSCRIBERS)]
        for watcher in watchers:
            watcher.subscribe("reading")
        client.call("test.start", tests=TESTS, lease=lease)
        clock = cart.simulator.state()["clock"]
        session = next(x.data for x in read_lines(cart.state / "system" / JOURNAL) if x.kind == "session")
        ahead = int(session["device_first_sample"]) - int(session["sample"])  # device counter over case sample

        def due_s(sample: int) -> float:
            return float(clock["monotonic_s"] + (sample + ahead + 1 - clock["sample"]) / clock["per_s"])

        late: list[float] = []
        until, beat = time.monotonic() + seconds, 0.0
        while (now := time.monotonic()) < until:
            if now > beat:
                client.call("stim.keepalive", lease=lease)
                beat = now + 0.4
            ready, _, _ = select.select(watchers, [], [], 0.05)
            for watcher in ready:
                for event in watcher.events(0.0):
                    late.append((time.monotonic() - due_s(int(event.data["sample"]))) * 1000.0)
        for watcher in watchers:
            watcher.close()
        client.call("case.close", reason="end")
        return late
