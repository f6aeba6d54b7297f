"""`ionmd alarm`: changes (the patient) and technical alarms (the equipment).  Acknowledging is not telling."""

from __future__ import annotations

import click

from ionmd.cli.common import as_json, ask, by, clean, done, number, places, show_json
from ionmd.cli.status import alarm_line


@click.group()
def alarm() -> None:
    """List, acknowledge and pause alarms."""


@alarm.command("list")
@click.option("--all", "all_", is_flag=True, help="Closed ones too.")
@as_json
@places
def list_(all_: bool, socket: str | None, as_json: bool, **_: object) -> None:
    """Open alarms, the most pressing first, with their evidence."""
    page = ask(socket, "alarm.list", all=all_ or None)
    if as_json:
        show_json(page)
        return
    if page.get("paused_until_sample") is not None:
        click.echo(f"sound is paused until {_when(socket, page['paused_until_sample'])}: "
                   f"{clean(page.get('pause_reason', ''))}")  # fmt: skip
    for one in page.get("alarms", []):
        click.echo(alarm_line(one))
        for text in one.get("evidence", []):
            click.echo(f"    {clean(text)}")
    if not page.get("alarms"):
        click.echo("no alarm in the list; `ionmd status` says what is monitored")


def _when(socket: str | None, sample: int) -> str:
    """A sample to come, in seconds from now when the rate is known."""
    page = ask(socket, "status", wait_s=5.0)
    rate = float(page.get("rate_hz") or 0.0)
    left = f" ({max(0.0, (sample - page.get('sample', 0)) / rate):.0f} s from now)" if rate > 0 else ""
    return f"sample {sample}{left}"


@alarm.command("ack")
@click.argument("alarm_id", metavar="ID")
@click.option("--by", "name", required=True, metavar="NAME", help="Who acknowledges for the room.")
@click.option("--reason", default="")
@as_json
@places
def ack(alarm_id: str, name: str, reason: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Acknowledge for the room.  Telling the surgeon is `ionmd episode add`."""
    done(ask(socket, "alarm.ack", id=alarm_id, by=name, reason=reason), as_json, "acknowledged")


@alarm.command("pause")
@click.option("--seconds", type=number, default=60.0, show_default=True, help="At most 120.")
@click.option("--reason", required=True)
@by
@as_json
@places
def pause(seconds: float, reason: str, by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Pause the sound for a limited time; alarms keep being raised and recorded."""
    done(ask(socket, "alarm.pause", seconds=seconds, reason=reason, by=by), as_json, f"sound paused for {seconds:g} s")
