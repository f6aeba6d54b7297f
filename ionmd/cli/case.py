"""`ionmd case`: make, open and close cases over the socket; list, show, verify and recover them from their files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ionmd.cli.common import as_json, ask, by, case_path, clean, done, places, show_json, state_path, table
from ionmd.cli.group import LazyGroup
from ionmd.errors import StorageError

case = LazyGroup(
    {
        "export": ("ionmd.cli.export:export", "A closed case as files other programs read."),
        "report": ("ionmd.cli.report:report", "A closed case as a page."),
    },
    name="case", help="Cases and their records.",
)  # fmt: skip


@case.command("new")
@click.option("--template", help="Surgery template; default: the configured one.")
@click.option("--id", "case_id", help="Default: 128 random bits. Never a patient's name or number.")
@by
@as_json
@places
def new(template: str | None, case_id: str | None, by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Make a case and open it."""
    _opened(ask(socket, "case.open", case_id=case_id, template=template, by=by), as_json)


@case.command("open")
@click.argument("case_id")
@by
@as_json
@places
def resume(case_id: str, by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Resume a case that exists."""
    _opened(ask(socket, "case.open", case_id=case_id, resume=True, by=by), as_json)


def _opened(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(result)
    else:
        click.echo(f"case {clean(result['case_id'])} is open; its record: {clean(result.get('path', 'unknown'))}")


@case.command("close")
@click.option("--reason", default="", help="Why, if there is more to say than that it is over.")
@by
@as_json
@places
def close(reason: str, by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Disarm, finish the files, write the manifest."""
    done(ask(socket, "case.close", wait_s=120.0, reason=reason, by=by), as_json, "case closed")


@case.command("list")
@as_json
@places
def list_(state_dir: str | None, as_json: bool, **_: object) -> None:
    """Cases in the state directory, newest last.  Needs no daemon."""
    from ionmd.case.verify import list_cases

    found = list_cases(state_path(state_dir))
    if as_json:
        show_json({"cases": found})
        return
    if not found:
        click.echo(f"no case in {state_path(state_dir)}")
        return
    keys = ("case_id", "state", "opened_utc", "closed_utc", "template", "source")
    table([tuple(str(c.get(k, "")) for k in keys) for c in found],
          ("CASE", "STATE", "OPENED", "CLOSED", "TEMPLATE", "SOURCE"))  # fmt: skip


@case.command("show")
@click.argument("case_id")
@as_json
@places
def show(case_id: str, state_dir: str | None, as_json: bool, **_: object) -> None:
    """What a case holds: lines by kind, samples, files.  Needs no daemon."""
    from ionmd.case.verify import list_cases, verify

    path = _existing(state_dir, case_id)
    head = next(c for c in list_cases(state_path(state_dir)) if c["case_id"] == case_id)
    report = verify(path)
    files = {f.name: f.stat().st_size for f in sorted(path.iterdir()) if f.is_file()}
    page = {**head, "lines": report.lines, "kinds": report.kinds, "raw_samples": report.raw_samples,
            "segments": report.segments, "files": files, "path": str(path)}  # fmt: skip
    if as_json:
        show_json(page)
        return
    for key in ("case_id", "state", "opened_utc", "closed_utc", "template", "source", "path", "raw_samples"):
        if page[key] != "":
            click.echo(f"{key:12} {clean(page[key])}")
    table([(k, str(v)) for k, v in sorted(report.kinds.items())], ("KIND", "LINES"))
    table([(k, str(v)) for k, v in files.items()], ("FILE", "BYTES"))


@case.command("verify")
@click.argument("case_ids", nargs=-1, metavar="[ID...]")
@as_json
@places
def verify_(case_ids: tuple[str, ...], state_dir: str | None, as_json: bool, **_: object) -> None:
    """Check the chain, the manifest and the raw segments; every case without an ID.  Exit code 1 for a problem."""
    from ionmd.case.verify import list_cases, verify

    paths = [_existing(state_dir, i) for i in case_ids] or [
        state_path(state_dir) / "cases" / c["case_id"] for c in list_cases(state_path(state_dir))
    ]
    reports = [verify(path) for path in paths]
    if as_json:
        show_json({"ok": all(r.ok for r in reports), "cases": [{**asdict(r), "ok": r.ok} for r in reports]})
    else:
        for r in reports:
            word = "verified" if r.ok else f"{len(r.problems)} problem{'s' * (len(r.problems) != 1)}"
            click.echo(f"{clean(r.case_id)}  {r.state}  {word}: {r.lines} lines, {r.raw_samples} samples, "
                       f"{r.segments} segments, chain head {r.head[:16]}")  # fmt: skip
            for text in r.notes:
                click.echo(f"  note: {clean(text)}")
            for text in r.problems:
                click.echo(f"  {clean(text)}", err=True)
        if not reports:
            click.echo(f"no case in {state_path(state_dir)}")
    if not all(r.ok for r in reports):
        raise SystemExit(1)


@case.command("recover")
@click.argument("case_ids", nargs=-1, metavar="[ID...]")
@as_json
@places
def recover_(case_ids: tuple[str, ...], state_dir: str | None, as_json: bool, **_: object) -> None:
    """Make interrupted cases readable; every interrupted one without an ID.  Twice is the same as once."""
    from ionmd.case.lock import StateLock
    from ionmd.case.verify import list_cases, recover

    names = list(case_ids) or [
        c["case_id"] for c in list_cases(state_path(state_dir)) if c["state"] not in ("closed", "recovered")
    ]
    paths = {name: _existing(state_dir, name) for name in names}
    actions: dict[str, list[str]] = {}
    if paths:
        lock = StateLock(state_path(state_dir))  # refuses while a daemon writes there
        try:
            actions = {name: recover(path) for name, path in paths.items()}
        finally:
            lock.release()
    if as_json:
        show_json({"cases": actions})
        return
    for name, did in actions.items():
        click.echo(f"{clean(name)}: {'; '.join(clean(d) for d in did) or 'nothing to do'}")
    if not actions:
        click.echo("no interrupted case")


def _existing(state_dir: str | None, case_id: str) -> Path:
    path = case_path(state_dir, case_id)
    if not path.is_dir():
        raise StorageError(f"case {case_id} came; {path} does not exist (`ionmd case list` shows what there is)")
    return path
