"""The simulated device without a bus: the firmware in C, its descriptors, its faults.

In: EP0 requests (`control`), time (`stim_ticks`, then `acquire` or `skip`), the world outside (`set_load`,
`set_aux`, `set_impedance`), faults (`inject`).  Out: whole bulk transfers (`take_block`) and the pulses that left
an output (`stim_ticks`), which the patient answers.
Always: the sample counter is the only clock; nothing here sleeps, threads or reads a wall clock, so one seed and
one order of calls give the same bytes.  All calls from one thread.

A batch of n samples is: `pulses = fw.stim_ticks(n)`, the patient renders n samples that know the pulses, then
`fw.acquire(counts)` in one or several pieces.  Any n gives the same stream.
"""

from __future__ import annotations

import heapq
import json
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_sim._firmware import ffi, lib
from firmware_sim.descriptors import MS_OS_INDEX, MS_OS_VENDOR_CODE, Descriptors
from firmware_sim.own_faults import OwnFaults, check_index
from firmware_sim.standard import StandardRequests

STALL = -32
LSB_PV = 31_250  # 31.25 nV a count: 2^23 counts are 262,144 uV exactly, eight characters in a BDF header
OPEN_OHM = 0x7FFFFFFF
TICKS_AT_ONCE = 4096  # one tick gives at most one pulse and one stray, so the collector never overflows
FAULT_REQUEST = 0x7E

_SAMPLE, _ACQ, _PROCESSED, _USED, _SIZE, _STREAMING, _INPUTS, _RATE, _BLOCK, _BOOT, _STATE, _TRIP, _RECORDS, _Z_INPUT = range(14)  # noqa: E501


@dataclass(frozen=True, slots=True)
class FwPulse:
    """One pulse that really left an output.  `set` and `delivered` are uA, or mV when `volts`; never negative:
    `polarity` is the sign of the first phase.  nonce 0 and `stray`: nobody asked for it."""

    sample: int
    output: int
    slot: int
    nonce: int
    pulse: int
    set: int
    delivered: int
    volts: bool
    width_us: int
    polarity: int
    biphasic: bool
    last: bool
    stray: bool = False


@dataclass(frozen=True, slots=True)
class FwConfig:
    inputs: int
    rate_hz: int
    block_samples: int


