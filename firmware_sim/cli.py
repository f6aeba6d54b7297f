"""`ionmd-sim`: one simulated unit with its patient, exported over USB/IP until told to stop.

In: options.  Out: one JSON line on stdout when it listens; everything else goes to stderr.
Always: a bad option or scenario ends with exit code 2 before anything listens; SIGTERM, SIGINT and (with
--with-parent) the end of stdin end it cleanly, with its socket and its files in the shim tree removed.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import click

from firmware_sim.device import Speed
from firmware_sim.pacing import MAX
from ionmd.errors import ConfigError


def parse_speed(text: str) -> Speed:
    """`max` or a factor of real time.  Raises ValueError."""
    if text == MAX:
        return MAX
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not (0.01 <= speed <= 1000):
        raise ValueError(f"speed {text!r}: expected a number 0.01..1000, or max")
    return speed


class _Speed(click.ParamType):
    name = "N|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Speed:
        try:
            return parse_speed(str(value))
        except ValueError as e:
            self.fail(str(e), param, ctx)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--scenario", default="quiet", show_default=True, help="Name of a scenario that ships, or a .toml file.")
@click.option("--listen", "addresses", multiple=True, help="unix:PATH or tcp:PORT (loopback); may be repeated.")
@click.option("--control", help="unix:PATH of the control socket: faults and state, one JSON object a line.")
@click.option("--speed", type=_Speed(), default="1", show_default=True, help="Device time against wall time.")
@click.option("--shim-root", type=click.Path(file_okay=False, path_type=Path), help="Tree for usbfs_shim.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Instead of the scenario's.")
@click.option("--serial", help="Serial number, SIM-...; instead of the scenario's.")
@click.option("--inputs", type=click.IntRange(1, 64), help="Inputs at power-up; instead of the scenario's.")
@click.option("--rate-hz", type=click.IntRange(1000, 40_000), help="Rate at power-up; instead of the scenario's.")
@click.option("--block-samples", type=click.IntRange(1, 4096), help="Samples of a block at power-up.")
@click.option("--ppm", type=click.FloatRange(-1000, 1000), help="Error of the device clock against wall time.")
@click.option("--with-parent", is_flag=True, help="End when stdin ends.")
@click.option("--list", "list_them", is_flag=True, help="Print the scenarios that ship, one a line, and end.")
@click.option("--truth", is_flag=True, help="Print what is really the case in the scenario, as JSON, and end.")
@click.option("--own", type=click.Path(file_okay=False, path_type=Path), hidden=True)
def main(addresses: tuple[str, ...], control: str | None, shim_root: Path | None, with_parent: bool,
         list_them: bool, truth: bool, own: Path | None, **unit: Any) -> None:  # fmt: skip
    """Export a simulated amplifier and stimulator, with a patient, over USB/IP."""
    from firmware_sim.scenario import available, load
    from firmware_sim.shim.tree import Tree
    from firmware_sim.unit import build
    from firmware_sim.usbip.bus import Port
    from firmware_sim.usbip.server import Server, listen

    if list_them:
        for name in available():
            click.echo(f"{name:<18}{load(name).scenario.title}")
        return
    try:
        device = build(**unit)
        if truth:
            click.echo(json.dumps(device.patient.truth(), indent=1))
            return
        server = Server([Port("1-1", device, Tree(shim_root) if shim_root else None)])
        sockets = [listen(a) for a in addresses or ("tcp:3240",)]
        for sock in sockets:
            server.add_listener(sock)
        if control:
            server.add_listener(listen(control), control=True)
    except (ConfigError, ValueError, OSError) as e:
        click.echo(f"ionmd-sim: {e}", err=True)
        sys.exit(2)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    if with_parent:
        server.watch(0, lambda: None if os.read(0, 4096) else server.stop())
    names = [f"unix:{n}" if isinstance(n, str) else f"tcp:{n[0]}:{n[1]}" for n in (s.getsockname() for s in sockets)]
    ready = {"ready": True, "listen": names, "control": control, "busid": "1-1", "serial": device.firmware.serial,
             "speed": unit["speed"], "scenario": unit["scenario"], "pid": os.getpid()}  # fmt: skip
    click.echo(json.dumps(ready))
    gc.collect()
    gc.freeze()  # all that lives long exists now
    server.run()
    if own:  # launch.py's private directory; its process may have been killed
        shutil.rmtree(own, ignore_errors=True)


if __name__ == "__main__":
    main()
