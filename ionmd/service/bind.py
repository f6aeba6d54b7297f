"""The listening socket: given by systemd, or made at the first candidate path that may be created.

In: candidate paths in order.  Out: a listening Unix socket.  Always: nothing that is not a stale socket of our own
user is ever removed or followed; two daemons never share a path; mode 0660 before the first client can connect.
Never TCP.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ionmd.errors import ConfigError
from ionmd.service.notify import listen_sockets

BACKLOG = 64
_PATH_MAX = 107  # sockaddr_un.sun_path less its NUL
# The path is not for us; the next candidate may be.
_NEXT = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EROFS}


@dataclass
class Bound:
    """`activated`: the socket is systemd's and its file is not ours to remove."""

    socket: socket.socket
    path: Path | None
    activated: bool = False
    _inode: tuple[int, int] | None = None

    def close(self) -> None:
        """Close, and remove the file if it is still the one we made.  Safe twice."""
        self.socket.close()
        if self.path is None or self.activated or self._inode is None:
            return
        try:
            found = os.lstat(self.path)
        except OSError:
            return
        if (found.st_dev, found.st_ino) == self._inode:
            self.path.unlink(missing_ok=True)
        self._inode = None


def bind(candidates: Sequence[Path], mode: int = 0o660, group: str | None = None) -> Bound:
    """Listen on systemd's socket, or on the first candidate that may be created.

    Raises ConfigError when a candidate is occupied by somebody else's file, a symbolic link or a living daemon: going
    on to the next one would leave clients and daemon on different sockets.
    """
    given = listen_sockets()
    if given:
        return _activated(given)
    tried: list[str] = []
    for path in candidates:
        try:
            return _bind(path, mode, group)
        except OSError as error:
            if error.errno not in _NEXT:
                raise ConfigError(f"socket {path}: {error.strerror}") from None
            tried.append(f"{path} ({error.strerror})")
    where = ", ".join(tried) or "no path"
    raise ConfigError(f"no socket could be created; tried {where}; name one you may create: --socket PATH")


def _activated(given: list[socket.socket]) -> Bound:
    first, *others = given
    for extra in others:
        extra.close()
    if first.family != socket.AF_UNIX or first.type != socket.SOCK_STREAM:
        raise ConfigError("socket activation gave a socket that is not a Unix stream; ListenStream= needs a path")
    name = first.getsockname()
    return Bound(first, Path(name) if isinstance(name, str) and name else None, activated=True)


def _bind(path: Path, mode: int, group: str | None) -> Bound:
    if len(os.fsencode(path)) > _PATH_MAX:
        raise ConfigError(f"socket {path}: the path has more than {_PATH_MAX} bytes; choose a shorter one")
    _check_directory(path.parent)
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind(os.fspath(path))
        # before listen() nobody can connect, so there is no moment with a wider mode
        path.chmod(mode)
        if group is not None:
            shutil.chown(path, group=group)
        made = os.lstat(path)
        sock.listen(BACKLOG)
    except LookupError:
        sock.close()
        path.unlink(missing_ok=True)
        raise ConfigError(f"socket {path}: no group {group!r} on this machine; create it") from None
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"socket {path}: somebody else has just made it; is another daemon starting?") from None
        raise
    return Bound(sock, path, _inode=(made.st_dev, made.st_ino))


def _check_directory(directory: Path) -> None:
    found = directory.stat()
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"socket directory {directory}: everybody may replace files in it (mode {stat.S_IMODE(found.st_mode):o}); "
            "use a directory of your own or set its sticky bit"
        )


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more.  Raises ConfigError for anything else at that path."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"socket {path}: it is a symbolic link, which is not followed; remove it")
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"socket {path}: a file that is no socket is there; remove it or name another path")
    if found.st_uid != os.getuid():
        raise ConfigError(f"socket {path}: it belongs to uid {found.st_uid}, not to you (uid {os.getuid()}); remove it")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        probe.connect(os.fspath(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except BlockingIOError:
        pass  # its backlog is full: alive
    finally:
        probe.close()
    raise ConfigError(f"socket {path}: another daemon answers there; stop it or name another path: --socket PATH")
