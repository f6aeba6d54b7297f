"""The whole simulated unit: firmware + patient + pacing + faults, without USB.

In: EP0 vendor requests, `take` of blocks, the monotonic time, faults.  Out: blocks, replies, whether the cable is in.
Always: every sample passes stimulator -> patient -> acquisition in this order, in batches cut at one grid; nothing
here sleeps or starts a thread.  `usbip.bus` drives it by `advance`; `ionmd.drivers.demo` by `step` or `run_until`.

`speed` N: the device clock is wall time x N; a full FIFO overflows.  `speed` "max": the device owns time; it advances
while its FIFO has room and it is less than a window ahead of what the host has processed, and stands still while it
does not stream.  While a fault keeps all data back, time is wall time at either speed: the host's watchdogs count it.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Literal

from firmware_sim import faults
from firmware_sim.pacing import MAX, DeviceClock, batch_samples, next_batch
from firmware_sim.wiring import Wiring
from ionmd.timers import WINDOW_MS

STALL = -32
SIM_FAULT = 0x7E
_GET_IDENTITY, _SET_CONFIG = 0x01, 0x11
_MAX_REPLUG_S = 0.25  # at "max" the host needs wall time to see an unplug; the counter still jumps by all of it
_FOREVER = 1 << 62
_BATCHES_A_CALL = 4  # then the bus gets its turn

Speed = float | Literal["max"]


@dataclass(frozen=True)
class Reply:
    """Answer to an EP0 request, and what a fault does to it."""

    status: int
    data: bytes = b""
    delay_s: float = 0.0
    lost: bool = False


class SimDevice:
    """One unit.  Not thread-safe: one thread owns it."""

    def __init__(self, firmware: Any, patient: Any, speed: Speed = 1.0, clock_ppm: float = 0.0, *, seed: int = 0,
                 batch_ms: float | None = None) -> None:  # fmt: skip
        if speed != MAX and not (isinstance(speed, int | float) and 0.01 <= speed <= 1000):
            raise ValueError(f"speed {speed!r}: expected a number 0.01..1000, or 'max'")
        self.firmware = firmware
        self.patient = patient
        self.unthrottled = speed == MAX
        self.batch_ms = batch_ms if batch_ms is not None else (10.0 if self.unthrottled else 5.0)
        self.plugged = True
        self.last_gasp = b""  # what of a block was on the cable when it was pulled
        self.stalls_left = 0
        self.babbles_left = 0
        self.open_errno = 0
        self._blocks = faults.BlockFaults(seed)
        self._requests = faults.RequestFaults()
        self._scheduled: list[faults.Fault] = []
        self._identity: dict[str, int] = {}
        self._ready: deque[bytes] = deque()
        self._wedged_until = 0
        self._hold_until = 0  # no data leaves before this sample
        self._frozen_until_s = 0.0
        self._open_denied_until_s = 0.0
        self._unplug: faults.Fault | None = None
        self._replug: tuple[float, faults.Fault] | None = None
        self._unplugged_at = 0
        self._now_s = 0.0
        self._stream_start = 0
        self._wiring = Wiring(firmware, patient)
        self._clock = DeviceClock(1.0, 1.0 if self.unthrottled else float(speed), clock_ppm)
        self._paced = not self.unthrottled
        self._configured: tuple[int, int, int] = (0, 0, 0)
        self._reconfigure()

    # ------------------------------------------------------------------ EP0

    def control(self, setup: bytes, data: bytes = b"") -> tuple[int, bytes]:
        """One control transfer, faults of EP0 aside: (0 or negative errno, reply)."""
        if setup[0] == 0x40 and setup[1] == SIM_FAULT:
            return self._sim_fault(data)
        was_streaming = self.firmware.streaming
        status, reply = self.firmware.control(setup, data)
        if setup[1] == _SET_CONFIG:
            self._reconfigure()
        if self.firmware.streaming and not was_streaming:
            self._stream_start = self.firmware.sample
        if self.firmware.streaming != was_streaming:
            self._ready.clear()
        if self._identity and setup[0] == 0xC0 and setup[1] == _GET_IDENTITY:
            reply = faults.false_identity(reply, self._identity)
        return status, reply

    def request(self, setup: bytes, data: bytes = b"") -> Reply:
        """One control transfer as the bus sees it, with the faults of EP0; they strike vendor requests only."""
        vendor = setup[0] & 0x60 == 0x40 and setup[1] != SIM_FAULT
        fault = self._requests.strike(setup[1]) if vendor else None
        if fault is None:
            return Reply(*self.control(setup, data))
        if fault.kind == "stall_ep0":
            return Reply(STALL)
        status, reply = self.control(setup, data)
        if fault.kind == "repeat_request":
            self.control(setup, data)
        return Reply(status, reply, fault["ms"] / 1000 if fault.kind == "slow_ep0" else 0.0, fault.kind == "lose_reply")

    def bus_reset(self) -> None:
        """Bus reset: unconfigured, stream off, FIFO empty, stimulator SAFE; a wedge ends."""
        self._wedged_until = 0
        self._ready.clear()
        self.firmware.bus_reset()

    # ------------------------------------------------------------------ data

    def take(self) -> bytes | None:
        """The next block to send; None: NAK."""
        if not self.plugged or self._holding():
            return None
        if self._ready:
            return self._ready.popleft()
        if not self._blocks:
            return self.firmware.take_block()
        while (block := self.firmware.take_block()) is not None:
            if out := self._blocks.pass_through(block):
                self._ready.extend(out[1:])
                return out[0]
        return None

    # ------------------------------------------------------------------ time

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until `advance` has something to do; None: not before the host does something."""
        waits = [0.0] if self._unplug is not None and self.unthrottled and not self._fifo_waits() else []
        if self._replug:
            waits.append(self._replug[0] - now_s)
        if self._open_denied_until_s:
            waits.append(self._open_denied_until_s - now_s)
        if self._frozen_until_s > now_s:
            waits.append(self._frozen_until_s - now_s)
        elif self.plugged and self._unplug is None:
            if self._paced:
                waits.append(self._clock.wait_s(now_s, self.firmware.sample + self._next()))
            elif self._may_advance():
                waits.append(0.0)
        return max(0.0, min(waits)) if waits else None

    def advance(self, now_s: float) -> None:
        """Do what is due at monotonic time `now_s`, at most a few batches."""
        if not self._now_s:
            self._clock.anchor(now_s, self.firmware.sample)  # power-up is the first turn
        self._now_s = now_s
        if self._open_denied_until_s and now_s >= self._open_denied_until_s:
            self._open_denied_until_s, self.open_errno = 0.0, 0
        if self._replug and now_s >= self._replug[0]:
            self._do_replug(self._replug[1])
        if self._unplug is not None:
            self._try_unplug()
        if not self.plugged or self._unplug is not None:
            return
        if self._frozen_until_s:
            if now_s < self._frozen_until_s:
                return
            self._frozen_until_s = 0.0
            self._clock.anchor(now_s, self.firmware.sample)
        self._set_pace()
        for _ in range(_BATCHES_A_CALL):
            n = self._next()
            if self._paced:
                if self._clock.wait_s(now_s, self.firmware.sample + n) > 0:
                    break
            elif not self._may_advance():
                break
            self._batch(n)
            if not self.plugged or self._unplug is not None or self._frozen_until_s:
                break
        if self._paced:
            self._clock.slip_if_late(now_s, self.firmware.sample)

    def step(self) -> bool:
        """In-process use at any speed: one batch now if FIFO and window allow it.  False: the host must act first.

        Nobody waits here: a replug follows at once, a silent spell passes in steps, a freeze is not felt."""
        if self._unplug is not None:
            self._try_unplug()
        if self._replug:
            self._do_replug(self._replug[1])
        passing = self.firmware.streaming and self._holding() and self._wedged_until != _FOREVER
        if not self.plugged or self._unplug is not None or not (passing or self._may_advance()):
            return False
        self._batch(self._next())
        return True

    def run_until(self, sample: int) -> None:
        """Advance to `sample` whatever the FIFO says, streaming or not."""
        while self.firmware.sample < sample and self.plugged:
            self._batch(min(self._next(), sample - self.firmware.sample))

    def _next(self) -> int:
        offset = self.firmware.sample - self._stream_start
        return next_batch(offset, self._configured[2], self._batch_n)

    def _holding(self) -> bool:
        until = max(self._hold_until, self._wedged_until)
        return until > 0 and self.firmware.sample < until

    def _set_pace(self) -> None:
        paced = not self.unthrottled or self._holding()
        if paced and not self._paced:
            self._clock.anchor(self._now_s, self.firmware.sample)
        self._paced = paced

    def _may_advance(self) -> bool:
        fw = self.firmware
        n = self._next()
        if not fw.streaming:
            return fw.impedance_input is not None and fw.has_room(n)
        done = max(self._stream_start, fw.heartbeat_processed)
        return fw.sample + n <= done + self._window_n and fw.has_room(n)

    def _reconfigure(self) -> None:
        config = self.firmware.config
        now = (config.inputs, config.rate_hz, config.block_samples)
        if self.firmware.sample < self._stream_start:
            self._stream_start = self.firmware.sample
        if now != self._configured or self.firmware.sample == 0:
            self._clock.rate_hz = config.rate_hz
            self._clock.anchor(self._now_s, self.firmware.sample)
        if now == self._configured:
            return
        self._configured = now
        self._batch_n = batch_samples(config.rate_hz, config.block_samples, self.batch_ms)
        self._window_n = max(WINDOW_MS * config.rate_hz // 1000, 2 * config.block_samples)
        self._wiring.reshape(config, self._batch_n)

    def _batch(self, n: int) -> None:
        first = self.firmware.sample
        at = first + self._wiring.origin
        self._wiring.batch(n)
        for scripted in self.patient.device_faults(at, n):
            later = self.patient.device_faults(scripted.sample, _FOREVER) if scripted.kind == "unplug" else []
            self._arm(faults.from_scenario(scripted, later, self._configured[1], self._wiring.origin))
        if self._scheduled:
            self._strike_scheduled(first + n)

    # ------------------------------------------------------------------ faults

    def inject(self, kind: str, at: int | None = None, **params: object) -> None:
        """Make something go wrong, now or at device sample `at`; what is no fault of the unit around the firmware is
        one of Firmware.inject.  Raises ValueError (faults.FaultError)."""
        inner = [name for name in self.firmware.faults() if name not in faults.KINDS]
        if kind in inner:
            try:
                self.firmware.inject(kind, at, **params)
            except TypeError as e:
                raise faults.FaultError(f"fault {kind}: {e}") from None
        else:
            self._arm(faults.make(kind, at, also=inner, **params))

    def _sim_fault(self, data: bytes) -> tuple[int, bytes]:
        try:
            self.inject(**json.loads(data))
        except (ValueError, TypeError):  # FaultError and JSON's own are ValueErrors
            return STALL, b""
        return 0, b""

    def _arm(self, fault: faults.Fault) -> None:
        if fault.kind in faults.BLOCK_KINDS:
            self._blocks.add(fault)
        elif fault.at is not None and fault.at > self.firmware.sample:
            self._scheduled.append(fault)
        else:
            self._strike(fault)

    def _strike_scheduled(self, reached: int) -> None:
        for fault in [f for f in self._scheduled if f.at is not None and f.at < reached]:
            self._scheduled.remove(fault)
            self._strike(fault)

    def _strike(self, fault: faults.Fault) -> None:
        kind = fault.kind
        if kind in faults.EP0_KINDS:
            self._requests.add(fault)
        elif kind == "stall":
            self.stalls_left += fault["n"]
        elif kind == "babble":
            self.babbles_left += fault["n"]
        elif kind == "wedge":
            ms = fault["ms"]
            self._wedged_until = _FOREVER if ms is None else self.firmware.sample + self._samples(ms)
            self._set_pace()
        elif kind in ("silent", "overflow"):
            self._hold_until = self.firmware.sample + self._samples(fault["ms"])
            self._set_pace()
        elif kind == "identity":
            self._identity = {name: v for name, v in fault.params.items() if v is not None}
        elif kind == "unplug":
            self._unplug = fault
        elif kind == "reboot":
            self._unplug = faults.make("unplug", replug_ms=fault["ms"], reboot=True)
        elif kind == "replug":
            if not self.plugged:
                self._do_replug(fault)
        elif kind == "deny_open":
            self.open_errno = fault["errno"]
            self._open_denied_until_s = self._now_s + fault["ms"] / 1000
        elif kind == "freeze":
            self._frozen_until_s = self._now_s + fault["ms"] / 1000
        elif kind == "clock":
            self._clock.anchor(self._now_s, self.firmware.sample)
            self._clock.ppm = fault["ppm"]
        elif kind == "clear":
            self._clear()

    def _clear(self) -> None:
        self._ready.extend(self._blocks.clear())
        self._requests.clear()
        self._scheduled.clear()
        self._identity.clear()
        self._hold_until = self._wedged_until = self.stalls_left = self.babbles_left = self.open_errno = 0
        self._frozen_until_s = self._open_denied_until_s = 0.0
        self._unplug = None

    def _samples(self, ms: float) -> int:
        return round(ms * self._configured[1] / 1000)

    def _fifo_waits(self) -> bool:
        """Is there a block that the host has yet to fetch?"""
        if not self._ready and not self._holding() and (block := self.take()) is not None:
            self._ready.append(block)
        return bool(self._ready)

    def _try_unplug(self) -> None:
        """Pull the cable; at "max" not before the host has fetched all that was made, so that a run repeats exactly."""
        fault = self._unplug
        assert fault is not None  # noqa: S101
        if self.unthrottled and fault["after_bytes"] is None and not self._holding() and self._fifo_waits():
            return
        for _ in range(_BATCHES_A_CALL):  # a byte of a block is on the cable only while there is a block
            if not fault["after_bytes"] or not self.firmware.streaming or self._holding() or self._fifo_waits():
                break
            self._batch(self._next())
        self._unplug = None
        block = self.take() if fault["after_bytes"] else None
        self.last_gasp = block[: fault["after_bytes"]] if block else b""
        self.plugged = False
        self._ready.clear()
        self._wedged_until = self._hold_until = 0
        self._unplugged_at = self.firmware.sample
        self.firmware.disconnect()
        if fault["replug_ms"] is not None:
            wait_s = fault["replug_ms"] / 1000 / self._clock.speed
            self._replug = (self._now_s + (min(wait_s, _MAX_REPLUG_S) if self.unthrottled else wait_s), fault)

    def _do_replug(self, fault: faults.Fault) -> None:
        self._replug = None
        fw = self.firmware
        if fault.kind == "unplug":
            gap = self._samples(fault["replug_ms"])
        else:
            gap = 0 if self.unthrottled else max(0, self._clock.due_sample(self._now_s) - self._unplugged_at)
        fw.skip(gap)
        if fault["reboot"]:
            self._wiring.reboot()
        if fault["serial"]:
            fw.serial = fault["serial"]
            fw.descriptors = replace(fw.descriptors, serial=fault["serial"])
        self._stream_start = fw.sample
        self._clock.anchor(self._now_s, fw.sample)
        self._reconfigure()
        self.plugged = True

    def state(self) -> dict[str, object]:
        """Where the device is, for the control socket and for tests."""
        fw = self.firmware
        recordings = getattr(self.patient, "recordings", None)
        made_of = {"recordings": recordings.truth()} if recordings is not None else {}
        return made_of | {"serial": fw.serial, "plugged": self.plugged, "streaming": fw.streaming, "sample": fw.sample,
                "patient_sample": fw.sample + self._wiring.origin, "processed": fw.heartbeat_processed,
                "stim_state": fw.stim_state, "pulses": self._wiring.pulses,
                "slipped_s": round(self._clock.slipped_s, 3), "clock": self._clock.state()}  # fmt: skip
