"""uid and gid by SO_PEERCRED, groups by SO_PEERGROUPS -> roles -> methods.  Default deny.

A role is membership in one of five groups.  Being one of the room implies seeing the room: operate, stim, oversee
and admin hold view, admin holds operate.  Nothing implies stim.  Where none of the groups exists and the device
is not a real one, the daemon's own user has all roles, and `hello` says so.
Never by pid or executable: both can change between connect and request.
"""

from __future__ import annotations

import array
import errno
import grp
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ionmd.service.schema import METHODS

GROUPS = {role: f"ionmd-{role}" for role in ("view", "operate", "stim", "oversee", "admin")}
ALL_ROLES = frozenset(GROUPS)
# What the kernel says for a peer without an identity here (a private user namespace): never anybody.
OVERFLOW_UID = 65534
_IMPLIES = {
    "view": {"view"},
    "operate": {"operate", "view"},
    "stim": {"stim", "view"},
    "oversee": {"oversee", "view"},
    "admin": {"admin", "operate", "view"},
}
_SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)  # asm-generic/socket.h; not in Python's table


@dataclass(frozen=True)
class Peer:
    uid: int
    gid: int
    groups: frozenset[int]  # supplementary, and gid


@dataclass(frozen=True)
class Rights:
    roles: frozenset[str]
    why: str = ""  # set when the roles did not come from groups


def peer_of(connection: socket.socket) -> Peer:
    """Identity of the process at the other end when it connected."""
    cred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("=iII"))
    _pid, uid, gid = struct.unpack("=iII", cred)
    return Peer(uid, gid, frozenset({gid, *_peer_groups(connection)}))


def _peer_groups(connection: socket.socket) -> list[int]:
    room = 256
    while True:
        try:
            raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, room)
        except OSError as error:
            # Python's getsockopt takes at most 1024 bytes: somebody in more than 256 groups is judged by gid alone.
            if error.errno == errno.ERANGE and room < 1024:
                room = 1024
                continue
            return []
        gids = array.array("I")
        gids.frombytes(raw[: len(raw) // 4 * 4])
        return list(gids)


def system_groups() -> dict[str, int]:
    """Which of our groups exist on this machine: role -> gid."""
    found: dict[str, int] = {}
    for role, name in GROUPS.items():
        try:
            found[role] = grp.getgrnam(name).gr_gid
        except KeyError:
            continue
    return found


GroupLookup = Callable[[], Mapping[str, int]]


def rights_of(peer: Peer, source: str, groups: Mapping[str, int], own_uid: int | None = None) -> Rights:
    """Roles of a peer.  `source` is that of the daemon: device, simulated or replay."""
    if peer.uid == OVERFLOW_UID:
        return Rights(frozenset())
    if not groups and source in ("simulated", "replay") and peer.uid == (os.getuid() if own_uid is None else own_uid):
        return Rights(ALL_ROLES, f"no ionmd groups on this machine, device {source}: your user has all roles")
    roles: set[str] = set()
    for role, gid in groups.items():
        if gid in peer.groups:
            roles |= _IMPLIES[role]
    return Rights(frozenset(roles))


def allowed(method: str, roles: frozenset[str]) -> bool:
    """May somebody with these roles call it?  An unknown method is nobody's."""
    entry = METHODS.get(method)
    if entry is None:
        return False
    return not entry.roles or bool(entry.roles & roles)


def role_table() -> dict[str, dict[str, bool]]:
    """method -> role -> allowed, as docs/socket.md prints it."""
    return {name: {role: allowed(name, frozenset(_IMPLIES[role])) for role in GROUPS} for name in METHODS}
