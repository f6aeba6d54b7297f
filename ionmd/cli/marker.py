"""`ionmd marker`: corrections by hand; the automatic value stays beside them."""

from __future__ import annotations

import click

from ionmd.cli.common import as_json, ask, by, done, number, places


@click.group()
def marker() -> None:
    """Correct markers by hand."""


@marker.command("set")
@click.argument("test")
@click.argument("derivation")
@click.argument("label")
@click.argument("latency_ms", type=number)
@click.option("--amplitude-uv", type=number)
@click.option("--reason", required=True)
@click.option("--reading", metavar="ID", help="Default: the latest of the derivation.")
@by
@as_json
@places
def set_(test: str, derivation: str, label: str, latency_ms: float, amplitude_uv: float | None, reason: str,
         reading: str | None, by: str, socket: str | None, as_json: bool, **_: object) -> None:  # fmt: skip
    """Put the marker LABEL of TEST's DERIVATION at LATENCY_MS."""
    done(ask(socket, "marker.set", test=test, derivation=derivation, label=label, latency_ms=latency_ms,
             amplitude_uv=amplitude_uv, reason=reason, reading=reading, by=by), as_json, f"{label} set")  # fmt: skip


@marker.command("clear")
@click.argument("test")
@click.argument("derivation")
@click.argument("label")
@click.option("--reason", required=True)
@click.option("--reading", metavar="ID", help="Default: the latest of the derivation.")
@by
@as_json
@places
def clear(test: str, derivation: str, label: str, reason: str, reading: str | None, by: str, socket: str | None,
          as_json: bool, **_: object) -> None:  # fmt: skip
    """Back to the automatic marker."""
    done(ask(socket, "marker.clear", test=test, derivation=derivation, label=label, reason=reason, reading=reading,
             by=by), as_json, f"{label} automatic again")  # fmt: skip
