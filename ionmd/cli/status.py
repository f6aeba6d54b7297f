"""`ionmd status`: one page; the headline of a test is the age of its last valid reading."""

from __future__ import annotations

from typing import Any

import click

from ionmd.cli.common import as_json, ask, clean, places, show_json, table


@click.command()
@as_json
@places
def status(socket: str | None, as_json: bool, **_: object) -> None:
    """Device, case, tests, stimulator and alarms on one page."""
    page = ask(socket, "status", wait_s=5.0)
    if as_json:
        show_json(page)
        return
    show(page)


def show(page: dict[str, Any]) -> None:
    """The page as text.  What the daemon did not say is not invented."""
    device, stimulator = page.get("device") or {}, page.get("stim") or {}
    rate = float(page.get("rate_hz") or 0.0)
    seconds = f"{page.get('sample', 0) / rate:.1f} s, " if rate > 0 else ""
    click.echo(f"{clean(page.get('server', 'ionmd'))}, source {clean(page.get('source', 'unknown'))}, "
               f"speed {clean(page.get('speed', '1'))}")  # fmt: skip
    click.echo(f"device      {clean(device.get('state', 'unknown'))} {clean(device.get('serial', ''))} "
               f"{device.get('inputs', 0)} inputs at {rate:g} Hz, lost {device.get('lost_samples', 0)}, "
               f"gaps {device.get('gaps', 0)}")  # fmt: skip
    none = "none open; `ionmd case new` opens one"
    click.echo(f"case        {clean(page.get('case_id') or none)} ({seconds}sample {page.get('sample', 0)})")
    persons = ", ".join(clean(p.get("name", "")) for p in page.get("persons", []))
    click.echo(f"attending   {persons or 'nobody'}")
    if page.get("step"):
        click.echo(f"step        {clean(page['step'])}")
    holder = clean(stimulator.get("holder_person") or stimulator.get("holder_uid") or "nobody")
    latched = f", latched off: {clean(stimulator['tripped_reason'])}" if stimulator.get("tripped_reason") else ""
    click.echo(f"stimulator  {clean(stimulator.get('state', 'unknown'))}, lease held by {holder}{latched}")
    recording = page.get("recording") or {}
    if page.get("case_id"):
        shed = recording.get("shed_samples", 0)
        trouble = ", ".join(clean(t) for t in recording.get("troubles", ()))
        size = recording.get("raw_bytes", 0) / 2**20
        click.echo(f"record      {recording.get('journal_lines', 0)} lines ({recording.get('journal_pending', 0)} "
                   f"waiting), {size:.1f} MiB of samples, {shed} samples not recorded"
                   + (f"; trouble: {trouble}" if trouble else ""))  # fmt: skip
    for pause in page.get("paused", []):
        click.echo(f"paused      {clean(pause.get('what', ''))}: {clean(pause.get('cause', ''))}")
    if page.get("tests"):
        click.echo()
        rows = [(t["test"], valid_age(t), t["state"], str(t.get("sweeps", 0)), str(t.get("rejected", 0)),
                 "monitored" if t["monitored"] else f"not monitored: {t.get('reason') or 'no reading yet'}")
                for t in page["tests"]]  # fmt: skip
        table(rows, ("TEST", "LAST VALID", "STATE", "SWEEPS", "REJECTED", ""))
    if page.get("alarms"):
        click.echo()
        for alarm in page["alarms"]:
            click.echo(alarm_line(alarm))


def valid_age(test: dict[str, Any]) -> str:
    age = test.get("valid_age_s")
    if age is None:
        return "never" if test.get("state") == "running" else "-"
    return f"{age:.0f} s ago" if age < 120 else f"{age / 60:.0f} min ago"


_COLOUR = {"high": "red", "medium": "yellow", "low": "cyan"}


def alarm_line(alarm: dict[str, Any]) -> str:
    """One alarm: id, what it is about, its sentence.  `change` is the patient, `technical alarm` the equipment."""
    word = "change" if alarm.get("kind") == "physiological" else "technical alarm"
    facts = ", ".join(clean(alarm.get(key, "")) for key in ("priority", "state"))
    text = f"{clean(alarm.get('id', ''))} {word}, {facts}: {clean(alarm.get('sentence', ''))}"
    return click.style(text, fg=alarm_colour(alarm), bold=alarm.get("state") == "active")


def alarm_colour(alarm: dict[str, Any]) -> str | None:
    """Of its priority while it asks for attention."""
    return None if alarm.get("state") in ("cleared", "acknowledged") else _COLOUR.get(str(alarm.get("priority")))
