"""`ionmd watch`: events as they happen, as lines or as JSON lines."""

from __future__ import annotations

import click
import msgspec

from ionmd.cli.common import connect, places
from ionmd.cli.draw import lines
from ionmd.errors import DaemonUnreachable
from ionmd.service.schema import TOPICS

USUAL = ("device", "stim", "average", "reading", "alarm", "case", "message")


@click.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC...]", type=click.Choice(TOPICS))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as the daemon sends it.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@places
def watch(topics: tuple[str, ...], as_json: bool, count: int | None, socket: str | None, **_: object) -> None:
    """Events of TOPICs until Ctrl-C; without names device, stim, average, reading, alarm, case and message."""
    with connect(socket) as client:
        rate = float(client.call("status").get("rate_hz") or 0.0)
        client.subscribe(*(topics or USUAL))
        for seen, event in enumerate(client.events(), 1):
            if as_json:
                click.echo(msgspec.json.encode(event).decode())
            elif not (event.topic == "case" and "committed" in event.data):
                if event.skipped:
                    click.echo(f"({event.skipped} {event.topic} events were passed over)", err=True)
                for line in lines(event.topic, event.data, event.sample / rate if rate > 0 else None):
                    click.echo(line)
            if seen == count:
                return
    raise DaemonUnreachable("the daemon ended the connection")
