"""systemd in three calls: tell it our state, take its sockets, know its watchdog.

The protocol is one datagram and three environment variables (sd_notify(3), sd_listen_fds(3)), so it is written
here instead of being a dependency.  Without systemd every call is a quiet no.
"""

from __future__ import annotations

import os
import socket

_FIRST_FD = 3


def notify(**fields: str | int) -> bool:
    """`notify(READY=1, STATUS="streaming")`.  False when nobody listens; never raises: a lost state line is no reason
    to stop monitoring."""
    target = os.environ.get("NOTIFY_SOCKET", "")
    if not target.startswith(("/", "@")):
        return False
    message = "\n".join(f"{name}={' '.join(str(value).split(chr(10)))}" for name, value in fields.items())
    address = "\0" + target[1:] if target.startswith("@") else target
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
            sock.connect(address)
            return sock.send(message.encode("utf-8")) > 0
    except OSError:
        return False


def watchdog_period_s() -> float | None:
    """How often `notify(WATCHDOG=1)` is due: a third of what systemd allows.  None: no watchdog for this process."""
    try:
        usec = int(os.environ.get("WATCHDOG_USEC", "0"))
        pid = int(os.environ.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return None
    if not (0 < usec < 2**63) or pid != os.getpid():
        return None
    return usec / 1e6 / 3.0


def listen_sockets(first_fd: int = _FIRST_FD) -> list[socket.socket]:
    """The sockets systemd opened for us, once: the variables are removed so that no child takes them too."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not pid.isdecimal() or not count.isdecimal() or int(pid) != os.getpid() or int(count) > 64:
        return []
    taken: list[socket.socket] = []
    for fd in range(first_fd, first_fd + int(count)):
        os.set_inheritable(fd, False)
        taken.append(socket.socket(fileno=fd))
    return taken
