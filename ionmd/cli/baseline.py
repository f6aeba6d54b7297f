"""`ionmd baseline`: accept, list and choose what responses are compared with."""

from __future__ import annotations

import click

from ionmd.cli.common import as_json, ask, by, done, places, show_json, table


@click.group()
def baseline() -> None:
    """Accept, list and choose baselines."""


@baseline.command("set")
@click.argument("test")
@click.option("--kind", required=True,
              type=click.Choice(["pre-position", "post-position", "post-opening", "re-baseline", "other"]))  # fmt: skip
@click.option("--reason", required=True, help="Why these averages are the patient's reference.")
@click.option("--average", "averages", multiple=True, metavar="ID", help="At least two; default: the latest two.")
@by
@as_json
@places
def set_(test: str, kind: str, reason: str, averages: tuple[str, ...], by: str, socket: str | None, as_json: bool,
         **_: object) -> None:  # fmt: skip
    """Accept a baseline of TEST."""
    result = ask(socket, "baseline.set", test=test, kind=kind, reason=reason, averages=list(averages), by=by)
    done(result, as_json, "baseline")


@baseline.command("list")
@click.argument("test", required=False)
@as_json
@places
def list_(test: str | None, socket: str | None, as_json: bool, **_: object) -> None:
    """Baselines of the case, all of them kept."""
    page = ask(socket, "baseline.list", test=test)
    if as_json:
        show_json(page)
        return
    if not page.get("baselines"):
        click.echo("no baseline yet; `ionmd baseline set TEST` accepts the latest two averages")
        return
    rows = [(b["id"], b["test"], b["kind"], "active" if b["active"] else "", "first" if b["first_accepted"] else "",
             str(b["sample"]), b["person"], b["reason"]) for b in page.get("baselines", [])]  # fmt: skip
    table(rows, ("ID", "TEST", "KIND", "", "", "SAMPLE", "PERSON", "REASON"))


@baseline.command("activate")
@click.argument("baseline_id", metavar="ID")
@click.option("--reason", required=True)
@by
@as_json
@places
def activate(baseline_id: str, reason: str, by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Compare with another kept baseline."""
    done(ask(socket, "baseline.activate", baseline=baseline_id, reason=reason, by=by), as_json, "active baseline")
