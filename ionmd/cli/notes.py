"""`ionmd note`, `event` and `episode`: what happened in the room, and who was told."""

from __future__ import annotations

import click

from ionmd.cli.common import as_json, ask, by, clean, done, places, show_json

KINDS = ("position", "step", "anaesthesia", "physiology", "relaxant", "clamp", "irrigation", "technical", "comment")


@click.command()
@click.argument("text", nargs=-1, required=True)
@by
@as_json
@places
def note(text: tuple[str, ...], by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """A comment in the record."""
    done(ask(socket, "event.add", kind="comment", text=" ".join(text), by=by), as_json, "noted")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("text", nargs=-1, required=True)
@click.option("--at-sample", type=click.IntRange(min=0), help="When it happened; default: now.")
@by
@as_json
@places
def event(kind: str, text: tuple[str, ...], at_sample: int | None, by: str, socket: str | None, as_json: bool,
          **_: object) -> None:  # fmt: skip
    """An event of the operation.  A `step` is what later readings carry."""
    done(ask(socket, "event.add", kind=kind, text=" ".join(text), at_sample=at_sample, by=by), as_json, "noted")


@click.group()
def episode() -> None:
    """Who was told of a change, and what they did."""


@episode.command("add")
@click.option("--informed", multiple=True, required=True, metavar="WHO", help="surgeon, ...; may repeat.")
@click.option("--words", required=True, help="What was said.")
@click.option("--alarm", "alarm_id", metavar="ID", help="The change it is about; opens its episode.")
@click.option("--episode", "episode_id", metavar="ID", help="An episode to continue.")
@click.option("--reply", default="")
@click.option("--action", default="")
@click.option("--outcome", default=None, type=click.Choice(["improved", "unchanged", "resolved", "at closing"]))
@by
@as_json
@places
def add(informed: tuple[str, ...], words: str, alarm_id: str | None, episode_id: str | None, reply: str, action: str,
        outcome: str | None, by: str, socket: str | None, as_json: bool, **_: object) -> None:  # fmt: skip
    """One entry: who was informed, the words, their reply, action and outcome."""
    done(ask(socket, "episode.add", informed=list(informed), words=words, alarm=alarm_id, episode=episode_id,
             reply=reply, action=action, outcome=outcome, by=by), as_json, "episode")  # fmt: skip


@episode.command("list")
@as_json
@places
def list_(socket: str | None, as_json: bool, **_: object) -> None:
    """Episodes of the case with their entries."""
    page = ask(socket, "episode.list")
    if as_json:
        show_json(page)
        return
    for one in page.get("episodes", []):
        click.echo(f"{clean(one['id'])} about {clean(one.get('alarm') or 'no alarm')}, opened at sample "
                   f"{one.get('opened_sample')}")  # fmt: skip
        for e in one.get("entries", []):
            parts = [f"told {', '.join(clean(i) for i in e['informed'])}: {clean(e['words'])}"]
            parts += [f"{k}: {clean(e[k])}" for k in ("reply", "action", "outcome") if e.get(k)]
            click.echo(f"  {e['sample']} {clean(e.get('person', ''))} " + "; ".join(parts))
    if not page.get("episodes"):
        click.echo("no episode")
