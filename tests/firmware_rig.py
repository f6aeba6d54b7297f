"""The firmware in C behind its EP0 requests, one unit in this process; layouts are those of docs/wire/ionm1.md.

Time passes only in `run`.  Blocks are parsed here and not by the decoder of the host, so that the two are independent.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from firmware_sim.core import Firmware, FwPulse
from ionmd.decode.ionm1 import REASONS
from ionmd.drivers.base import DeviceConfig, OutputConfig, Pulse, Sequence
from ionmd.drivers.ep0 import pack_config, pack_sequence

RATE = 10_000
SAFE, CONFIGURED, ARMED, FIRING, TRIPPED = range(5)
PULSE, END, AUX, STATE, IMPEDANCE, REFUSED = range(1, 7)
NERVE, TES, PROBE = 0, 1, 2  # outputs of a Unit: fixed pair in mA, fixed pair in V, hand-held probe
NERVE_2 = 3
OUTPUTS = (OutputConfig(1), OutputConfig(2), OutputConfig(3, hand_held=True), OutputConfig(1))
WATCHDOG = 400 * RATE // 1000
STAY = 1 << 60


def setup(kind: int, request: int, value: int = 0, index: int = 0, length: int = 0) -> bytes:
    return struct.pack("<BBHHH", kind, request, value, index, length)


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def train(n: int = 1, output: int = NERVE, amplitude: int = 20_000, width_us: int = 200, step_us: int = 4000,
          gap_ms: int = 0, biphasic: bool = False) -> Sequence:  # fmt: skip
    pulses = tuple(Pulse(i * step_us, amplitude, width_us, biphasic) for i in range(n))
    return Sequence(output, pulses, OUTPUTS[output].kind == 2, 0, gap_ms)


@dataclass(frozen=True)
class Mark:
    sample: int
    kind: int
    output: int
    slot: int
    flags: int
    pulse: int
    width_us: int
    nonce: int
    set: int
    delivered: int
    value: int

    @property
    def reason(self) -> str:
        """Of a state mark (value / 256), a delivery end or a refused fire."""
        return REASONS[self.value >> 8 if self.kind == STATE else self.value]


@dataclass(frozen=True)
class Block:
    """A block whose two checksums are right."""

    type: int
    seq: int
    session: int
    first: int
    time_ns: int
    samples: int
    flags: int
    fifo_permille: int
    dropped: int
    aux: int
    boot_id: int
    state: int
    trip: int
    config_crc: int
    counts: np.ndarray
    marks: list[Mark]
    length: int


def parse(raw: bytes) -> Block:
    (magic, version, kind, header, seq, session, first, time_ns, inputs, n, form, flags, fifo, dropped, n_marks, aux,
     boot, state, trip, zero, config, crc) = struct.unpack_from("<IBBHIIQQHHBBHIHHIBBHII", raw)  # fmt: skip
    assert (magic, version, header, form, zero) == (0x4D4E4F49, 1, 64, 1, 0)
    assert crc == zlib.crc32(raw[:60])
    at = 64 + 3 * inputs * n
    packed = np.frombuffer(raw, np.uint8, 3 * inputs * n, 64).reshape(n, inputs, 3).astype(np.int32)
    counts = (packed[..., 0] << 8 | packed[..., 1] << 16 | packed[..., 2] << 24) >> 8
    marks = [Mark(*struct.unpack_from("<QBBBBHHIiiI", raw, at + 32 * i)) for i in range(n_marks)]
    at += 32 * n_marks
    assert zlib.crc32(raw[:at]) == struct.unpack_from("<I", raw, at)[0]
    length = at + 4 if (at + 4) % 512 else at + 8
    assert len(raw) == length and length % 512
    return Block(kind, seq, session, first, time_ns, n, flags, fifo, dropped, aux, boot, state, trip, config, counts,
                 marks, len(raw))  # fmt: skip


@dataclass(frozen=True)
class Status:
    state: int
    trip: int
    refusal: int
    streaming: int
    boot_id: int
    sample: int
    seq: int
    dropped: int
    fifo: int
    fifo_high: int
    beat: int
    processed: int
    speed: int
    nonce: int


@dataclass(frozen=True)
class StimState:
    state: int
    trip: int
    armed: int
    watchdog_left_ms: int
    deliveries: int
    pulses: int
    refused: int
    trips: int
    last_pulse: int


@dataclass
class Unit:
    """A configured unit of 4 inputs at 10 kHz in blocks of 20 samples, streaming, with a fresh heartbeat."""

    streaming: bool = True
    config: DeviceConfig = field(default_factory=lambda: DeviceConfig(4, RATE, 20, OUTPUTS))
    fifo_bytes: int = 1 << 20
    seed: int = 1

    def __post_init__(self) -> None:
        self.fw = Firmware(seed=self.seed, fifo_bytes=self.fifo_bytes, inputs_max=64, outputs=8)
        self.beats = self.nonce = 0
        self.pulses: list[FwPulse] = []
        self.marks: list[Mark] = []
        self.blocks: list[Block] = []
        self.open()
        if self.streaming:
            self.stream()
            self.beat()

    def open(self) -> None:
        """What a host does after it found the unit."""
        assert self.fw.control(setup(0x00, 9, 1))[0] == 0
        assert self.fw.control(setup(0x01, 11, 1))[0] == 0
        assert self.tell(0x40, 0x11, 0, pack_config(self.config)) == ""

    def stream(self, session: int = 7) -> None:
        assert self.tell(0x41, 0x10, 1, struct.pack("<I", session)) == ""

    # ------------------------------------------------------------ requests

    def ask(self, kind: int, request: int, value: int = 0, length: int = 512, index: int = 0) -> bytes | str:
        """The reply, or the reason of the refusal."""
        status, reply = self.fw.control(setup(kind, request, value, index, length))
        return reply if status == 0 else self.refusal

    def tell(self, kind: int, request: int, value: int = 0, data: bytes = b"", index: int = 0) -> str:
        """Empty, or the reason of the refusal."""
        return self.send(setup(kind, request, value, index, len(data)), data)

    def send(self, packet: bytes, data: bytes = b"") -> str:
        return "" if self.fw.control(packet, data)[0] == 0 else self.refusal

    @property
    def refusal(self) -> str:
        return REASONS[self.status.refusal]

    @property
    def status(self) -> Status:
        code, raw = self.fw.control(setup(0xC0, 0x02, 0, 0, 48))
        assert code == 0 and len(raw) == 48
        return Status(*struct.unpack("<BBBBIQIIHHIQB3xI", raw))

    @property
    def stim(self) -> StimState:
        raw = self.ask(0xC1, 0x56, 0, 32, 1)
        assert len(raw) == 32
        return StimState(*struct.unpack("<BBHIIIIIQ", raw))

    def beat(self, processed: int | None = None, counter: int | None = None, boot_id: int | None = None) -> str:
        self.beats = self.beats + 1 if counter is None else counter
        done = self.fw.acquired if processed is None else processed
        boot = self.fw.boot_id if boot_id is None else boot_id
        return self.tell(0x41, 0x40, 0, sealed(struct.pack("<IIQI", self.beats, 0, done, boot)), 1)

    def load(self, sequence: Sequence | bytes, slot: int = 0) -> str:
        data = sequence if isinstance(sequence, bytes) else pack_sequence(sequence)
        return self.tell(0x41, 0x51, slot, data, 1)

    def arm(self, sequence: Sequence, slot: int = 0, ttl_ms: int = 10_000) -> str:
        crc = struct.unpack("<I", pack_sequence(sequence)[-4:])[0]
        return self.tell(0x41, 0x53, slot, struct.pack("<II", crc, ttl_ms), 1)

    def token(self, slot: int = 0) -> tuple[int, int, int]:
        """token, CRC of what is armed, sample at which it expires."""
        raw = self.ask(0xC1, 0x54, slot, 16, 1)
        assert len(raw) == 16
        return struct.unpack("<IIQ", raw)

    def armed(self, sequence: Sequence, slot: int = 0, ttl_ms: int = 10_000) -> int:
        """Load and arm; the token."""
        assert (self.load(sequence, slot), self.arm(sequence, slot, ttl_ms)) == ("", "")
        return self.token(slot)[0]

    def fire(self, token: int, at: int = 0, slot: int = 0, nonce: int | None = None) -> str:
        self.nonce = self.nonce + 1 if nonce is None else nonce
        return self.tell(0x41, 0x55, slot, struct.pack("<IIQ", token, self.nonce, at), 1)

    def off(self) -> str:
        return self.tell(0x40, 0x50)

    # ------------------------------------------------------------ time

    def run(self, samples: int, beats: bool = True) -> list[FwPulse]:
        """Pulses that left an output; blocks and marks are collected.  Heartbeats every 100 ms unless told not to."""
        out: list[FwPulse] = []
        end = self.fw.sample + samples
        while self.fw.sample < end:
            n = min(RATE // 10, end - self.fw.sample)
            if self.fw.streaming:
                out += self.fw.stim_ticks(n)
                counts = np.zeros((n, self.fw.config.inputs), np.int32)
                counts[:, 0] = np.arange(self.fw.acquired, self.fw.acquired + n) & 0x7FFFFF
                self.fw.acquire(counts)
            else:
                out += self.fw.skip(n)
            self.drain()
            if beats:
                assert self.beat() == ""
        self.pulses += out
        return out

    def flush(self) -> None:
        """As many samples as complete the open block, so that its marks are out."""
        n = self.config.block_samples
        self.run(n + (-self.fw.sample) % n)

    def drain(self) -> None:
        while (raw := self.fw.take_block()) is not None:
            block = parse(raw)
            self.blocks.append(block)
            self.marks += block.marks

    def of(self, *kinds: int) -> list[Mark]:
        return [m for m in self.marks if m.kind in kinds]


def states(marks: Iterable[Mark]) -> list[tuple[int, str]]:
    """(new state, reason) of every state mark."""
    return [(m.value & 0xFF, m.reason) for m in marks if m.kind == STATE]
