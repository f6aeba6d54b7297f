"""Every exception we raise on purpose, split by what the caller does next.

Argument mistakes inside the program stay ValueError.  A message says who, what came, what was
expected, and what to do.
"""

from __future__ import annotations


class IonmdError(Exception):
    """Ground of all errors below; `exit_code` is what the command line returns for it."""

    exit_code = 1


class ConfigError(IonmdError):
    """A file, option or value is wrong: fix it and start again."""

    exit_code = 2


class MissingKernel(IonmdError):
    """A compiled part is absent: build it (`make`); there is no slow path."""


class DeviceGone(IonmdError):
    """The device left the bus: mark the gap, look for its serial number, reopen."""


class DeviceError(IonmdError):
    """The device refuses or answers nonsense: stop, tell, do not retry blindly."""


class DeviceRefused(DeviceError):
    """The firmware refused one request (`reason` is its own word); the device goes on."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class WireError(IonmdError):
    """A frame is damaged: drop it, count it, go on with the next."""


class StorageError(IonmdError):
    """The record cannot be written or read: keep monitoring, raise a technical alarm."""


class DaemonUnreachable(IonmdError):
    """No daemon answers on the socket."""

    exit_code = 3


class Refused(IonmdError):
    """A request was understood and denied.  `code` is the JSON-RPC error code of design 7."""

    exit_code = 4

    def __init__(self, message: str, code: int = 1002, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data or {}


# JSON-RPC's own codes and ours; docs/socket.md has the table.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
RESUME_LOST = -32001  # subscribe: events before `resume_from` are gone; data holds a snapshot
FORBIDDEN = 1001
INTERLOCK = 1002
LIMIT = 1003
LEASE_HELD = 1004
NO_DEVICE = 1005
NO_CASE = 1006
NOT_MONITORED = 1007

EXIT_OF_CODE = {INVALID_PARAMS: 2, FORBIDDEN: 4, INTERLOCK: 4, LIMIT: 4, LEASE_HELD: 4}
