"""The reference amplifier and stimulator over USB.  Wire: docs/wire/ionm1.md; bytes of requests: ep0.py.

In: the wanted configuration and a serial number.  Out: Blocks, and a Stimulator on the same clock.
Always: the unit is matched by serial number, its configuration is read back and compared, and after every open it is
SAFE (selecting the interface makes it so).  Streaming never needs the GIL; read_into only empties the ring.
An unplug shows as soon as libusb reports it: all transfers come back at once and the descriptor becomes readable.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
from collections import Counter
from collections.abc import Iterator

from ionmd.decode.ionm1 import MAX_BLOCK_BYTES, Ionm1Decoder, block_bytes
from ionmd.drivers.base import Amplifier, ArmToken, DeviceConfig, Identity, ReadStats, Sequence, Stimulator
from ionmd.drivers.ep0 import GET_CONFIG, Ep0, Ep0Stimulator, pack_config
from ionmd.drivers.streaming import stats_of, status_of
from ionmd.drivers.transport import EP0_TIMEOUT_MS, HIGH_SPEED, MAX_TRANSFERS, BulkQueue, NoReply, UsbUnit, find_unit
from ionmd.errors import ConfigError, DeviceError, DeviceGone, DeviceRefused
from ionmd.model import Block, DeviceStatus

VENDOR, PRODUCT = 0x1209, 0x0001
BULK_IN = 0x81
IN_FLIGHT_MS = 80.0  # of blocks queued; what the host may stand still without using the device's FIFO
RING_S = 2.5
MARKS_A_BLOCK = 256
MEMORY_BYTES = 12 << 20  # Linux lets all USB devices together have 16 MiB in flight unless told otherwise
HALT_TRIES = 3


class Ionm1(Amplifier, Ep0):
    name = "ionm1"

    def __init__(self, config: DeviceConfig | None = None) -> None:
        self._config = config or DeviceConfig()
        self._transfers, self._transfer_bytes = queue_shape(self._config)
        self._lock = threading.RLock()  # a request and the reason of its refusal; `off` does not wait for it
        self._unit: UsbUnit | None = None
        self._queue: BulkQueue | None = None
        self._decoder: Ionm1Decoder | None = None
        self._lsb: list[float] = []
        self._identity: Identity | None = None
        self._stimulator: UsbStimulator | None = None
        self._state = "absent"
        self._detail = ""
        self._session = 0
        self._errors: Counter[str] = Counter()
        self._halts = 0  # clear-halts since data last came
        self._completed_at_halt = 0

    # ------------------------------------------------------------ life

    def open(self, serial: str | None = None) -> Identity:
        self.close()
        self._state, self._detail = "absent", ""
        try:
            unit = self._unit = find_unit(VENDOR, PRODUCT, serial)
            self._state = "connecting"
            if unit.speed not in (0, HIGH_SPEED):
                raise DeviceError(
                    f"unit {unit.serial} runs at full speed (12 Mbit/s): use a high-speed port and a USB 2.0 cable"
                )
            unit.prepare()
            unit.set_interface(0, 1)
            # Refused while the stimulator is tripped, and not needed then: the trip must not cost the signals.
            if self.ask(GET_CONFIG, 0, 512) != pack_config(self._config):
                self.configure(self._config)
            identity = self.identify(unit.serial, self._config)
            stimulator = UsbStimulator(self, identity.boot_id) if identity.stimulator else None
        except (DeviceGone, DeviceError) as error:
            self._fail(error)
            raise
        self._identity = identity
        unit.timeout_ms = EP0_TIMEOUT_MS
        # The decoder stays as long as the unit's inputs do, so that its counters and position span a lost cable.
        lsb = [i.lsb_uv for i in identity.inputs]
        if self._decoder is None or self._lsb != lsb:
            self._decoder, self._lsb = Ionm1Decoder(lsb, ring_bytes(self._config)), lsb
        self._stimulator = stimulator
        return identity

    def _fail(self, error: Exception) -> None:
        gone = isinstance(error, DeviceGone)
        self._state = ("foreign" if "expected" in str(error) else "absent") if gone else "failed"
        self._detail = str(error)
        if self._unit is not None:
            self._unit.close()
        self._unit = None

    def start(self) -> None:
        if self._unit is None or self._decoder is None or self._identity is None:
            raise DeviceGone("ionm1: start came before open")
        if self._queue is None:
            self._queue = self._unit.queue(BULK_IN, self._transfers, self._transfer_bytes, self._decoder.ring_address)
        else:
            self._queue.reap()
        self._session = secrets.randbits(32)
        self._decoder.begin(self._session, self._identity.boot_id)
        self._queue.submit()  # first, so that the first block finds a transfer
        self.stream(True, self._session)
        self._state = "streaming"
        self._halts = 0

    def stop(self) -> None:
        if self._state == "streaming":
            self._state = "connecting"
            with contextlib.suppress(DeviceGone, DeviceError):
                self.stream(False)
        if self._queue is not None:
            self._queue.reap()

    def reset(self) -> None:
        """USB port reset: frees an endpoint that nothing else does."""
        if self._queue is not None:
            self._queue.reap()
        if self._unit is not None:
            self._errors["usb_resets"] += 1
            with contextlib.suppress(DeviceGone, DeviceError):
                self._unit.reset()

    def close(self) -> None:
        if self._stimulator is not None:
            self._stimulator.off()
        self.stop()
        if self._queue is not None:
            self._errors.update(self._queue_errors())
            self._queue.close()
        if self._unit is not None:
            self._unit.close()
            self._state = "absent"
        self._queue = self._unit = self._stimulator = None

    # ------------------------------------------------------------ samples

    def read_into(self, block: Block, limit_sample: int | None = None) -> bool:
        decoder, queue = self._decoder, self._queue
        if decoder is None or queue is None:
            raise DeviceGone(self._detail or "ionm1: not streaming")
        if decoder.read_into(block, limit_sample):
            return True
        queue.drain_event()
        if decoder.read_into(block, limit_sample):  # what came between the two
            return True
        state = queue.state
        if state == "running" or self._state != "streaming":
            return False
        if state == "stalled":
            self._clear_halt(queue)
            return False
        queue.reap()
        if decoder.read_into(block, limit_sample) or block.n:
            return True
        what = "left the bus" if state == "gone" else "gives nothing but transfer errors"
        self._detail = f"unit {self._identity.serial if self._identity else ''} {what}"
        self._state = "lost"
        raise DeviceGone(self._detail)

    def _clear_halt(self, queue: BulkQueue) -> None:
        """The device halted its endpoint: clear it and go on in the same session; give up when nothing ever comes."""
        completed = queue.stats()["completed"]
        self._halts = 1 if completed > self._completed_at_halt else self._halts + 1
        self._completed_at_halt = completed
        if self._halts > HALT_TRIES:
            self._state = "lost"
            self._detail = f"endpoint 0x{BULK_IN:02x} stays halted after {HALT_TRIES} tries"
            raise DeviceGone(self._detail)
        queue.reap()
        if self._unit is not None:
            self._unit.clear_halt(BULK_IN)
        queue.submit()

    def fileno(self) -> int:
        return self._queue.fileno() if self._queue is not None else -1

    def _queue_errors(self) -> dict[str, int]:
        s = self._queue.stats() if self._queue is not None else {}
        names = ("stalls", "errors", "overflows", "timeouts", "cancelled_bytes")
        return {f"usb_{name}": s[name] for name in names if s.get(name)}

    def stats(self) -> ReadStats:
        stats = stats_of(self._decoder) if self._decoder is not None else ReadStats()
        stats.errors.update(self._errors + Counter(self._queue_errors()))
        return stats

    def status(self) -> DeviceStatus:
        if self._identity is None or self._decoder is None:
            return DeviceStatus(self._state, self.name, detail=self._detail)
        return status_of(self.name, self._identity, self._decoder, self._session, self._state, self._detail)

    def stimulator(self) -> Stimulator | None:
        identity = self._identity
        return self._stimulator if identity is not None and identity.limit_table_ok else None

    # ------------------------------------------------------------ endpoint 0

    def ask(self, request: int, value: int, length: int, interface: int | None = None) -> bytes:
        with self._lock:
            return super().ask(request, value, length, interface)

    def tell(self, request: int, value: int = 0, data: bytes = b"", interface: int | None = None) -> None:
        with self._lock:
            super().tell(request, value, data, interface)

    def transfer_in(self, request: int, value: int, length: int, interface: int | None) -> bytes | None:
        return self._open_unit().read(0xC0 if interface is None else 0xC1, request, value, interface or 0, length)

    def transfer_out(self, request: int, value: int, data: bytes, interface: int | None) -> bool:
        return self._open_unit().write(0x40 if interface is None else 0x41, request, value, interface or 0, data)

    def _open_unit(self) -> UsbUnit:
        unit = self._unit
        if unit is None:
            raise DeviceGone(self._detail or "ionm1: the device is not open")
        return unit

    def count(self, name: str) -> None:
        """One more of an error that shows in `stats().errors`."""
        self._errors[name] += 1


class UsbStimulator(Ep0Stimulator):
    """Adds what a bus can do: lose a reply."""

    def __init__(self, unit: Ionm1, boot_id: int) -> None:
        super().__init__(unit, boot_id)
        self._unit = unit

    def load(self, slot: int, sequence: Sequence) -> None:
        with self._off_when_unsure("load"):
            super().load(slot, sequence)

    def arm(self, slot: int, ttl_ms: int) -> ArmToken:
        with self._off_when_unsure("arm"):
            return super().arm(slot, ttl_ms)

    @contextlib.contextmanager
    def _off_when_unsure(self, what: str) -> Iterator[None]:
        """Whether an unanswered request was carried out is not known: what it may have armed is switched off."""
        try:
            yield
        except NoReply as error:
            self._unit.count(f"{what}_reply_lost")
            self.off()
            raise DeviceRefused(f"the reply to {what} was lost; outputs are off ({error})", "NO_REPLY") from error

    def fire(self, token: ArmToken, nonce: int, at_sample: int) -> None:
        """A lost reply is asked after, never repeated: a device that remembers the nonce took the request, and its
        marks will tell the rest; one that does not never saw it."""
        try:
            super().fire(token, nonce, at_sample)
        except NoReply:
            self._unit.count("fire_reply_lost")
            if self._unit.remembered()[0].nonce < nonce:
                raise DeviceRefused(f"fire {nonce} did not reach the device and is not repeated", "NO_REPLY") from None


def queue_shape(config: DeviceConfig) -> tuple[int, int]:
    """(transfers, bytes of each) so that IN_FLIGHT_MS of blocks fit.  ConfigError for blocks too short for that."""
    if not (1 <= config.inputs <= 64 and 1000 <= config.rate_hz <= 40_000 and 1 <= config.block_samples <= 4096):
        raise ConfigError(
            f"device: {config.inputs} inputs, {config.rate_hz} Hz, {config.block_samples} samples a block came; "
            "1 to 64 inputs, 1000 to 40000 Hz, 1 to 4096 samples were expected"
        )
    largest = block_bytes(config.inputs, config.block_samples, MARKS_A_BLOCK)
    size = min((largest + 511) // 512 * 512, (MAX_BLOCK_BYTES + 511) // 512 * 512)
    block_ms = config.block_samples * 1000.0 / config.rate_hz
    count = max(4, math.ceil(IN_FLIGHT_MS / block_ms) + 1)
    if count > MAX_TRANSFERS or count * size > MEMORY_BYTES:
        least = math.ceil(config.rate_hz / 4000)
        raise ConfigError(
            f"device: blocks of {config.block_samples} samples at {config.rate_hz} Hz last {block_ms:g} ms: "
            f"{IN_FLIGHT_MS:g} ms of them need {count} transfers of {size} bytes; use blocks of {least} samples or more"
        )
    return count, size


def ring_bytes(config: DeviceConfig) -> int:
    """RING_S of blocks, each with a few marks, and room for some of the largest."""
    blocks_a_s = config.rate_hz / config.block_samples
    typical = block_bytes(config.inputs, config.block_samples, 4) + 32
    largest = block_bytes(config.inputs, config.block_samples, MARKS_A_BLOCK) + 32
    return int(RING_S * blocks_a_s * typical) + 4 * largest


__all__ = ["Ionm1", "UsbStimulator", "queue_shape", "ring_bytes"]
