"""`ionmd start` and `ionmd stop`: tests on and off.

`start` presents a lease that somebody holds (--lease, $IONMD_LEASE); without one it acquires its own and stays in
the foreground, because a lease lives only as long as its connection.
"""

from __future__ import annotations

import os
from typing import Any

import click

from ionmd.cli.attend import Ended, keep, sign_in
from ionmd.cli.common import WAIT_S, as_json, ask, by, clean, connect, done, given, places, show_json


@click.command()
@click.argument("tests", nargs=-1, required=True, metavar="TEST...")
@click.option("--lease", metavar="ID", help="A lease that is held elsewhere; default: $IONMD_LEASE.")
@click.option("--as", "name", default="", metavar="NAME", help="Who attends when start holds the lease itself.")
@by
@as_json
@places
def start(tests: tuple[str, ...], lease: str | None, name: str, by: str, socket: str | None, as_json: bool,
          **_: object) -> None:  # fmt: skip
    """Start TESTs.  Without a lease: acquire one and stay in the foreground until Ctrl-C."""
    held = lease or os.environ.get("IONMD_LEASE", "")
    if held or not _stimulate(tests):
        done(ask(socket, "test.start", tests=list(tests), lease=held, by=by or name), as_json,
             f"started {', '.join(tests)}")  # fmt: skip
        return
    with Ended() as ended, connect(socket) as client:
        who = name or by
        if name:
            sign_in(client, name)
        own = str(client.call("stim.acquire", timeout_s=WAIT_S, **given({"by": who}))["lease"])
        params = given({"tests": list(tests), "lease": own, "by": who})
        result: dict[str, Any] = client.call("test.start", timeout_s=WAIT_S, **params)
        if as_json:
            show_json({**result, "lease": own})
        else:
            done(result, False, f"started {', '.join(tests)}")
            click.echo(f"lease {clean(own)} is held here; Ctrl-C gives it back and stops stimulation", err=True)
        keep(client, own, ended)


def _stimulate(tests: tuple[str, ...]) -> bool:
    """Whether any of these needs a lease; a test that the catalogue does not know is taken to."""
    from ionmd import catalog

    known = catalog.tests()
    return any(t not in known or known[t].stimulus is not None for t in tests)


@click.command()
@click.argument("tests", nargs=-1, metavar="[TEST...]")
@by
@as_json
@places
def stop(tests: tuple[str, ...], by: str, socket: str | None, as_json: bool, **_: object) -> None:
    """Stop TESTs; all that run without names."""
    done(ask(socket, "test.stop", tests=list(tests), by=by), as_json, f"stopped {', '.join(tests) or 'all tests'}")
