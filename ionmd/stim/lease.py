"""The stimulation lease: one holder at a time, bound to a connection, alive only while it is kept alive.

Pure: monotonic seconds come in as arguments.  A lease is lost when its connection closes, when no keep-alive came
for LEASE_KEEPALIVE_MS (x2: one missed message is not yet a loss), or when it is taken over; whoever owns this
object stops stimulation then.  Other connections of the same uid may present its id.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from ionmd.errors import LEASE_HELD, Refused
from ionmd.timers import LEASE_KEEPALIVE_MS

LOST_AFTER_S = 2 * LEASE_KEEPALIVE_MS / 1000.0


@dataclass(frozen=True)
class Holder:
    """Who holds it: `connection` 0 is the daemon's own script, which lives as long as the process."""

    connection: int
    uid: int
    person: str


class Lease:
    """At most one holder."""

    def __init__(self) -> None:
        self.id = ""
        self.holder: Holder | None = None
        self._kept_s = 0.0

    def acquire(self, holder: Holder, now_s: float, take: bool = False) -> str:
        """The lease's id.  Held by somebody else: Refused(LEASE_HELD) with the holder, unless `take` (bedside takeover
        without a stop)."""
        if self.holder is not None and self.holder.connection != holder.connection and not take:
            raise Refused(
                f"the stimulation lease is held by {self.holder.person or 'uid ' + str(self.holder.uid)}; "
                "ask them to release it, or take it over (--take)",
                LEASE_HELD,
                {"holder": self.holder.person, "uid": self.holder.uid},
            )
        if self.holder is None or take:
            self.id = secrets.token_hex(8)
        self.holder = holder
        self._kept_s = now_s
        return self.id

    def present(self, lease_id: str | None, uid: int) -> Holder:
        """The holder, if `lease_id` is the lease in force and `uid` is its holder's; else Refused."""
        if self.holder is None:
            raise Refused("nobody holds the stimulation lease: acquire it first (ionmd attend --as NAME)", LEASE_HELD)
        if lease_id != self.id or uid != self.holder.uid:
            raise Refused(
                f"this is not the lease in force; it is held by {self.holder.person or self.holder.uid}", LEASE_HELD,
                {"holder": self.holder.person, "uid": self.holder.uid},
            )
        return self.holder

    def keep_alive(self, lease_id: str, connection: int, now_s: float) -> None:
        if self.holder is None:
            raise Refused("nobody holds the stimulation lease any more: the case was closed, or the lease was lost; "
                          "acquire it again", LEASE_HELD)  # fmt: skip
        if lease_id != self.id or connection != self.holder.connection:
            raise Refused(f"{self.holder.person or self.holder.uid} holds the stimulation lease now", LEASE_HELD)
        self._kept_s = now_s

    def release(self) -> None:
        self.holder, self.id = None, ""

    def expired(self, now_s: float) -> bool:
        """True once the holder has been silent too long.  The daemon's own script (connection 0) never is."""
        if self.holder is None or self.holder.connection == 0:
            return False
        return not (now_s - self._kept_s <= LOST_AFTER_S)
