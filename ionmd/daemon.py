"""The daemon without its process: recorder, control thread, pipeline thread and socket put together.

Tests and `demo` use it as it is; process.py adds signals, READY and the watchdog.
"""

from __future__ import annotations

import gc
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path

import structlog

from ionmd import __version__, catalog
from ionmd.agenda import Step, scripted
from ionmd.case.files import Files, OsFiles
from ionmd.case.recorder import Recorder
from ionmd.case.timedfiles import TimedFiles
from ionmd.case.troubles import Trouble
from ionmd.commands.base import Desk
from ionmd.config import Config
from ionmd.drivers.base import Amplifier, DeviceConfig
from ionmd.drivers.registry import amplifier_class
from ionmd.engine import Engine
from ionmd.errors import ConfigError
from ionmd.metrics import Metrics
from ionmd.model import DeviceStatus
from ionmd.pipeline import Pipeline
from ionmd.room.bus import Bus
from ionmd.room.outside import happened
from ionmd.room.room import Room
from ionmd.service.backend import Call, Caller, Limits, StreamSource, StreamSpec
from ionmd.service.health import Health, Stage
from ionmd.service.server import Server
from ionmd.stim.control import Control
from ionmd.stim.control import Trouble as ControlTrouble
from ionmd.stim.outputs import ceilings_of, device_config
from ionmd.store import Store
from ionmd.streams import Streams
from ionmd.testdef import Template
from ionmd.timers import STAGE_STUCK_MS

log = structlog.get_logger()
DISK_SLOW_S = 2.0  # a call to the disk that takes longer is told
SWITCH_S = 0.0005  # the pipeline thread must not wait 5 ms for the interpreter


def _live_class(driver: str) -> Callable[[DeviceConfig], Amplifier]:
    found = amplifier_class(driver)
    if not found.live:
        raise ConfigError(f"device.driver: {driver} came, which plays files (`ionmd {driver} FILE`); a driver of an "
                          "amplifier was expected")  # fmt: skip
    return found


