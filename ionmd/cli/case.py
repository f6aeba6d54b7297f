"""`ionmd case`: make, open and close cases over the socket; list, show, verify and recover them from their files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ionmd.cli.casepage import case_page, when
from ionmd.cli.common import as_json, ask, by, case_path, clean, of_the_service, places, show_json, state_path, table
from ionmd.cli.group import LazyGroup
from ionmd.errors import StorageError

if TYPE_CHECKING:
    from ionmd.case.verify import Report

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
    result = ask(socket, "case.close", wait_s=120.0, reason=reason, by=by)
    if as_json:
        show_json(result)
    else:  # the case's journal has ended: a line number would be that of the system's
        name = clean(result.get("id", ""))
        click.echo(f"case {name + ' ' if name else ''}is closed (sample {result.get('sample', '?')})")


@case.command("list")
@as_json
@places
def list_(state_dir: str | None, as_json: bool, **_: object) -> None:
    """Cases in the state directory, newest last.  Needs no daemon."""
    from ionmd.case.listing import list_cases

    found = list_cases(state_path(state_dir))
    if as_json:
        show_json({"cases": found})
        return
    if not found:
        click.echo(f"no case in {state_path(state_dir)}{of_the_service(state_dir)}")
        return
    keys = ("case_id", "state", "opened_utc", "closed_utc", "template", "source")
    table([tuple(when(c[k]) if k.endswith("_utc") else str(c[k]) for k in keys) for c in found],
          ("CASE", "STATE", "OPENED (UTC)", "CLOSED (UTC)", "TEMPLATE", "SOURCE"))  # fmt: skip
    for c in found:
        if "problem" in c:
            click.echo(f"{clean(c['case_id'])}: {clean(c['problem'])}", err=True)


@case.command("show")
@click.argument("case_id")
@as_json
@places
def show(case_id: str, state_dir: str | None, as_json: bool, **_: object) -> None:
    """What a case holds: tests, people, events, alarms, gaps, files.  Needs no daemon; says nothing about damage
    (`ionmd case verify` does)."""
    from ionmd.case.listing import show_case

    page = show_case(_existing(state_dir, case_id))
    if as_json:
        show_json(page)
        return
    for line in case_page(page):
        click.echo(line)


@case.command("verify")
@click.argument("case_ids", nargs=-1, metavar="[ID...]")
@as_json
@places
def verify_(case_ids: tuple[str, ...], state_dir: str | None, as_json: bool, **_: object) -> None:
    """Check the chain, the manifest and the raw segments; every case without an ID.  Exit code 1 for a problem."""
    from ionmd.case.verify import verify

    paths = [_existing(state_dir, i) for i in case_ids] or _all(state_dir)
    reports = []
    for path in paths:
        report = verify(path)
        reports.append(report)
        if not as_json:
            _tell(report)
    if as_json:
        show_json({"ok": all(r.ok for r in reports), "cases": [{**asdict(r), "ok": r.ok} for r in reports]})
    elif not reports:
        click.echo(f"no case in {state_path(state_dir)}{of_the_service(state_dir)}")
    if not all(r.ok for r in reports):
        raise SystemExit(1)


def _tell(report: Report) -> None:
    count = len(report.problems)
    word = "verified" if report.ok else f"{count} problem{'s' * (count != 1)}"
    word = click.style(word, fg="green" if report.ok else "red", bold=not report.ok)
    text = f"{clean(report.case_id)}  {report.state}  {word}"
    if report.lines:
        text += (f": {report.lines} lines, {report.raw_samples} samples, "
                 f"{report.segments} segment{'s' * (report.segments != 1)}, chain head {report.head[:16]}")  # fmt: skip
    click.echo(text)
    for note in report.notes:
        click.echo(f"  note: {clean(note)}")
    for problem in report.problems:
        click.echo(f"  {clean(problem)}", err=True)


@case.command("recover")
@click.argument("case_ids", nargs=-1, metavar="[ID...]")
@as_json
@places
def recover_(case_ids: tuple[str, ...], state_dir: str | None, as_json: bool, **_: object) -> None:
    """Make interrupted cases readable; every one that is not closed without an ID.  Twice is the same as once."""
    from ionmd.case.lock import StateLock
    from ionmd.case.repair import is_closed
    from ionmd.case.verify import recover

    paths = [_existing(state_dir, i) for i in case_ids] or [p for p in _all(state_dir) if not is_closed(p)]
    actions: dict[str, list[str]] = {}
    problems: dict[str, str] = {}
    if paths:
        lock = StateLock(state_path(state_dir))  # refuses while a daemon writes there
        try:
            for path in paths:
                try:
                    actions[path.name] = recover(path)
                except (OSError, StorageError) as error:
                    problems[path.name] = str(error)
        finally:
            lock.release()
    if as_json:
        show_json({"cases": actions, **({"problems": problems} if problems else {})})
    for name, did in actions.items() if not as_json else ():
        click.echo(f"{clean(name)}: {'; '.join(clean(d) for d in did) or 'nothing to do'}")
    for name, text in problems.items():
        click.echo(f"{clean(name)}: not recovered: {clean(text)}", err=True)
    if not paths and not as_json:
        click.echo(f"no interrupted case{of_the_service(state_dir)}")
    if problems:
        raise SystemExit(1)


def _all(state_dir: str | None) -> list[Path]:
    """Every directory of the cases directory, whatever is in it.  StorageError when it cannot be read."""
    root = state_path(state_dir) / "cases"
    try:
        return sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    except OSError as error:
        raise StorageError(
            f"{root}: {error.strerror}; the cases of a state directory were expected: run as the user who owns it, "
            "or choose another with --state-dir"
        ) from error


def _existing(state_dir: str | None, case_id: str) -> Path:
    path = case_path(state_dir, case_id)
    try:
        there = path.is_dir()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; run as the user who owns the record") from error
    if not there:
        raise StorageError(f"case {case_id} came; {path} does not exist (`ionmd case list` shows what there is)"
                           + of_the_service(state_dir))  # fmt: skip
    return path