class Firmware:
    """One unit with power on.  `control` gives (0, data) or (-32, b"") for STALL."""

    def __init__(
        self,
        serial: str = "SIM-0001",
        seed: int = 0,
        fifo_bytes: int = 1 << 20,
        inputs_max: int = 64,
        outputs: int = 8,
        high_speed: bool = True,
        lsb_pv: int | Sequence[int] = LSB_PV,
        labels: Sequence[str] | None = None,
        firmware_bcd: int = 0x0100,
    ) -> None:
        if not 1 <= inputs_max <= 64:
            raise ValueError(f"inputs_max is {inputs_max}, expected 1..64")
        if not 0 <= outputs <= 8:
            raise ValueError(f"outputs is {outputs}, expected 0..8")
        if not 65_536 <= fifo_bytes <= 1 << 30:
            raise ValueError(f"fifo_bytes is {fifo_bytes}, expected 65,536..2^30 (the largest default block twice)")
        names = [f"IN{i + 1}" for i in range(inputs_max)] if labels is None else list(labels)
        lsbs = [lsb_pv] * inputs_max if isinstance(lsb_pv, int) else list(lsb_pv)
        if len(names) != inputs_max or len(lsbs) != inputs_max:
            raise ValueError(f"{len(names)} labels and {len(lsbs)} lsb for {inputs_max} inputs, expected one each")
        self.serial = serial
        self.inputs_max = inputs_max
        self.outputs = outputs
        self.descriptors = Descriptors(serial, firmware_bcd, high_speed, outputs > 0)
        self.labels = tuple(names)
        self.lsb_pv = tuple(lsbs)
        self._keep = ffi.new("char[]", lib.sim_board_size()), ffi.new("uint8_t[]", fifo_bytes)
        self._board = ffi.cast("sim_board *", self._keep[0])
        self._reply = ffi.new("uint8_t[]", 64 * 32)
        self._pulses = ffi.new("face_pulse[]", TICKS_AT_ONCE)
        packed = b"".join(name.encode("ascii")[:23].ljust(24, b"\0") for name in names)
        lib.face_power_up(
            self._board, self._keep[1], fifo_bytes, inputs_max, outputs, high_speed, firmware_bcd, lsbs, packed, seed
        )
        self._actions: list[tuple[int, int, Callable[[], None]]] = []
        self._action_count = 0
        board = self._board
        self.usb = StandardRequests(
            lambda: lib.face_usb_reset(board), lambda alternate: lib.face_set_alternate(board, alternate)
        )

    # ------------------------------------------------------------ what it says about itself

    def _get(self, what: int) -> int:
        return int(lib.face_get(self._board, what))

    @property
    def sample(self) -> int:
        """The device's counter: index of the next sample."""
        return self._get(_SAMPLE)

    @property
    def acquired(self) -> int:
        """The next sample to be framed; equal to `sample` between batches."""
        return self._get(_ACQ)

    @property
    def boot_id(self) -> int:
        return self._get(_BOOT)

    @property
    def heartbeat_processed(self) -> int:
        """processed_sample of the last accepted heartbeat, 0 before the first."""
        return self._get(_PROCESSED)

    @property
    def streaming(self) -> bool:
        return bool(self._get(_STREAMING))

    @property
    def config(self) -> FwConfig:
        return FwConfig(self._get(_INPUTS), self._get(_RATE), self._get(_BLOCK))

    @property
    def stim_state(self) -> int:
        """The true one, whatever a `lie_state` fault reports."""
        return self._get(_STATE)

    @property
    def trip_reason(self) -> int:
        return self._get(_TRIP)

    @property
    def impedance_input(self) -> int | None:
        """The input that carries the test current now, None outside impedance mode."""
        value = self._get(_Z_INPUT)
        return None if value == (1 << 64) - 1 else value

    @property
    def pending_bytes(self) -> int:
        """Bytes in the FIFO, record overhead included."""
        return self._get(_USED)

    @property
    def pending_blocks(self) -> int:
        return self._get(_RECORDS)

    @property
    def fifo_free_bytes(self) -> int:
        return self._get(_SIZE) - self._get(_USED)

    def has_room(self, n_samples: int) -> bool:
        """Will `n_samples` more be framed without a block being dropped?  Errs on the side of no."""
        return bool(lib.face_has_room(self._board, n_samples))

    # ------------------------------------------------------------ time

    def stim_ticks(self, n: int) -> list[FwPulse]:
        """Advance the sample clock by n; gives the pulses that left an output."""
        pulses: list[FwPulse] = []
        end = self.sample + n
        while (now := self.sample) < end:
            while self._actions and self._actions[0][0] <= now:
                heapq.heappop(self._actions)[2]()
            stop = min(end, now + TICKS_AT_ONCE)
            if self._actions:
                stop = min(stop, self._actions[0][0])
            lib.sim_ticks(self._board, stop - now)
            if lib.face_pulse_count(self._board):
                pulses += self._take_pulses()
        return pulses

    def _take_pulses(self) -> list[FwPulse]:
        p = self._pulses
        return [
            FwPulse(
                p[i].sample, p[i].output, p[i].slot, p[i].nonce, p[i].pulse, p[i].set, p[i].delivered, bool(p[i].volts),
                p[i].width_us, -1 if p[i].negative else 1, bool(p[i].biphasic), bool(p[i].last), bool(p[i].stray),
            )
            for i in range(lib.face_pulses_take(self._board, p))
        ]  # fmt: skip

    def acquire(self, counts: npt.NDArray[np.int32]) -> None:
        """Frame samples that `stim_ticks` has passed; int32[sample, input], C-contiguous, converter counts.

        Values beyond 24 bits are clipped and flagged as saturated."""
        inputs = self._get(_INPUTS)
        if counts.dtype != np.int32 or counts.ndim != 2 or counts.shape[1] != inputs or not counts.flags.c_contiguous:
            raise ValueError(f"counts are {counts.dtype}{list(counts.shape)}, expected C-contiguous int32[n, {inputs}]")
        if not len(counts):
            return
        if not lib.sim_acquire(self._board, ffi.from_buffer("int32_t[]", counts), len(counts)):
            raise ValueError(f"{len(counts)} samples from {self.acquired}, clock at {self.sample}: stim_ticks first")

    def acquire_lost(self, n: int) -> None:
        """The converter lost n samples that `stim_ticks` has passed: the counter goes on, a begun block ends short."""
        if not 0 <= n <= self.sample - self.acquired:
            raise ValueError(f"{n} samples from {self.acquired}, clock at {self.sample}: stim_ticks first")
        lib.face_lost(self._board, n)

    def skip(self, n: int) -> list[FwPulse]:
        """Advance the clock by n while nothing streams (unplugged, or before STREAM)."""
        if self.streaming:
            raise ValueError("streaming: samples are acquired, not skipped")
        pulses = self.stim_ticks(n)
        lib.face_lost(self._board, n)
        return pulses

    def take_block(self) -> bytes | None:
        """The next whole block with its pad: exactly one bulk transfer.  None: the endpoint NAKs."""
        length = lib.face_block_length(self._board)
        if not length:
            return None
        out = bytearray(length)
        lib.face_block_take(self._board, ffi.from_buffer("uint8_t[]", out))
        return bytes(out)

    # ------------------------------------------------------------ EP0

    def control(self, setup: bytes, data: bytes = b"") -> tuple[int, bytes]:
        """One control transfer: 8 setup bytes and the data stage of an OUT request."""
        kind, request, value, index, length = struct.unpack("<BBHHH", setup)
        if kind & 0x60 == 0:
            reply = self.usb.answer(self.descriptors, kind, request, value, index)
        elif kind & 0x60 == 0x40:
            reply = self._vendor(setup, kind, request, value, index, data)
        else:
            reply = None
        return (STALL, b"") if reply is None else (0, reply[:length])

    def _vendor(self, setup: bytes, kind: int, request: int, value: int, index: int, data: bytes) -> bytes | None:
        if (kind, request, index) == (0xC0, MS_OS_VENDOR_CODE, MS_OS_INDEX) and value == 0:
            return self.descriptors.ms_os_20()
        if (kind, request) == (0x40, FAULT_REQUEST):
            return self._sim_fault(data)
        if kind & 0x1F == 1 and self.usb.configuration != 1:
            return None
        n = lib.face_control(self._board, setup, data, len(data), self._reply)
        return None if n < 0 else bytes(ffi.buffer(self._reply, n))

    # ------------------------------------------------------------ the bus and the power

    def bus_reset(self) -> None:
        """Port reset: unconfigured, stream stopped, FIFO empty, stimulator SAFE; the clock goes on."""
        lib.face_usb_reset(self._board)
        self.usb.reset()

    def disconnect(self) -> None:
        """The cable is lost; to the firmware the same as a bus reset."""
        self.bus_reset()

    def reboot(self) -> None:
        """Power off and on: counter 0, new boot_id, default configuration.  Loads and impedances stay."""
        self._actions.clear()
        lib.sim_again(self._board)
        self.usb.reset()

    # ------------------------------------------------------------ the world outside

    def set_aux(self, line: int, level: bool, sample: int | None = None) -> None:
        """Line 0 cautery, 1 foot switch, 2 probe button, 3 external trigger, 4 stop button; at `sample`, or at the next
        one."""
        if not 0 <= line < 5:
            raise ValueError(f"line is {line}, expected 0..4")
        self._at(sample, lambda: lib.face_aux(self._board, line, bool(level)))

    def set_load(
        self, output: int, ohm: float = 1000.0, gain_error: float = 0.0, sample: int | None = None
    ) -> None:
        """What the output sees from `sample` (or the next one) on, math.inf for open; delivered = set x
        (1 + gain_error) within the compliance."""
        check_index("output", output, self.outputs)
        if not (ohm >= 0 and -1.0 <= gain_error <= 10.0):
            raise ValueError(f"ohm is {ohm}, gain_error {gain_error}; expected ohm >= 0 and -1 <= gain_error <= 10")
        whole = OPEN_OHM if not math.isfinite(ohm) else min(round(ohm), OPEN_OHM - 1)
        self._at(sample, lambda: lib.face_set_load(self._board, output, whole, 1.0 + gain_error))

    def set_impedance(self, input_: int, ohm: float) -> None:
        """What impedance mode measures at this input, math.inf for a lost electrode."""
        check_index("input", input_, self.inputs_max)
        if not ohm >= 0:
            raise ValueError(f"ohm is {ohm}, expected >= 0 or inf")
        lib.face_set_input(self._board, input_, OPEN_OHM if not math.isfinite(ohm) else min(round(ohm), OPEN_OHM - 1))

    def _at(self, sample: int | None, action: Callable[[], None]) -> None:
        if sample is None or sample <= self.sample:
            action()
            return
        self._action_count += 1
        heapq.heappush(self._actions, (sample, self._action_count, action))

    # ------------------------------------------------------------ faults

    def inject(self, fault: str, at_sample: int | None = None, **arguments: Any) -> None:
        """One fault of own_faults.py, now or at a device sample.  Raises ValueError, TypeError."""
        self._at(at_sample, OwnFaults(self, self._board).prepare(fault, at_sample is not None, arguments))

    @staticmethod
    def faults() -> list[str]:
        return OwnFaults.names()

    def _sim_fault(self, data: bytes) -> bytes | None:
        """SIM_FAULT: a JSON object {"fault": name, ...arguments}."""
        try:
            arguments = json.loads(data)
            self.inject(arguments.pop("fault"), **arguments)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return b""
