"""What reaches the room from neither samples nor requests: the cable, a device that refuses, the disk, a lost lease.

In: facts, on the pipeline thread between two blocks.  Out: states and alarms.  Always: a fact is journalled before it
takes effect, so that a replay gives it to its own room at the same sample and in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ionmd.drivers.base import Remembered
from ionmd.stim.control import Trouble

if TYPE_CHECKING:
    from ionmd.room.room import Room


def happened(room: Room, fact: str, /, **details: Any) -> None:
    """Journal one fact and act on it.  `fact` is a key of FACTS."""
    room.bus.journal("outside", {"fact": fact, **details})
    FACTS[fact](room, details)


def _device_reset(room: Room, details: dict[str, Any]) -> None:
    room.stimulation.lost("the device was lost")
    room.control.attach(None)
    room.deliveries.ledger.cancel()


def _device_lost(room: Room, details: dict[str, Any]) -> None:
    _device_reset(room, details)
    room.monitoring.block("", "no device", "the amplifier is not connected", room.now)
    room.technical.raised(
        "device.lost", "", "The amplifier was lost: nothing is monitored, stimulation is off.", "high",
        [details["text"]],
    )


def _device_back(room: Room, details: dict[str, Any]) -> None:
    room.stimulation.on_attach(Remembered(details.get("trip_reason", 0), details.get("nonce", 0)))
    room.stimulation.beat()
    room.technical.over("device.lost", "", "the amplifier is back; everything is disarmed")
    room.monitoring.unblock("", "no device", room.now)


def _no_data(room: Room, details: dict[str, Any]) -> None:
    room.monitoring.block("", "no data", "no samples arrive", room.now)
    room.technical.raised(
        "device.no-data", "", "No samples arrive from the amplifier: nothing is monitored.", "high",
        [f"last sample {room.now - 1}"],
    )


def _device_stuck(room: Room, details: dict[str, Any]) -> None:
    room.technical.raised(
        "device.stuck", "", "The amplifier is there and gives no samples, also after a reset: switch it off and on, or "
        "change its cable.", "high", [f"last sample {room.now - 1}"],
    )


def _data_again(room: Room, details: dict[str, Any]) -> None:
    room.monitoring.unblock("", "no data", room.now)
    for code in ("device.no-data", "device.stuck"):
        room.technical.over(code, "", "samples arrive again")


def _record(room: Room, details: dict[str, Any]) -> None:
    code = f"record.{details['code']}"
    if details["active"]:
        room.technical.raised(code, "", details["sentence"], "high", [details["detail"]])
    else:
        room.technical.over(code, "", details["sentence"])


def _device_refused(room: Room, details: dict[str, Any]) -> None:
    room.stimulation.on_trouble(Trouble(**details))


def _stim_off(room: Room, details: dict[str, Any]) -> None:
    room.stimulation.stopped(details["reason"])


def _lease_lost(room: Room, details: dict[str, Any]) -> None:
    room.stimulation.lost(details["reason"])


def _disarmed(room: Room, details: dict[str, Any]) -> None:
    room.stimulation.by_hand.disarm()


FACTS: dict[str, Callable[[Room, dict[str, Any]], None]] = {
    "device_lost": _device_lost,  # text
    "device_reset": _device_reset,  # text
    "device_stuck": _device_stuck,
    "device_back": _device_back,  # stimulator: it has one; what it remembers: trip_reason, nonce
    "no_data": _no_data,
    "data_again": _data_again,
    "record": _record,  # code, active, sentence, detail
    "device_refused": _device_refused,  # the fields of Trouble
    "stim_off": _stim_off,  # reason
    "lease_lost": _lease_lost,  # reason
    "disarmed": _disarmed,  # a wrong repetition of the amplitude destroyed the arm token; the cycle goes on
}
