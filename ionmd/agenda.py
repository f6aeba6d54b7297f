"""What a scenario's operator does, and at which sample: requests of the daemon's own script.

In: steps (method, parameters, sample).  Out: calls as a client would make them, from connection 0 with every role.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ionmd.errors import ConfigError
from ionmd.room.room import Room
from ionmd.service.backend import Call, Caller
from ionmd.service.schema import METHODS

SCRIPT = Caller(0, os.getuid(), os.getgid(), frozenset({"view", "operate", "stim", "oversee", "admin"}))


@dataclass(frozen=True)
class Step:
    """One request of an agenda: what a scenario's operator does at a sample."""

    at_sample: int
    method: str
    params: dict[str, Any] = field(default_factory=dict)


def scripted(step: Step, room: Room) -> Call:
    """The step as a request.  Raises ConfigError for a method that is not, or parameters it does not take."""
    try:
        params = msgspec.convert({**step.params, "at_sample": step.at_sample}, METHODS[step.method].params)
    except KeyError:
        known = ", ".join(sorted(METHODS))
        raise ConfigError(f"agenda: method {step.method!r} came, expected one of {known}") from None
    except msgspec.ValidationError as e:
        raise ConfigError(f"agenda: {step.method} at sample {step.at_sample}: {e}") from None
    call = Call(step.method, params, SCRIPT)
    if "script" in (getattr(params, "lease", None), getattr(params, "token", None)):
        return _Scripted(call, room)  # type: ignore[return-value]
    return call


class _Scripted:
    """A scripted call whose lease or arm token is whatever the script holds when its sample comes."""

    def __init__(self, call: Call, room: Room) -> None:
        self._call, self._room = call, room
        self.method, self.caller = call.method, call.caller

    @property
    def params(self) -> Any:
        params, stimulation = self._call.params, self._room.stimulation
        if getattr(params, "token", None) == "script":
            manual = stimulation.by_hand.manual
            return msgspec.structs.replace(params, token=manual.token if manual else "none")
        return msgspec.structs.replace(params, lease=stimulation.lease.id or None)
