"""What can be made to go wrong, by name, with every parameter checked.

In: a kind and its parameters from a scenario, a SIM_FAULT request, the control socket or a test.  Out: a Fault.
Always: an unknown kind, an unknown parameter or a value out of range is a FaultError that says what was expected.
A Fault with `at` strikes at that device sample; without, at once.  What each does is in docs/simulator.md.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


class FaultError(ValueError):
    """A fault that does not exist or cannot be had with these values."""


@dataclass(frozen=True)
class _Param:
    default: Any
    check: Callable[[Any], bool]
    says: str


def _whole(default: int | None, lo: int, hi: int) -> _Param:
    def check(v: Any) -> bool:
        return (v is None and default is None) or (type(v) is int and lo <= v <= hi)

    return _Param(default, check, f"a whole number {lo}..{hi}")


def _number(default: float | None, lo: float, hi: float) -> _Param:
    def check(v: Any) -> bool:
        return (v is None and default is None) or (type(v) in (int, float) and lo <= v <= hi)

    return _Param(default, check, f"a number {lo:g}..{hi:g}")


_FLAG = _Param(False, lambda v: type(v) is bool, "true or false")
_TEXT = _Param("", lambda v: isinstance(v, str) and len(v) <= 64 and v.isprintable(), "a text of up to 64 characters")
_COUNT = _whole(1, 1, 1_000_000)
_MS = _number(1000.0, 0.0, 86_400_000.0)
_REQUEST = _whole(None, 0, 255)

KINDS: dict[str, dict[str, _Param]] = {
    # blocks on their way out
    "drop": {"n": _COUNT},
    "duplicate": {"n": _COUNT},
    "corrupt": {"n": _COUNT},
    "bit_error": {"n": _COUNT, "bit": _whole(None, 0, 1 << 24)},
    "reorder": {"window": _whole(2, 2, 8)},
    # the bulk endpoint
    "stall": {"n": _COUNT},
    "babble": {"n": _COUNT},
    "wedge": {"ms": _number(None, 0.0, 86_400_000.0)},
    "silent": {"ms": _MS},
    "overflow": {"ms": _MS},
    # EP0
    "slow_ep0": {"ms": _MS, "n": _COUNT, "request": _REQUEST},
    "stall_ep0": {"n": _COUNT, "request": _REQUEST},
    "lose_reply": {"n": _COUNT, "request": _REQUEST},
    "repeat_request": {"n": _COUNT, "request": _REQUEST},
    "identity": {"protocol_major": _whole(None, 0, 65535), "protocol_minor": _whole(None, 0, 65535),
                 "limit_table_version": _whole(None, 0, 0xFFFFFFFF)},
    # the cable and the unit
    "unplug": {"after_bytes": _whole(None, 0, 1 << 20), "replug_ms": _number(None, 0.0, 86_400_000.0),
               "reboot": _FLAG, "serial": _TEXT},
    "replug": {"serial": _TEXT, "reboot": _FLAG},
    "reboot": {"ms": _number(300.0, 0.0, 86_400_000.0)},
    "deny_open": {"errno": _whole(13, 1, 133), "ms": _MS},
    # the device's mind
    "freeze": {"ms": _MS},
    "clock": {"ppm": _number(0.0, -100_000.0, 100_000.0)},
    "clear": {},
}  # fmt: skip

BLOCK_KINDS = frozenset({"drop", "duplicate", "corrupt", "bit_error", "reorder"})
EP0_KINDS = frozenset({"slow_ep0", "stall_ep0", "lose_reply", "repeat_request"})


@dataclass
class Fault:
    kind: str
    at: int | None = None
    params: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.params[name]


def make(kind: object, at: object = None, *, also: Iterable[str] = (), **given: object) -> Fault:
    """A checked Fault with every parameter present; `also` are further names to mention in the error."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise FaultError(f"fault {kind!r} is unknown: expected one of {', '.join((*KINDS, *also))}")
    if not (at is None or (type(at) is int and 0 <= at < 1 << 64)):
        raise FaultError(f"fault {kind}: `at` is {at!r}: expected a device sample, or nothing for at once")
    known = KINDS[kind]
    for name, value in given.items():
        if name not in known:
            raise FaultError(f"fault {kind} has no parameter {name!r}: expected {', '.join(known) or 'none'}")
        if not known[name].check(value):
            raise FaultError(f"fault {kind}: {name} is {value!r}: expected {known[name].says}")
    return Fault(kind, at, {name: given.get(name, p.default) for name, p in known.items()})


