"""What every driver fills in: an Amplifier gives Blocks, a Stimulator takes checked requests.

Data path:   Amplifier.read_into(block) -> bool, called by the pipeline thread only.
Way back:    Stimulator methods, called by the control thread only, except `off` (any thread, at once).
The constructor touches no hardware.  `open` raises DeviceGone (not there), DeviceError (there, wrong).
Devices whose sample index is their own clock set `block.first` in *device* samples; clock.py maps them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ionmd.model import Block, DeviceStatus


@dataclass(frozen=True)
class InputInfo:
    """One amplifier input: label and calibration."""

    label: str
    lsb_uv: float
    calibrated: bool = True


@dataclass(frozen=True)
class OutputConfig:
    """One stimulator output as the device must know it: kind 1 transcutaneous mA, 2 transcranial V, 3 probe mA."""

    kind: int
    hand_held: bool = False
    max_amplitude: int = 0  # uA or mV; 0: the hard limit


@dataclass(frozen=True)
class DeviceConfig:
    """The daemon's desired state of the device; sent whole, read back and compared after every (re)connect."""

    inputs: int = 32
    rate_hz: int = 20_000
    block_samples: int = 40
    outputs: tuple[OutputConfig, ...] = ()


@dataclass(frozen=True)
class Identity:
    serial: str
    boot_id: int
    firmware: str
    inputs: tuple[InputInfo, ...]
    rate_hz: float
    source: str = "device"  # device | simulated | replay
    stimulator: bool = True
    limit_table_ok: bool = True
    fifo_bytes: int = 0


@dataclass(frozen=True)
class Pulse:
    """One pulse of a sequence in device units (uA or mV; the sign is the polarity of the first phase)."""

    t_us: int
    amplitude: int
    width_us: int
    biphasic: bool = False


@dataclass(frozen=True)
class Sequence:
    """One delivery: what docs/wire/ionm1.md 5.6 carries.  `volts` false: amplitudes are uA."""

    output: int
    pulses: tuple[Pulse, ...]
    volts: bool = False
    zero_at: int = 0
    gap_ms: int = 0


@dataclass(frozen=True)
class ArmToken:
    """Proof that the device holds exactly this sequence."""

    slot: int
    token: int
    expires_sample: int


@dataclass(frozen=True)
class Remembered:
    """What a stimulator still knows of an earlier host: why it is latched (0: it is not), the greatest nonce."""

    trip_reason: int = 0
    nonce: int = 0


@dataclass
class ReadStats:
    """Counters of one connection; a frozen copy goes out by `stats()`."""

    blocks: int = 0
    samples: int = 0
    lost_samples: int = 0
    gaps: int = 0
    duplicates: int = 0
    bad_frames: int = 0
    stale_frames: int = 0
    ring_high_permille: int = 0
    fifo_high_permille: int = 0
    errors: dict[str, int] = field(default_factory=dict)


class Amplifier(ABC):
    """A source of Blocks.  Life: open -> start -> read_into ... -> stop -> close; close is safe twice and half-open."""

    name = ""
    live = True  # false: a recording, which `ionmd run` does not take for an amplifier

    def pace(self, speed: float | None) -> None:  # noqa: B027 - a real unit's clock is its own
        """Device seconds per second, for a unit without a clock of its own; None: as fast as it is read.  Before
        `open`."""

    @abstractmethod
    def open(self, serial: str | None = None) -> Identity:
        """Find the unit (by serial number when given), configure it, read the configuration back.

        Raises DeviceGone when no such unit is there, DeviceError when it refuses.  When `serial` is None any
        single unit is taken."""

    @abstractmethod
    def start(self) -> None:
        """Start streaming; from now on `fd` becomes readable when samples wait."""

    @abstractmethod
    def read_into(self, block: Block, limit_sample: int | None = None) -> bool:
        """Append what has arrived to `block` (from row `block.n` on), to its capacity and not past `limit_sample`.

        True: the block is complete: it is full, reached `limit_sample`, or what follows is not contiguous (a gap,
        a new session, the end).  False: more must arrive; the rows so far stay and the next call goes on from them.
        The caller clears the block after use.  Never blocks the thread.  A block never spans a gap: `gap` and `lost`
        of a block describe what is missing before its row 0.  Raises DeviceGone after unplug, once every sample that
        arrived before it has been handed out (a partial block is completed first).  A complete block may have no
        rows: the samples up to `limit_sample` are lost, `first` is the next one that is there."""

    @abstractmethod
    def stop(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def reset(self) -> None:  # noqa: B027 - most drivers have nothing to reset
        """Last resort for a device that is there and gives nothing, before `close` and `open`.  Never raises."""

    @abstractmethod
    def fileno(self) -> int:
        """A descriptor that is readable when read_into may give samples (an eventfd); -1: always poll."""

    @abstractmethod
    def stats(self) -> ReadStats: ...

    @abstractmethod
    def status(self) -> DeviceStatus:
        """As last known; never blocks."""

    def stimulator(self) -> Stimulator | None:
        """The stimulator on the same clock, if there is one."""
        return None


class Stimulator(ABC):
    """Range-checked requests to a stimulator; raw bytes never pass through.  All raise DeviceRefused with the
    firmware's reason, or DeviceGone."""

    def remembered(self) -> Remembered:
        """As it was when the device was opened."""
        return Remembered()

    @abstractmethod
    def load(self, slot: int, sequence: Sequence) -> None:
        """Send, read back and compare bit for bit."""

    @abstractmethod
    def arm(self, slot: int, ttl_ms: int) -> ArmToken: ...

    @abstractmethod
    def fire(self, token: ArmToken, nonce: int, at_sample: int) -> None:
        """One delivery at device sample `at_sample`.  Never repeated by the host: a lost reply is asked after."""

    @abstractmethod
    def heartbeat(self, counter: int, processed_sample: int, progress: int) -> None: ...

    @abstractmethod
    def off(self) -> None:
        """Outputs off now.  Safe from any thread; tries its best and never raises."""

    @abstractmethod
    def abort(self, output: int) -> None: ...

    @abstractmethod
    def reset(self, reason: int) -> None:
        """Leave the latched state; nothing to do when the device is not latched (it lost its power since)."""

    @abstractmethod
    def impedance(self, inputs: tuple[int, ...]) -> None:
        """Start impedance mode for these inputs; results arrive as marks."""