class Daemon:
    """Everything but the process."""

    def __init__(
        self, config: Config, state_dir: Path, *, speed: float | None = 1.0, duration_s: float | None = None,
        make_amplifier: Callable[[DeviceConfig], Amplifier] | None = None, agenda: list[Step] | None = None,
        on_event: Callable[[str, object, int, int | None], None] | None = None,
        templates: dict[str, Template] | None = None, files: Files | None = None,
    ) -> None:
        self.config = config
        self.boot_id = uuid.uuid4().hex
        self.virtual = speed is None  # the device owns time and waits for us
        self._on_event = on_event
        self._disk_slow = False
        self.files = TimedFiles(files or OsFiles())
        self.recorder = Recorder(
            state_dir, self.files, on_committed=self._committed, on_trouble=self._recorder_trouble,
            sync_s=config.record.sync_s,
            segment_bytes=config.record.segment_mib << 20, reserve_bytes=config.record.reserve_mib << 20,
        )
        self.control = Control(self._control_trouble)
        self._templates = templates or catalog.templates()
        bus = Bus(self.recorder.journal, self._publish)
        self.room = Room(bus, self.control, catalog.tests(), self._templates, float(config.device.mains_hz))
        self.room.ceilings = ceilings_of(config)
        self.streams = Streams(self.room)
        self.metrics = Metrics(self.room, self.recorder.stats, lambda: self.server.stats())
        self.pipeline = Pipeline(self.room, [self.recorder.raw, self.streams.push, self.metrics.push])
        self.pipeline.after += [self.streams.after, self.metrics.after]
        speed_name = "max" if speed is None else f"{speed:g}"
        store = Store(self.recorder, self.room, self.virtual, self._case_is)
        self.desk = Desk(self.room, store, lambda action: self.engine.post(action), __version__,
                         self.boot_id, speed_name, config.case.template, lambda: self.engine.device_status())
        template = self._templates.get(config.case.template) or next(iter(self._templates.values()))
        wanted = device_config(config, template)
        make: Callable[[DeviceConfig], Amplifier] = make_amplifier or _live_class(config.device.driver)
        self.engine = Engine(
            self.pipeline, self.desk, lambda: make(wanted), config.device.serial or None, speed, duration_s,
            self._device, (lambda: None) if speed is not None else self._let_disk_keep_up,
        )
        self.server = Server(self, version=__version__, boot_id=self.boot_id, source="device",
                             limits=Limits(connections=config.service.max_clients), on_denied=self._denied)
        self.health = Health([
            Stage("pipeline", lambda: True, lambda: self.engine.ticks),
            Stage("control", lambda: self.control.backlog > 0, lambda: self.control.done),
            Stage("journal", self._journal_waits, self._journal_done),
            Stage("samples", self._samples_wait, self._samples_done, config.record.sync_s + STAGE_STUCK_MS / 1000.0),
        ])
        for step in agenda or []:
            self.script(step)

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Threads; raises StorageError when the state directory is in use."""
        self.recorder.start()
        self.control.start()
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(SWITCH_S)
        self.engine.start()

    def stop(self) -> None:
        """Safe first, then the record."""
        self.control.off()
        self.engine.stop()
        self.control.stop()
        self.recorder.stop()

    def script(self, step: Step, done: Callable[[object, Exception | None], None] | None = None) -> None:
        """A request of the agenda.  Raises ConfigError."""

        def report(result: object, error: Exception | None) -> None:
            if error is not None:
                log.warning("agenda_refused", method=step.method, at_sample=step.at_sample, error=str(error))
            if done is not None:
                done(result, error)

        self.engine.request(scripted(step, self.room), report)

    # ------------------------------------------------------------ health

    def _journal_waits(self) -> bool:
        return self.recorder.stats().journal_pending > 0 and not self.files.inside("ionmd-journal")

    def _journal_done(self) -> int:
        stats = self.recorder.stats()
        return stats.journal_lines - stats.journal_pending

    def _samples_wait(self) -> bool:
        return self.recorder.stats().backlog_s > 0.0 and not self.files.inside("ionmd-raw")

    def _samples_done(self) -> int:
        stats = self.recorder.stats()
        return stats.raw_bytes + stats.shed_samples

    def look(self, now_s: float) -> list[str]:
        """Stages that are stuck; a disk that does not answer is an alarm instead, for as long as it lasts."""
        slow = self.files.waiting_s()
        if (slow > DISK_SLOW_S) is not self._disk_slow:
            self._disk_slow = not self._disk_slow
            words = f"The disk has not answered for {slow:.0f} s" if self._disk_slow else "The disk answers again"
            self._recorder_trouble(Trouble(
                "disk_slow", self._disk_slow, f"{words}: the record waits in memory." if self._disk_slow else words, ""
            ))
        return self.health.stuck(now_s)

    # ------------------------------------------------------------ Backend (service thread)

    def submit(self, call: Call) -> Future[object]:
        future: Future[object] = Future()

        def reply(result: object, error: Exception | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.engine.request(call, reply)
        return future

    def stim_off(self, caller: Caller) -> None:
        self.control.off()
        self.engine.post(lambda: happened(self.room, "stim_off", reason=f"stim off by uid {caller.uid}"))

    def lease_lost(self, connection_id: int, reason: str) -> None:
        def check() -> None:
            holder = self.room.stimulation.lease.holder
            if holder is not None and holder.connection == connection_id:
                happened(self.room, "lease_lost", reason=reason)

        # the outputs go off at once; whose lease it was is looked at on the pipeline thread
        holder = self.room.stimulation.lease.holder
        if holder is not None and holder.connection == connection_id:
            self.control.off()
        self.engine.post(check)

    def open_stream(self, spec: StreamSpec) -> StreamSource:
        return self.streams.open(spec)

    # ------------------------------------------------------------ outlets

    def _publish(self, topic: str, data: object, sample: int, n: int | None, key: str | None) -> None:
        self.server.publish(topic, data, sample, n, key)
        if self._on_event is not None:
            self._on_event(topic, data, sample, n)

    def _committed(self, case_id: str, n: int) -> None:
        if case_id:
            self.server.committed(n)

    def _case_is(self, case_id: str | None) -> None:
        self.server.announce(case_id=case_id)

    def _device(self, status: DeviceStatus) -> None:
        self.server.announce(source=self.room.source, device_state=status.state)

    def _let_disk_keep_up(self) -> None:
        self.recorder.wait_room(5.0)

    def _recorder_trouble(self, trouble: Trouble) -> None:
        self.engine.post(lambda: happened(self.room, "record", **asdict(trouble)))

    def _control_trouble(self, trouble: ControlTrouble) -> None:
        log.warning("device_request_failed", what=trouble.what, slot=trouble.slot, reason=trouble.reason,
                    text=trouble.text)
        self.engine.post(lambda: happened(self.room, "device_refused", **asdict(trouble)))

    def _denied(self, caller: Caller, method: str) -> None:
        def note() -> None:
            self.room.bus.journal("audit", {"denied": method, "uid": caller.uid})

        self.engine.post(note)