def from_scenario(scripted: Any, later: Iterable[Any], rate_hz: int, origin: int) -> Fault:
    """A `device` event of a scenario (sample, kind, count, duration_samples) as one of ours.

    later       events from `scripted` on: an unplug without duration ends with the next `replug` among them
    origin      patient sample minus device sample
    """
    at = scripted.sample - origin
    ms = scripted.duration_samples * 1000 / rate_hz
    match scripted.kind:
        case "drop" | "duplicate" | "corrupt" | "stall" | "babble" as kind:
            return make(kind, at, n=scripted.count)
        case "freeze" | "overflow" | "silent" as kind:
            return make(kind, at, ms=ms or 1000.0)
        case "reboot":
            return make("reboot", at, ms=ms or 300.0)
        case "wedge":
            return make("wedge", at, ms=ms or None)
        case "unplug":
            back = [f.sample for f in later if f.kind == "replug"]
            if not ms and back:
                ms = (back[0] - scripted.sample) * 1000 / rate_hz
            return make("unplug", at, replug_ms=ms or None)
    return make(scripted.kind, at)


def false_identity(reply: bytes, says: dict[str, int]) -> bytes:
    """A GET_IDENTITY reply (docs/wire/ionm1.md 5.1) with these fields changed."""
    out = bytearray(reply)
    places = {"protocol_major": ("<H", 0), "protocol_minor": ("<H", 2), "limit_table_version": ("<I", 16)}
    for name, value in says.items():
        form, at = places[name]
        if len(out) >= at + struct.calcsize(form):
            struct.pack_into(form, out, at, value)
    return bytes(out)


class BlockFaults:
    """Spoils blocks as they leave the FIFO.  A fault with `at` takes the block that holds that sample."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._armed: list[Fault] = []
        self._held: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._armed or self._held)

    def add(self, fault: Fault) -> None:
        self._armed.append(fault)

    def clear(self) -> list[bytes]:
        """Forget everything; the blocks held back for reordering come out as they are."""
        self._armed.clear()
        held, self._held = self._held, []
        return held

    def pass_through(self, block: bytes) -> list[bytes]:
        """The blocks that leave in place of `block`."""
        first, n_samples = struct.unpack_from("<Q", block, 16)[0], struct.unpack_from("<H", block, 34)[0]
        for fault in self._armed:
            if fault.at is None or fault.at < first + n_samples:
                return self._strike(fault, block)
        return [block]

    def _strike(self, fault: Fault, block: bytes) -> list[bytes]:
        if fault.kind == "reorder":
            self._held.append(block)
            if len(self._held) < fault["window"]:
                return []
            self._armed.remove(fault)
            self._held.reverse()
            held, self._held = self._held, []
            return held
        fault.params["n"] -= 1
        if fault["n"] <= 0:
            self._armed.remove(fault)
        if fault.kind == "drop":
            return []
        if fault.kind == "duplicate":
            return [block, block]
        spoiled = bytearray(block)
        covered = len(spoiled) - 4  # what a CRC covers even when the block ends in four bytes of padding
        if fault.kind == "corrupt":
            at = self._random.randrange(covered - 16)
            run = spoiled[at : at + 16]
            spoiled[at : at + 16] = bytes(b ^ self._random.randrange(1, 256) for b in run)
        else:
            bit = fault["bit"] if fault["bit"] is not None else self._random.randrange(covered * 8)
            spoiled[(bit // 8) % covered] ^= 1 << (bit % 8)
        return [bytes(spoiled)]

class RequestFaults:
    """What happens to EP0 requests; `request` None strikes any vendor request."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._armed.append(fault)

    def clear(self) -> None:
        self._armed.clear()

    def strike(self, request: int) -> Fault | None:
        """The fault that this vendor request meets, used up by one."""
        for fault in self._armed:
            if fault["request"] in (None, request):
                fault.params["n"] -= 1
                if fault["n"] <= 0:
                    self._armed.remove(fault)
                return fault
        return None
