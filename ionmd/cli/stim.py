"""`ionmd stim`: the stimulator by hand.  `off` is everybody's; the rest needs the lease."""

from __future__ import annotations

import click

from ionmd.cli.common import as_json, ask, by, clean, done, lease_id, number, places, show_json, table

lease_option = click.option("--lease", metavar="ID", help="Default: $IONMD_LEASE.")


@click.group()
def stim() -> None:
    """The stimulator: status, off, reset, arm, confirm, fire."""


@stim.command("status")
@as_json
@places
def status(socket: str | None, as_json: bool, **_: object) -> None:
    """State of the stimulator, its outputs and its lease."""
    page = ask(socket, "stim.status", wait_s=5.0)
    if as_json:
        show_json(page)
        return
    holder = page.get("holder_person") or page.get("holder_uid") or "nobody"
    click.echo(f"stimulator {clean(page.get('state', 'unknown'))}, lease held by {clean(holder)}")
    for key, word in (("paused", "paused"), ("tripped_reason", "latched off")):
        if page.get(key):
            click.echo(f"{word}: {clean(page[key])}")
    if page.get("outputs"):
        rows = [(o["name"], o["kind"], o["site"], o["state"], o.get("reason", "")) for o in page["outputs"]]
        table(rows, ("OUTPUT", "KIND", "SITE", "STATE", "REASON"))


@stim.command("off")
@as_json
@places
def off(socket: str | None, as_json: bool, **_: object) -> None:
    """All outputs off, at once."""
    result = ask(socket, "stim.off", wait_s=5.0)
    if as_json:
        show_json(result)
    else:
        click.echo("all outputs are off")


@stim.command("reset")
@click.option("--reason", required=True, help="The cause of the latched state, now known and removed.")
@lease_option
@by
@as_json
@places
def reset(reason: str, lease: str | None, by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Leave the latched safe state."""
    done(ask(socket, "stim.reset", reason=reason, lease=lease_id(lease), by=by), as_json, "reset")


@stim.command("arm")
@click.option("--output", required=True, metavar="O", help="Output of the template's stimulator table.")
@click.option("--site", required=True, metavar="S", help="Where it goes into the body.")
@click.option("--amplitude-ma", type=number, metavar="X")
@click.option("--amplitude-v", type=number, metavar="X")
@click.option("--width-us", type=int, required=True, metavar="W")
@click.option("--polarity", default=None,
              type=click.Choice(["monophasic", "biphasic", "anodal", "cathodal", "alternating"]))  # fmt: skip
@click.option("--count", type=int, help="Pulses of one delivery; default: 1.")
@click.option("--interval-ms", type=number, help="Between the pulses of one delivery.")
@click.option("--rate-hz", type=number, help="Deliveries per second; default: one delivery.")
@lease_option
@by
@as_json
@places
def arm(output: str, site: str, amplitude_ma: float | None, amplitude_v: float | None, width_us: int,
        polarity: str | None, count: int | None, interval_ms: float | None, rate_hz: float | None, lease: str | None,
        by: str, socket: str | None, as_json: bool, **_: object) -> None:  # fmt: skip
    """Load one delivery into the device; prints the token that `fire` takes."""
    if (amplitude_ma is None) == (amplitude_v is None):
        raise click.UsageError("exactly one of --amplitude-ma and --amplitude-v was expected")
    result = ask(socket, "stim.arm", output=output, site=site, amplitude_ma=amplitude_ma, amplitude_v=amplitude_v,
                 width_us=width_us, polarity=polarity, count=count, interval_ms=interval_ms, rate_hz=rate_hz,
                 lease=lease_id(lease), by=by)  # fmt: skip
    if as_json:
        show_json(result)
        return
    click.echo(clean(result["token"]))
    unit = "V" if amplitude_v is not None else "mA"
    amplitude = amplitude_v if amplitude_v is not None else amplitude_ma
    follow = (f"repeat the amplitude first: `ionmd stim confirm {result['token']} {amplitude:g}`"
              if result.get("confirm") else f"`ionmd stim fire {result['token']}` delivers it")  # fmt: skip
    what = f"{clean(output)} at {clean(site)}, {amplitude:g} {unit}, {width_us} us"
    click.echo(f"armed: {what}; {clean(follow)}", err=True)
    for warning in result.get("warnings", []):
        click.echo(f"warning: {clean(warning)}", err=True)


@stim.command("confirm")
@click.argument("token")
@click.argument("amplitude", type=number)
@by
@as_json
@places
def confirm(token: str, amplitude: float, by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Repeat the AMPLITUDE of a large step, in the unit it was armed in."""
    done(ask(socket, "stim.confirm", token=token, amplitude=amplitude, by=by), as_json, "confirmed")


@stim.command("fire")
@click.argument("token")
@by
@as_json
@places
def fire(token: str, by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Deliver what the TOKEN holds."""
    result = ask(socket, "stim.fire", token=token, by=by)
    if as_json:
        show_json(result)
    else:
        click.echo(f"fires at sample {result.get('at_sample', '?')}")
