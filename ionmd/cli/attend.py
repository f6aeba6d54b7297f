"""`ionmd attend`: hold the stimulation lease in the foreground, so that a person stands behind every stimulus.

Always: the lease is kept alive every KEEPALIVE_S and given back on Ctrl-C and SIGTERM; if this process dies the
daemon loses the lease with the connection and stimulation stops.
"""

from __future__ import annotations

import os
import select
import signal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import click

from ionmd.cli.common import WAIT_S, as_json, clean, connect, given, places, show_json
from ionmd.errors import Refused

if TYPE_CHECKING:
    from ionmd.client import Client

KEEPALIVE_S = 0.3


class Ended:
    """SIGINT and SIGTERM as something to wait for, instead of an exception in the middle of a request."""

    def __enter__(self) -> Ended:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._old = {n: signal.signal(n, self._on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        for number, handler in self._old.items():
            signal.signal(number, handler)
        os.close(self._fd)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        os.eventfd_write(self._fd, 1)

    def wait(self, seconds: float) -> bool:
        """True when it is time to end."""
        return bool(select.select([self._fd], [], [], seconds)[0])


def keep(client: Client, lease: str, ended: Ended) -> None:
    """Keep the lease until told to end, then give it back.  Raises Refused when somebody took it."""
    while not ended.wait(KEEPALIVE_S):
        client.call("stim.keepalive", lease=lease)
        for _ in client.events(timeout_s=0.0):  # nothing is subscribed; whatever came is not for us
            pass
    client.call("stim.release", timeout_s=WAIT_S, lease=lease)


def sign_in(client: Client, name: str, credential: str = "", function: str = "technologist") -> bool:
    """Sign `name` in; False when the daemon has this person already."""
    persons = client.call("status").get("persons") or []
    if any(p.get("name") == name for p in persons):
        return False
    client.call("person.sign_in", timeout_s=WAIT_S,
                **given({"name": name, "credential": credential, "function": function}))  # fmt: skip
    return True


@click.command()
@click.option("--as", "name", required=True, metavar="NAME", help="Who attends; is signed in if needed.")
@click.option("--credential", default="", help="For example CNIM.")
@click.option("--function", default="technologist", show_default=True,
              type=click.Choice(["technologist", "physician", "surgeon", "anaesthesia", "observer"]))  # fmt: skip
@click.option("--take", is_flag=True, help="Take the lease over from its holder without stopping what runs.")
@as_json
@places
def attend(name: str, credential: str, function: str, take: bool, socket: str | None, as_json: bool,
           **_: object) -> None:  # fmt: skip
    """Hold the stimulation lease until Ctrl-C.  Its id is the first line on stdout."""
    with Ended() as ended, connect(socket) as client:
        came = sign_in(client, name, credential, function)
        try:
            result = client.call("stim.acquire", timeout_s=WAIT_S, **given({"take": take or None, "by": name}))
        except Refused:
            if came:  # who may not attend has not attended
                client.call("person.sign_out", timeout_s=WAIT_S, name=name)
            raise
        lease = str(result["lease"])
        if as_json:
            show_json(result)
        else:
            click.echo(lease)
            click.echo(f"{clean(name)} attends; `export IONMD_LEASE={clean(lease)}`; Ctrl-C gives the lease back "
                       "and stops stimulation", err=True)  # fmt: skip
        lost: Refused | None = None
        try:
            keep(client, lease, ended)
        except Refused as error:
            lost = error  # taken over, or the case was closed: NAME goes nevertheless
        if came:
            client.call("person.sign_out", timeout_s=WAIT_S, name=name)
        if lost is not None:
            raise lost
    if not as_json:
        click.echo("lease released, stimulation is off", err=True)


