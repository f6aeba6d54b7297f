"""What verbs share: their two options, the connection, JSON out, printable text.

Always: text that came over the socket cannot move the cursor; JSON is one object on stdout and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ionmd.errors import Refused

if TYPE_CHECKING:
    from ionmd.client import Client

F = TypeVar("F", bound=Callable[..., Any])
NAMES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
WAIT_S = 30.0  # a change is answered when its journal line is on disk
CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def places(command: F) -> F:
    """--socket and --state-dir, accepted by every verb; what a verb does not need it ignores."""
    state = click.option("--state-dir", metavar="DIR", help="Where the record is; default: $STATE_DIRECTORY, ...")
    sock = click.option("--socket", metavar="PATH", help="The daemon's socket; default: $IONMD_SOCKET, ...")
    return sock(state(command))


def number(value: str) -> float:
    """Type of an option: a float that JSON can carry.  NaN would arrive as null, which means "not given"."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise click.BadParameter(f"{value!r} came, a finite number was expected")
    return found


as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
by = click.option("--by", metavar="NAME", default="", help="The person who does it; must be signed in.")


def connect(socket: str | None) -> Client:
    """The first daemon that answers.  Raises DaemonUnreachable."""
    from ionmd.client import Client
    from ionmd.config import socket_candidates

    return Client(socket_candidates(socket))


def ask(socket: str | None, method: str, /, wait_s: float = WAIT_S, **params: Any) -> Any:
    """One request; parameters that are None or empty are left out."""
    with connect(socket) as client:
        return client.call(method, timeout_s=wait_s, **given(params))


def given(params: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in params.items() if v is not None and v != "" and v != [] and v != ()}


def state_path(option: str | None) -> Path:
    from ionmd.config import state_dir

    return state_dir(option)


def of_the_service(option: str | None) -> str:
    """Words for who looks for cases in a place of his own while the service's are elsewhere; empty when not so."""
    from ionmd.config import SYSTEM_STATE

    if option or os.environ.get("STATE_DIRECTORY") or not SYSTEM_STATE.is_dir() or os.access(SYSTEM_STATE, os.X_OK):
        return ""
    return f"; the service's are in {SYSTEM_STATE}, which is not yours to read: `sudo -u ionmd ionmd case ...`"


def case_path(option: str | None, case_id: str) -> Path:
    """The directory of a case by its id.  Raises UsageError for what can be no id."""
    if not CASE_ID.fullmatch(case_id):
        raise click.UsageError(f"case id {case_id!r} came; letters, digits, '.', '_' and '-' were expected")
    return state_path(option) / "cases" / case_id


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def clean(text: object) -> str:
    """Text from elsewhere, with everything that could move the cursor made visible."""
    return NAMES.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", str(text))


def done(result: Any, as_json: bool, text: str = "") -> None:
    """The answer of a change: JSON, or a line with its id, the journal line and the warnings."""
    if as_json:
        show_json(result)
        return
    name = result.get("id", "") if isinstance(result, dict) else ""
    line = text or "done"
    if name and str(name) not in line:
        line = f"{line}: {clean(str(name).replace(',', ', '))}"
    click.echo(f"{line} (journal line {result.get('n', '?')}, sample {result.get('sample', '?')})")
    for warning in result.get("warnings", []):
        click.echo(f"warning: {clean(warning)}", err=True)


def table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...], indent: str = "") -> None:
    """Columns as wide as they need to be; nothing is cut."""
    text = [head, *[tuple(clean(c) for c in row) for row in rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(head))]
    for row in text:
        click.echo((indent + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))).rstrip())


def lease_id(option: str | None) -> str:
    """--lease or $IONMD_LEASE.  Raises Refused when there is neither: only its holder stimulates."""
    import os

    found = option or os.environ.get("IONMD_LEASE", "")
    if not found:
        raise Refused("no lease was given; hold one with `ionmd attend --as NAME` and pass --lease ID or $IONMD_LEASE")
    return found
