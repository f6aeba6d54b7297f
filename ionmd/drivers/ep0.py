"""The ionm1 device as requests on endpoint 0: identity, configuration, stimulator.  Layouts: docs/wire/ionm1.md 4-6.

In: typed requests.  Out: packed bytes to whatever carries them (USB in ionm1.py, the simulated firmware in
demo.py), and parsed answers.  Always: what was loaded is read back and compared bit for bit; a refusal carries the
firmware's reason; a fire is sent once and never repeated.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from abc import ABC, abstractmethod

from ionmd.decode.ionm1 import reason_name
from ionmd.drivers.base import ArmToken, DeviceConfig, Identity, InputInfo, Remembered, Sequence, Stimulator
from ionmd.errors import DeviceError, DeviceRefused
from ionmd.model import StimState

GET_IDENTITY, GET_STATUS, GET_INPUTS = 0x01, 0x02, 0x03
STREAM, SET_CONFIG, GET_CONFIG, IMPEDANCE, HEARTBEAT = 0x10, 0x11, 0x12, 0x30, 0x40
STIM_OFF, STIM_LOAD, STIM_READBACK, STIM_ARM, STIM_TOKEN = 0x50, 0x51, 0x52, 0x53, 0x54
STIM_FIRE, STIM_STATE, STIM_RESET, STIM_ABORT = 0x55, 0x56, 0x57, 0x58
ACQUISITION, STIMULATOR = 0, 1  # interfaces
STALL = -32

# The text of docs/wire/ionm1.md section 7.8; its hash proves that device and host mean the same limits.
LIMIT_TABLE = "\n".join((
    "ionm1 limit table 1",
    "transcutaneous mA max_ua=100000 width_us=50..1000 pulses=1..4 compliance_mv=400000 energy_uj=50000 "
    "interval_us=2000.. gap_ms=15 rate_per_min=3000",
    "transcranial V max_mv=1000000 width_us=50..100 pulses=1..9 energy_uj=50000 interval_us=1000..10000 gap_ms=1000 "
    "rate_per_min=60",
    "probe mA max_ua=40000 width_us=50..300 pulses=1..5 compliance_mv=200000 energy_uj=50000 interval_us=1000.. "
    "gap_ms=50 rate_per_min=1200",
))
LIMIT_HASH = hashlib.sha256(LIMIT_TABLE.encode()).digest()[:16]


def pack_config(config: DeviceConfig) -> bytes:
    """docs/wire 5.4, CRC included."""
    outputs = b"".join(struct.pack("<BBHI", o.kind, int(o.hand_held), 0, o.max_amplitude) for o in config.outputs)
    head = struct.pack(
        "<HHIHHB3x", 1, 20 + len(outputs), config.rate_hz, config.inputs, config.block_samples, len(config.outputs)
    )
    return _sealed(head + outputs)


def pack_sequence(sequence: Sequence) -> bytes:
    """docs/wire 5.6, CRC included."""
    head = struct.pack("<HBBBBH", 1, sequence.output, int(sequence.volts), len(sequence.pulses), sequence.zero_at,
                       sequence.gap_ms)
    pulses = b"".join(struct.pack("<IiHBx", p.t_us, p.amplitude, p.width_us, int(p.biphasic)) for p in sequence.pulses)
    return _sealed(head + pulses)


def _sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


class Ep0(ABC):
    """A way to endpoint 0.  `transfer_in` and `transfer_out` raise DeviceGone when the device left."""

    @abstractmethod
    def transfer_in(self, request: int, value: int, length: int, interface: int | None) -> bytes | None:
        """The answer, or None for STALL.  interface None: recipient device."""

    @abstractmethod
    def transfer_out(self, request: int, value: int, data: bytes, interface: int | None) -> bool:
        """False for STALL."""

    # ------------------------------------------------------------ with the reason of a refusal

    def ask(self, request: int, value: int, length: int, interface: int | None = None) -> bytes:
        found = self.transfer_in(request, value, length, interface)
        if found is None:
            self._refused(request)
        return found or b""

    def tell(self, request: int, value: int = 0, data: bytes = b"", interface: int | None = None) -> None:
        if not self.transfer_out(request, value, data, interface):
            self._refused(request)

    def _refused(self, request: int) -> None:
        status = self.transfer_in(GET_STATUS, 0, 48, None)
        reason = reason_name(status[2]) if status is not None and len(status) >= 3 else "UNKNOWN"
        raise DeviceRefused(f"the device refused request 0x{request:02x}: {reason}", reason)

    # ------------------------------------------------------------ amplifier

    def identify(self, serial: str, config: DeviceConfig) -> Identity:
        """Identity, limits and calibrations.  DeviceError when it speaks another protocol or sends nonsense."""
        raw = self.ask(GET_IDENTITY, 0, 64)
        if len(raw) != 64:
            raise DeviceError(f"{serial}: an identity of {len(raw)} bytes came, 64 were expected")
        major, minor, boot_id, firmware, _hardware = struct.unpack_from("<HHIHH", raw, 0)
        inputs_max, _outputs, _slots, features = struct.unpack_from("<BBBB", raw, 12)
        version, fifo_bytes, rate_max = struct.unpack_from("<III", raw, 16)
        if major != 1:
            raise DeviceError(f"{serial}: protocol {major}.{minor} came, 1.x was expected; update the firmware")
        if not (1 <= config.inputs <= inputs_max and 1000 <= config.rate_hz <= rate_max):
            raise DeviceError(
                f"{serial}: {config.inputs} inputs at {config.rate_hz} Hz are configured, the device has {inputs_max} "
                f"up to {rate_max} Hz"
            )
        inputs = self._inputs(config.inputs)
        limits_ok = version == 1 and raw[28:44] == LIMIT_HASH
        return Identity(
            serial, boot_id, f"{firmware >> 8}.{firmware & 0xFF:02x}", inputs, float(config.rate_hz),
            "simulated" if serial.startswith("SIM-") else "device", bool(features & 1), limits_ok, fifo_bytes,
        )

    def _inputs(self, count: int) -> tuple[InputInfo, ...]:
        raw = self.ask(GET_INPUTS, 0, 32 * count)
        if len(raw) < 32 * count:
            raise DeviceError(f"calibration of {len(raw) // 32} inputs came, {count} were expected")
        found = []
        for i in range(count):
            lsb_pv, _gain, flags, _zero, label = struct.unpack_from("<IBBH24s", raw, 32 * i)
            found.append(InputInfo(label.rstrip(b"\0").decode("ascii", "replace"), lsb_pv * 1e-6, bool(flags & 2)))
        return tuple(found)

    def configure(self, config: DeviceConfig) -> None:
        """Send the whole configuration and compare what the device says it applied."""
        wanted = pack_config(config)
        self.tell(SET_CONFIG, 0, wanted)
        if (applied := self.ask(GET_CONFIG, 0, 512)) != wanted:
            raise DeviceError(
                f"the device applied another configuration ({len(applied)} bytes) than was sent ({len(wanted)})"
            )

    def remembered(self) -> tuple[Remembered, int]:
        """What GET_STATUS (5.2) says of an earlier host, and the greatest heartbeat counter that it accepted."""
        raw = self.ask(GET_STATUS, 0, 48)
        if len(raw) != 48:
            raise DeviceError(f"a status of {len(raw)} bytes came, 48 were expected")
        return Remembered(raw[1], struct.unpack_from("<I", raw, 44)[0]), struct.unpack_from("<I", raw, 28)[0]

    def stream(self, on: bool, session: int = 0) -> None:
        self.tell(STREAM, int(on), struct.pack("<I", session) if on else b"", ACQUISITION)


class Ep0Stimulator(Stimulator):
    """The stimulator interface over an Ep0.  The device outlives this program: it takes only heartbeat counters and
    nonces above the last ones it accepted, perhaps from a host that is gone."""

    def __init__(self, ep0: Ep0, boot_id: int) -> None:
        self._ep0 = ep0
        self._boot_id = boot_id
        self._remembered, self._counted = ep0.remembered()
        self._loaded: dict[int, int] = {}  # slot -> CRC of what it holds

    def remembered(self) -> Remembered:
        return self._remembered

    def load(self, slot: int, sequence: Sequence) -> None:
        data = pack_sequence(sequence)
        self._loaded.pop(slot, None)
        self._ep0.tell(STIM_LOAD, slot, data, STIMULATOR)
        if self._ep0.ask(STIM_READBACK, slot, 512, STIMULATOR) != data:
            self.off()
            raise DeviceRefused(f"slot {slot} reads back other bytes than were loaded; outputs are off", "READBACK")
        self._loaded[slot] = zlib.crc32(data[:-4])

    def arm(self, slot: int, ttl_ms: int) -> ArmToken:
        crc = self._loaded.get(slot)
        if crc is None:
            raise DeviceRefused(f"slot {slot} was not loaded", "STATE")
        self._ep0.tell(STIM_ARM, slot, struct.pack("<II", crc, ttl_ms), STIMULATOR)
        token, armed_crc, expires = struct.unpack("<IIQ", self._ep0.ask(STIM_TOKEN, slot, 16, STIMULATOR))
        if token == 0 or armed_crc != crc:
            self.off()
            raise DeviceRefused(f"slot {slot} armed something else than was loaded; outputs are off", "READBACK")
        return ArmToken(slot, token, expires)

    def fire(self, token: ArmToken, nonce: int, at_sample: int) -> None:
        self._ep0.tell(STIM_FIRE, token.slot, struct.pack("<IIQ", token.token, nonce, at_sample), STIMULATOR)

    def heartbeat(self, counter: int, processed_sample: int, progress: int) -> None:
        body = struct.pack(
            "<IIQI", self._counted + counter, progress & 0xFFFFFFFF, processed_sample, self._boot_id
        )
        self._ep0.tell(HEARTBEAT, 0, _sealed(body), STIMULATOR)

    def off(self) -> None:
        """Twice at most; the device's own watchdog is what counts when the cable is gone."""
        for _ in range(2):
            try:
                if self._ep0.transfer_out(STIM_OFF, 0, b"", None):
                    return
            except Exception:  # noqa: S112 - off never raises
                continue

    def abort(self, output: int) -> None:
        self._ep0.tell(STIM_ABORT, output, b"", STIMULATOR)

    def reset(self, reason: int) -> None:
        if self._ep0.ask(STIM_STATE, 0, 32, STIMULATOR)[:1] != bytes([StimState.TRIPPED]):
            return
        self._ep0.tell(STIM_RESET, 0, struct.pack("<B", reason), STIMULATOR)

    def impedance(self, inputs: tuple[int, ...]) -> None:
        mask = sum(1 << i for i in set(inputs))
        self._ep0.tell(IMPEDANCE, 1, struct.pack("<Q", mask), ACQUISITION)
