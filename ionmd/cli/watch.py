"""`ionmd watch`: events as they happen: a story for a person, or the events themselves as lines or JSON lines."""

from __future__ import annotations

import shutil
import sys

import click
import msgspec

from ionmd.cli.common import connect, places
from ionmd.cli.draw import lines
from ionmd.cli.story import Story
from ionmd.errors import DaemonUnreachable
from ionmd.service.schema import TOPICS

USUAL = ("device", "quality", "stim", "average", "reading", "alarm", "case", "message")


@click.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC...]", type=click.Choice(TOPICS))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as the daemon sends it.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@places
def watch(topics: tuple[str, ...], as_json: bool, count: int | None, socket: str | None, **_: object) -> None:
    """Events until Ctrl-C.

    Without TOPICs the story of the case: findings, alarms, what people entered, and on a terminal a live line.  With
    TOPICs every event of them."""
    with connect(socket) as client:
        rate = float(client.call("status").get("rate_hz") or 0.0)
        story = Story(rate)
        live = not topics and not as_json and sys.stdout.isatty()
        client.subscribe(*(topics or USUAL))
        for seen, event in enumerate(client.events(), 1):
            if as_json:
                click.echo(msgspec.json.encode(event).decode())
            elif event.skipped and topics:
                click.echo(f"({event.skipped} {event.topic} events were passed over)", err=True)
            if not as_json and not (event.topic == "case" and "committed" in event.data):
                told = (lines(event.topic, event.data, event.sample / rate if rate > 0 else None) if topics
                        else story.tell(event.topic, event.data, event.sample))  # fmt: skip
                for line in told:
                    click.echo(("\r\x1b[K" if live else "") + line)
                if live:
                    click.echo("\r\x1b[K" + story.live()[: shutil.get_terminal_size().columns - 1], nl=False)
            if seen == count:
                return
    raise DaemonUnreachable("the daemon ended the connection")
