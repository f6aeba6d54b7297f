"""`ionmd run`: the daemon in this process; with --simulate the simulator beside it.

With --simulate this process starts `ionmd-sim`, then itself again as a child in which the real libusb finds the
simulated unit (the preload must be there before the process starts).  Signals go on to the child; its exit code is
ours.  Always: the simulator ends with us.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ionmd.cli.common import places, state_path
from ionmd.errors import ConfigError

if TYPE_CHECKING:
    from ionmd.agenda import Step
    from ionmd.config import Config

CHILD = "IONMD_SIMULATED"  # set in the child: the serial number of the unit that was started for it
DEFAULT_CONFIG = Path("/etc/ionmd/ionmd.toml")


class Speed(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """`max`, or a factor of real time; max is None."""

    name = "N|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            number = 1.0 if text == "max" else float(text)
        except ValueError:
            number = 0.0
        if not (0.01 <= number <= 1000):
            self.fail(f"{text!r} came; a number from 0.01 to 1000, or max, was expected", param, ctx)
        return text


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Default: /etc/ionmd/ionmd.toml if it is there.")
@click.option("--simulate", metavar="[SCENARIO]", is_flag=False, flag_value="quiet", default=None,
              help="With a simulated amplifier, stimulator and patient: scenario name or .toml file.")  # fmt: skip
@click.option("--speed", type=Speed(), default="1", show_default=True, help="Device time against wall time.")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Device seconds.")
@places
def run(config: Path | None, simulate: str | None, speed: str, duration: float | None, socket: str | None,
        state_dir: str | None) -> None:  # fmt: skip
    """Run the daemon until SIGTERM, SIGINT or the end of --duration."""
    if simulate is not None and not os.environ.get(CHILD):
        raise SystemExit(beside_simulator(simulate, speed))
    from ionmd.config import load_config
    from ionmd.log import setup_logging

    loaded = load_config(config or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None))
    setup_logging()
    settings, agenda = loaded.config, None
    if speed != "1" and simulate is None and settings.device.driver != "demo":
        raise click.UsageError(f"--speed {speed} came without --simulate; a real device runs at its own speed")
    if simulate is not None:
        settings, agenda = simulated(settings, simulate, os.environ[CHILD])
    raise SystemExit(start(settings, agenda, socket, state_dir, speed, duration))


def start(config: Config, agenda: list[Step] | None, socket: str | None, state_dir: str | None, speed: str,
          duration_s: float | None) -> int:  # fmt: skip
    from ionmd import __version__, process
    from ionmd.config import socket_candidates

    record = state_path(state_dir or config.record.state_dir or None)

    def ready(path: Path | None) -> None:
        paced = "" if speed == "1" else f", speed {speed}"
        where = path or "the socket it was given"
        click.echo(f"ionmd {__version__} listens on {where} ({config.device.driver}{paced}); record in {record}; "
                   "Ctrl-C ends it", err=True)  # fmt: skip

    return process.run(
        config, socket_paths=socket_candidates(socket or config.service.socket or None), state_dir=record,
        speed=None if speed == "max" else float(speed), duration_s=duration_s, agenda=agenda,
        on_ready=None if os.environ.get("INVOCATION_ID") else ready,  # systemd has told it
    )  # fmt: skip


def simulated(config: Config, scenario_name: str, serial: str) -> tuple[Config, list[Step] | None]:
    """The configuration for a scenario's unit, and what its operator does."""
    import msgspec

    from firmware_sim import scenario as scenarios
    from ionmd.agenda import Step
    from ionmd.config import Case, Device

    found = scenarios.load(scenario_name)
    unit = found.device
    block = unit.block_samples or max(1, unit.rate_hz // 500)
    mains: Any = 60 if found.noise.mains_hz == 60.0 else 50
    device = Device("ionm1", serial, unit.inputs, unit.rate_hz, block, mains)
    agenda = [Step(s.sample(unit.rate_hz), s.method, s.params) for s in found.operator_steps]
    return msgspec.structs.replace(config, device=device, case=Case(found.scenario.template)), agenda or None


def beside_simulator(scenario_name: str, speed: str) -> int:
    """Start the simulator, then this command line again under its environment; the child's exit code."""
    from firmware_sim import scenario as scenarios
    from firmware_sim import unit
    from firmware_sim.launch import Simulator

    unit.check(scenarios.load(scenario_name))  # a wrong scenario is told before anything starts
    simulator = Simulator(scenario_name, speed)
    try:
        simulator.start()
    except (RuntimeError, OSError) as error:
        raise ConfigError(str(error)) from error
    try:
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**simulator.env(), CHILD: str(simulator.ready["serial"]), "PYTHONPATH": path}
        return _forwarding([sys.executable, "-m", "ionmd", *sys.argv[1:]], environment)
    finally:
        simulator.stop()


def _forwarding(command: list[str], environment: dict[str, str]) -> int:
    """Run the child; SIGTERM and SIGINT go on to it.  A child killed by a signal gives 128 + its number."""
    child: subprocess.Popen[bytes] | None = None
    waiting: list[int] = []

    def forward(number: int, _: object) -> None:
        if child is None:
            waiting.append(number)
        elif child.poll() is None:
            child.send_signal(number)

    old = {n: signal.signal(n, forward) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        # its own session: a Ctrl-C of the terminal reaches it once, through us
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        for number in waiting:
            child.send_signal(number)
        code = child.wait()
        return code if code >= 0 else 128 - code
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        if child is not None and child.poll() is None:
            child.kill()
            child.wait()
