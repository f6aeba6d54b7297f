"""`ionmd demo`: the whole daemon on simulated firmware and patient, in virtual time, shown as it happens.

Always: the case is a real record (closed and verified at the end); the daemon is told nothing of the scenario.
"""

from __future__ import annotations

import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from ionmd.cli.common import places
from ionmd.cli.demo_show import Seen, show, summary
from ionmd.errors import ConfigError, IonmdError

FACTOR = 20.0  # of real time, so that a person can follow
RATE_HZ, BLOCK = 10_000, 100
MOST_INPUTS = 28  # every electrode of the template; more would only cost time


class Feed:
    """Events of the pipeline thread for this one, paced to `factor` of real time (None: as fast as it goes)."""

    def __init__(self, factor: float | None, rate_hz: float) -> None:
        self._queue: queue.SimpleQueue[Seen | None] = queue.SimpleQueue()
        self._factor, self._rate_hz = factor, rate_hz
        self._began = time.monotonic()
        self._leave = threading.Event()

    def put(self, topic: str, data: object, sample: int, _: int | None) -> None:
        """On the pipeline thread; waits until it is this event's time."""
        if self._factor is not None:
            ahead = sample / self._rate_hz / self._factor - (time.monotonic() - self._began)
            if ahead > 0:
                self._leave.wait(ahead)
        plain: Any = msgspec.to_builtins(data)
        if isinstance(plain, dict):
            self._queue.put(Seen(topic, plain, sample))

    def end(self) -> None:
        self._leave.set()
        self._queue.put(None)

    def __iter__(self) -> Iterator[Seen]:
        while (seen := self._queue.get()) is not None:
            yield seen


@click.command()
@click.option("--fast", is_flag=True, help=f"As fast as it goes; without it about {FACTOR:g} times real time.")
@click.option("--scenario", "name", default="demo", show_default=True,
              help="Another story: a scenario with operator steps, for example real_ssep.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=None, help="Another patient of the same kind.")
@places
def demo(fast: bool, name: str, seed: int | None, state_dir: str | None, **_: object) -> None:
    """A simulated case from first sample to alarm: loss on the right, recovery, a lead that falls off."""
    if state_dir is not None:
        _case(Path(state_dir), fast, name, seed)
        return
    with tempfile.TemporaryDirectory(prefix="ionmd-demo-") as directory:
        _case(Path(directory), fast, name, seed)


def _case(state_dir: Path, fast: bool, name: str, seed: int | None) -> None:
    from firmware_sim import events, unit
    from firmware_sim import scenario as scenarios
    from ionmd.agenda import Step
    from ionmd.case.verify import verify
    from ionmd.config import Case, Config, Device
    from ionmd.daemon import Daemon
    from ionmd.drivers.demo import Demo
    from ionmd.log import setup_logging

    setup_logging("error")
    scenario = unit.check(scenarios.load(name))
    loss: Any = next((e for e in scenario.events if isinstance(e, events.Loss)), None)
    if loss is None or not scenario.operator_steps:
        raise ConfigError(f"scenario {name}: expected one with operator steps and a loss, such as demo")
    case_id = f"{scenario.name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    inputs = min(scenario.device.inputs, MOST_INPUTS)
    config = Config(device=Device("demo", "", inputs, RATE_HZ, BLOCK), case=Case(scenario.scenario.template))
    feed = Feed(None if fast else FACTOR, RATE_HZ)
    units: dict[str, Demo] = {}
    daemon = Daemon(
        config, state_dir, speed=None, duration_s=scenario.scenario.duration_s, on_event=feed.put,
        make_amplifier=lambda wanted: units.setdefault("demo", Demo(wanted, name, seed)),
    )  # fmt: skip
    refused: list[str] = []
    for asked in scenario.operator_steps:
        named = {"case_id": case_id} if asked.method == "case.open" else {}
        step = Step(asked.sample(RATE_HZ), asked.method, asked.params | named)

        def answered(_: object, error: Exception | None, method: str = step.method) -> None:
            if error is not None:
                refused.append(f"{method}: {error}")

        daemon.script(step, answered)
    began = time.monotonic()
    daemon.start()

    def wait() -> None:
        daemon.engine.finished.wait()
        feed.end()

    threading.Thread(target=wait, daemon=True).start()
    live = _live if sys.stdout.isatty() else None
    try:
        found = show(feed, RATE_HZ, _say if live else click.echo, live)
    finally:
        feed.end()
        daemon.stop()
    wall_s = time.monotonic() - began
    if live:
        click.echo("\r\x1b[K", nl=False)
    report = verify(state_dir / "cases" / case_id)
    click.echo()
    for line in summary(found, RATE_HZ, float(loss.at_s or 0.0), loss.side):
        click.echo(line)
    if scenario.patient.source == "recordings":
        of = units["demo"].device.patient.truth()["recordings"]
        click.echo(f"signals: {of['shape']}; {of['noise']}, {of['noise_unique_s']:.1f} s used of "
                   f"{of['noise_available_s']:.1f} s, each counted once")  # fmt: skip
    word = "verified" if report.ok else "NOT verified: " + "; ".join(report.problems)
    click.echo(f"record: {report.state}, {word}: {report.lines} journal lines, {report.raw_samples} samples of "
               f"{inputs} inputs")  # fmt: skip
    click.echo(f"{scenario.scenario.duration_s:g} device seconds in {wall_s:.1f} s")
    if refused:
        raise IonmdError("the script was refused: " + "; ".join(refused))
    if not report.ok:
        raise SystemExit(1)


def _say(line: str) -> None:
    click.echo("\r\x1b[K" + line)


def _live(line: str) -> None:
    click.echo("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1], nl=False)
