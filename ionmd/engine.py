"""The pipeline thread: device in, room around, requests between blocks.

In: an amplifier (opened here, reopened by serial number after it left), requests with their futures, an agenda of
requests at samples.  Out: everything through the bus.  Always: requests run between two blocks, or exactly at
their `at_sample`; a lost device leaves the room standing, disarmed, with an alarm; a device that is there and gives
nothing is reset and reopened once, then given up and reported; nobody blocks this thread.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from ionmd.commands.base import Desk
from ionmd.commands.planned import Planned
from ionmd.commands.table import Reply
from ionmd.drivers.base import Amplifier, Identity, Remembered
from ionmd.errors import DeviceError, DeviceGone, IonmdError
from ionmd.model import Block, DeviceStatus, Gap
from ionmd.pipeline import Pipeline
from ionmd.room.outside import happened
from ionmd.service.backend import Call
from ionmd.timers import HEARTBEAT_MS, NO_DATA_ALARM_MS

log = structlog.get_logger()
RETRY_S = 0.2  # between looks for an absent device
IDLE_S = 0.05
BLOCK_S = 0.025  # capacity of the working block; a quantum is shorter
REOPEN_S = 2.0  # without samples: a wedged endpoint does not come back by waiting


class Engine:
    """One per daemon; `start` makes the thread, `stop` ends it with everything off."""

    def __init__(
        self, pipeline: Pipeline, desk: Desk, make_amplifier: Callable[[], Amplifier], serial: str | None,
        speed: float | None = 1.0, duration_s: float | None = None,
        on_device: Callable[[DeviceStatus], None] | None = None, wait_room: Callable[[], None] | None = None,
    ) -> None:
        """speed: device seconds per second, None when the device owns virtual time.  duration_s: device seconds.
        wait_room: at virtual speed, wait for the disk."""
        self._pipeline, self._desk, self._room = pipeline, desk, pipeline.room
        self._make, self._serial, self._speed = make_amplifier, serial, speed
        self._duration_s = duration_s
        self._on_device, self._wait_room = on_device, wait_room
        self._made: Amplifier | None = None  # stays over a lost cable: its counters and its position do
        self._amplifier: Amplifier | None = None  # while open
        self._identity: Identity | None = None
        self._block: Block | None = None
        self._session = (-1, -1)  # device session, boot id
        self._inbox: deque[Callable[[], None]] = deque()
        self._planned = Planned(desk)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._fresh = True  # no block of this connection has come yet
        self._last_data_s = 0.0  # or of the opening of a connection
        self._silent = self._reopened = self._given_up = False  # since samples last came
        self._hole = (Gap.NONE, 0)  # before rows that have not come yet
        self._resume_at = 0  # case sample of these rows
        self._next_try_s = 0.0
        self._last_beat_s = 0.0
        self._first_sample: int | None = None
        self.ticks = 0  # the watchdog's proof that this stage lives
        self.finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    # ------------------------------------------------------------ any thread

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self.wake()
        self._thread.join(timeout=10.0)

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def post(self, action: Callable[[], None]) -> None:
        """Run on the pipeline thread between two blocks."""
        self._inbox.append(action)
        self.wake()

    def request(self, call: Call, reply: Reply) -> None:
        """Queue a request; with `at_sample` it runs exactly when that sample is the next one."""
        self.post(lambda: self._planned.take(call, reply))

    # ------------------------------------------------------------ requests

    def _do_inbox(self) -> None:
        while self._inbox:
            action = self._inbox.popleft()
            try:
                action()
            except IonmdError as error:
                log.warning("request_failed", error=str(error))
            except Exception:
                log.exception("request_crashed")

    # ------------------------------------------------------------ the loop

    def _run(self) -> None:
        try:
            while not self._stopping and not self._over():
                self.ticks += 1
                self._do_inbox()
                self._planned.run_due()
                self._room.stimulation.watch_lease()
                if self._amplifier is None:
                    self._connect()
                if self._amplifier is None or not self._read():
                    self._idle()
        except Exception:
            log.exception("pipeline_failed")
            raise
        finally:
            self._room.control.off()
            self._do_inbox()
            self._close()
            self.finished.set()

    def _over(self) -> bool:
        if self._duration_s is None or self._first_sample is None:
            return False
        return self._room.now - self._first_sample >= self._duration_s * self._room.rate_hz

    def _idle(self) -> None:
        fds = [self._wake]
        amplifier = self._amplifier
        if amplifier is not None and amplifier.fileno() >= 0:
            fds.append(amplifier.fileno())
        # a device without a descriptor waits for our heartbeat only: do not sleep on it
        wait = IDLE_S if amplifier is None or len(fds) > 1 else 0.002
        readable, _, _ = select.select(fds, [], [], wait)
        if self._wake in readable:
            os.eventfd_read(self._wake)
        if amplifier is not None:
            now = time.monotonic()
            if now - self._last_beat_s >= HEARTBEAT_MS / 1000.0:
                self._last_beat_s = now
                self._room.stimulation.beat()
            self._supervise(now)

    def _supervise(self, now: float) -> None:
        """No samples for too long is an alarm, then a reason to open the device again, then to give it up; all of it
        ends with the next block."""
        if not self._last_data_s:
            return
        room, silent_s = self._room, now - self._last_data_s
        if not self._silent and silent_s > NO_DATA_ALARM_MS / 1000.0:
            since_s = self._last_data_s
            self._flush()
            self._silent, self._last_data_s = True, since_s
            happened(room, "no_data")
            self._tell("stalled")
        elif self._silent and not self._reopened and silent_s > REOPEN_S:
            log.warning("device_reopened", silent_s=round(silent_s, 1))
            if self._amplifier is not None:
                self._amplifier.reset()
            self._drop("device_reset", "no samples arrived: the device is reset and opened again")
            self._silent = self._reopened = True
        elif self._reopened and not self._given_up and silent_s > REOPEN_S:
            self._given_up = True
            happened(room, "device_stuck")
            self._tell("failed", "no samples, also after a reset")

    def _samples_again(self) -> None:
        self._silent = self._reopened = self._given_up = False
        happened(self._room, "data_again")
        self._tell("streaming")

    # ------------------------------------------------------------ device

    def device_status(self) -> DeviceStatus:
        """The state told last with the counters of now.  Pipeline thread."""
        told = self._room.device
        if self._made is None:
            return told
        return msgspec.structs.replace(self._made.status(), state=told.state, detail=told.detail)

    def _tell(self, state: str, detail: str = "") -> None:
        room = self._room
        status = self._made.status() if self._made is not None else DeviceStatus(state)
        room.device = msgspec.structs.replace(status, state=state, detail=detail)
        room.bus.emit("device", room.device)
        room.tell_monitoring()
        if self._on_device is not None:
            self._on_device(room.device)

    def _connect(self) -> None:
        now = time.monotonic()
        if now < self._next_try_s:
            return
        self._next_try_s = now + RETRY_S
        if self._made is None:
            self._made = self._make()
            self._made.pace(self._speed)
        amplifier, room = self._made, self._room
        try:
            identity = amplifier.open(self._serial)
            stride = (len(identity.inputs) + 15) // 16 * 16
            self._pipeline.begin(len(identity.inputs), stride, identity.rate_hz)
            room.lsb_uv = [i.lsb_uv for i in identity.inputs]
            room.input_labels = [i.label for i in identity.inputs]
            room.source = identity.source  # type: ignore[assignment]
            self._block = Block(max(1, round(BLOCK_S * identity.rate_hz)), len(identity.inputs), identity.rate_hz)
            self._identity = identity
            self._fresh = True
            self._hole, self._resume_at = (Gap.NONE, 0), 0
            room.clock.unmap()
            stimulator = amplifier.stimulator()
            remembered = stimulator.remembered() if stimulator is not None else Remembered()
            room.control.attach(stimulator)
            amplifier.start()
        except (DeviceGone, DeviceError) as error:
            room.control.attach(None)
            amplifier.close()
            state = "foreign" if "expected" in str(error) and isinstance(error, DeviceGone) else (
                "absent" if isinstance(error, DeviceGone) else "failed")
            if (state, str(error)) != (room.device.state, room.device.detail):
                self._tell(state, str(error))
            return
        self._amplifier = amplifier
        self._serial = self._serial or identity.serial  # from now on only this unit, until the operator says otherwise
        self._last_data_s = time.monotonic()
        self._tell("stalled" if self._silent else "streaming")
        happened(room, "device_back", stimulator=room.control.attached, trip_reason=remembered.trip_reason,
                 nonce=remembered.nonce)  # fmt: skip

    def _lost(self, error: IonmdError) -> None:
        self._reopened = self._given_up = False  # another connection, another chance
        self._drop("device_lost", str(error))

    def _drop(self, fact: str, why: str) -> None:
        """The connection ends: what came is processed, then disarmed, closed, and looked for again at once."""
        self._flush()
        happened(self._room, fact, text=why)
        self._close()
        self._tell("lost", why)
        self._next_try_s = 0.0

    def _close(self) -> None:
        amplifier, self._amplifier = self._amplifier, None
        if amplifier is not None:
            amplifier.stop()
            amplifier.close()

    # ------------------------------------------------------------ blocks

    def _read(self) -> bool:
        """One quantum if it is complete; False when more must arrive."""
        room, block, amplifier, identity = self._room, self._block, self._amplifier, self._identity
        if block is None or amplifier is None or identity is None:
            return False
        clock = room.clock
        quantum = room.quantum
        next_sample = max(clock.next_sample, self._resume_at)
        limit = (next_sample // quantum + 1) * quantum
        if (planned := self._planned.next_sample) is not None:
            limit = min(limit, max(planned, next_sample + 1))
        # the counter of a fresh stream may stand anywhere: its first block ends by its capacity
        try:
            if not amplifier.read_into(block, None if self._fresh else clock.to_device(limit)):
                return False
        except (DeviceGone, DeviceError) as error:
            self._lost(error)
            return False
        if block.n:
            self._take_rows(block, identity)
        else:  # every sample up to the limit is lost: what is known of the hole belongs to the rows after it
            self._hole = (self._hole[0] | block.gap, self._hole[1] + block.lost)
            self._resume_at = clock.to_case(block.first)
        return True

    def _flush(self) -> None:
        """Rows of a quantum that will not become complete are samples all the same."""
        block, identity = self._block, self._identity
        if block is not None and identity is not None and block.n:
            self._take_rows(block, identity)

    def _take_rows(self, block: Block, identity: Identity) -> None:
        """With what is known to be missing before them."""
        if self._hole[0] or self._hole[1]:
            block.gap, block.lost = block.gap | self._hole[0], block.lost + self._hole[1]
            self._hole = (Gap.NONE, 0)
        self._take(block, identity)
        block.clear()

    def _take(self, block: Block, identity: Identity) -> None:
        room, clock = self._room, self._room.clock
        now = time.monotonic()
        self._last_data_s = self._last_beat_s = now
        self._fresh = False
        session = (block.session, block.boot_id)
        if session != self._session:
            line = clock.begin_session(
                block.session, block.boot_id, block.first, identity.rate_hz, now, self._speed, identity.serial
            )
            self._session = session
            block.lost, block.gap = line.gap_samples, block.gap | Gap.SESSION
            if line.gap_samples:
                block.gap |= Gap.LOST
            if not line.gap_exact:
                block.gap |= Gap.ESTIMATED
            room.now = room.bus.sample = line.sample
            self._pipeline.session(line, identity.serial)
        block.device_first = block.first
        clock.advance(block.first + block.n, now)
        block.first = clock.to_case(block.first)
        if self._first_sample is None:
            self._first_sample = block.first
        if self._silent:
            self._samples_again()
        self._pipeline.process(block)
        if self._wait_room is not None:
            self._wait_room()
