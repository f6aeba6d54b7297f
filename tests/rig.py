"""A whole daemon in this process, on the demo driver: firmware, patient and record are real, time is virtual."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from ionmd.agenda import Step
from ionmd.config import Config, Device, Limits
from ionmd.daemon import Daemon
from ionmd.drivers.demo import Demo
from ionmd.testdef import Template

RATE = 10_000
SCENARIOS = Path(__file__).parent / "scenarios"


class CaseRun:
    """Runs an agenda to its end and keeps every event and every answer."""

    def __init__(self, state_dir: Path, scenario: str | Path, agenda: list[Step], duration_s: float, seed: int = 1,
                 inputs: int = 8, templates: dict[str, Template] | None = None, limits: Limits | None = None) -> None:
        config = msgspec.structs.replace(
            Config(), device=Device(driver="demo", inputs=inputs, rate_hz=RATE, block_samples=100),
            limits=limits or Limits(),
        )
        self.events: list[tuple[str, Any, int]] = []
        self.answers: list[tuple[str, Any, Exception | None]] = []
        self.state_dir = state_dir
        self.demo: Demo | None = None

        def make(wanted: Any) -> Demo:
            self.demo = self.demo or Demo(wanted, scenario, seed)
            return self.demo

        self.daemon = Daemon(config, state_dir, speed=None, duration_s=duration_s, make_amplifier=make,
                             templates=templates, on_event=lambda t, data, at, n: self.events.append((t, data, at)))
        for step in agenda:
            self.daemon.script(step, lambda result, error, m=step.method: self.answers.append((m, result, error)))

    def run(self) -> CaseRun:
        self.daemon.start()
        ended = self.daemon.engine.finished.wait(300)
        self.daemon.stop()
        assert ended, "the case did not end"
        return self

    def of(self, topic: str) -> list[Any]:
        return [data for t, data, _ in self.events if t == topic]

    def refusals(self) -> list[tuple[str, str]]:
        return [(m, str(e)) for m, _, e in self.answers if e is not None]


def opening(case_id: str = "case-1", **params: Any) -> list[Step]:
    return [
        Step(1000, "person.sign_in", {"name": "Kim", "credential": "CNIM"}),
        Step(1500, "case.open", {"case_id": case_id, **params}),
        Step(2000, "stim.acquire", {}),
    ]


def temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="ionmd-test-"))
