"""A whole daemon over the real libusb, in the child process of usb_rig.over_usb: what happened, by sample and word."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ionmd.agenda import Step
from ionmd.case.verify import verify
from ionmd.config import Config, Device
from ionmd.daemon import Daemon
from ionmd.drivers.ionm1 import Ionm1
from tests.usb_rig import LIMIT_S, device_state

RATE = 10_000
BLOCK = 20
TEST = "ssep_median_left"


def opening(at: int = 2000, start: int | None = 4000) -> list[Step]:
    """A case, the lease, and a test that stimulates at 5.1 a second."""
    steps = [
        Step(at, "person.sign_in", {"name": "Kim", "credential": "CNIM"}),
        Step(at, "case.open", {"case_id": "case-1"}),
        Step(at, "stim.acquire", {}),
        Step(at, "test.set", {"test": TEST, "rate_hz": 5.1, "sweeps": 150, "sub_sweeps": 10}),
    ]
    return steps + ([Step(start, "test.start", {"tests": [TEST], "lease": "script"})] if start is not None else [])


class UsbDaemon:
    """`with UsbDaemon(agenda, duration_s) as d:`; its threads run, there is no socket."""

    def __init__(self, agenda: list[Step] | None = None, duration_s: float | None = None, speed: float | None = None,
                 inputs: int = 8, rate_hz: int = RATE, block: int = BLOCK) -> None:  # fmt: skip
        self.state_dir = Path(tempfile.mkdtemp(prefix="ionmd-test-"))
        config = msgspec.structs.replace(
            Config(), device=Device("ionm1", "SIM-0001", inputs=inputs, rate_hz=rate_hz, block_samples=block)
        )
        self.amplifiers: list[Ionm1] = []
        self.events: list[tuple[str, Any, int]] = []
        self._changed = threading.Condition()
        self.answers: list[tuple[str, Any, Exception | None]] = []
        self.daemon = Daemon(config, self.state_dir, speed=speed, duration_s=duration_s, make_amplifier=self._make,
                             on_event=self._event)
        self.room = self.daemon.room
        for step in agenda or []:
            self.ask(step)

    def _make(self, wanted: Any) -> Ionm1:
        self.amplifiers.append(Ionm1(wanted))
        return self.amplifiers[-1]

    def _event(self, topic: str, data: Any, sample: int, n: int | None) -> None:
        with self._changed:
            self.events.append((topic, data, sample))
            self._changed.notify_all()

    def ask(self, step: Step) -> None:
        self.daemon.script(step, lambda result, error: self.answers.append((step.method, result, error)))

    def __enter__(self) -> UsbDaemon:
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()

    # ------------------------------------------------------------ waiting

    def wait(self, condition: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
        until = time.monotonic() + limit_s
        with self._changed:
            while not (found := condition()):
                told = [(t, d) for t, d, _ in self.events if t in ("device", "alarm")][-6:]
                assert time.monotonic() < until, f"it did not happen: sample {self.room.now}, {told}"
                self._changed.wait(0.02)
        return found

    def finish(self) -> UsbDaemon:
        assert self.daemon.engine.finished.wait(60), f"it did not end: sample {self.room.now}, {self.states()}"
        self.daemon.stop()
        return self

    def reach(self, sample: int) -> None:
        self.wait(lambda: self.room.now >= sample)

    # ------------------------------------------------------------ what happened

    def of(self, topic: str) -> list[Any]:
        return [data for t, data, _ in list(self.events) if t == topic]

    def states(self) -> list[str]:
        """States of the device as told, one after the other."""
        return [d.state for d in self.of("device") if hasattr(d, "state")]

    def gaps(self) -> list[dict[str, Any]]:
        return [d["gap"] for d in self.of("device") if isinstance(d, dict) and "gap" in d]

    def alarms(self, code: str) -> list[Any]:
        """Every change of the alarm, oldest first."""
        return [a for a in self.of("alarm") if getattr(a, "code", "") == code]

    def journal(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.state_dir / "cases" / "case-1" / "journal.jsonl").read_text().splitlines()
        return [line["data"] for line in map(json.loads, lines) if line["kind"] == kind]

    def refusals(self) -> list[tuple[str, str]]:
        return [(method, str(error)) for method, _, error in self.answers if error is not None]

    def stats(self) -> Any:
        return self.amplifiers[0].stats()

    def lost(self) -> int:
        return sum(gap["samples"] for gap in self.gaps())

    def whole(self) -> bool:
        """After the end: every sample that came or is told as missing is in the case, but for a quantum that had not
        come whole."""
        rest = self.stats().samples + self.lost() - self.room.now
        return 0 <= rest <= self.room.rate_hz / 200

    def check_record(self) -> None:
        """The record is whole, and every sample of the case is in it or told as a gap."""
        report = verify(self.state_dir / "cases" / "case-1")
        assert report.problems == [], report.problems


def device_sample() -> int:
    return int(str(device_state()["sample"]))
