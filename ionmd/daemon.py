"""The process: configuration, recorder, control thread, pipeline thread, socket, systemd, signals.

`Daemon` is all of it without the process (tests and `demo` use it); `run` adds signals, READY and the watchdog.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog

from ionmd import __version__, catalog
from ionmd.case.earlier import ResumePoint
from ionmd.case.files import Files, OsFiles
from ionmd.case.recorder import Recorder
from ionmd.case.timedfiles import TimedFiles
from ionmd.case.troubles import Trouble
from ionmd.commands.base import Desk
from ionmd.config import Config
from ionmd.drivers.base import Amplifier, DeviceConfig, OutputConfig
from ionmd.drivers.registry import amplifier_class
from ionmd.engine import Engine
from ionmd.errors import NO_DEVICE, ConfigError, IonmdError, Refused, StorageError
from ionmd.metrics import Metrics
from ionmd.model import DeviceStatus
from ionmd.pipeline import Pipeline
from ionmd.room.bus import Bus
from ionmd.room.outside import happened
from ionmd.room.room import Room
from ionmd.service import notify
from ionmd.service.backend import Call, Caller, Limits, StreamSource, StreamSpec
from ionmd.service.bind import bind
from ionmd.service.health import Health, Stage
from ionmd.service.schema import METHODS
from ionmd.service.server import Server
from ionmd.stim.control import Control
from ionmd.stim.control import Trouble as ControlTrouble
from ionmd.stim.limits import BY_NAME
from ionmd.streams import Streams
from ionmd.testdef import Template
from ionmd.timers import STAGE_STUCK_MS

log = structlog.get_logger()
LOOK_S = 0.1  # between looks at the stages
DISK_SLOW_S = 2.0  # a call to the disk that takes longer is told
SWITCH_S = 0.0005  # the pipeline thread must not wait 5 ms for the interpreter
SCRIPT = Caller(0, os.getuid(), os.getgid(), frozenset({"view", "operate", "stim", "oversee", "admin"}))


@dataclass(frozen=True)
class Step:
    """One request of an agenda: what a scenario's operator does at a sample."""

    at_sample: int
    method: str
    params: dict[str, Any] = field(default_factory=dict)


def ceilings_of(config: Config) -> dict[str, float]:
    """Kind of output -> the cart's ceiling, mA or V."""
    limits = config.limits
    return {"transcutaneous": limits.transcutaneous_ma, "transcranial": limits.transcranial_v, "probe": limits.probe_ma}


def device_config(config: Config, template: Template) -> DeviceConfig:
    """What the device must be: the configured shape, and the outputs of the template's stimulator table."""
    jacks = {o.jack: o for o in template.output}
    ceilings = ceilings_of(config)
    outputs = []
    for jack in range(max(jacks, default=-1) + 1):
        output = jacks.get(jack)
        if output is None or not (ceilings[output.kind] > 0.0):  # to the device a ceiling of 0 is none at all
            outputs.append(OutputConfig(0))
            continue
        ceiling = min(output.max_amplitude or ceilings[output.kind], ceilings[output.kind])
        kind = BY_NAME[output.kind].kind
        outputs.append(OutputConfig(kind, output.connection == "hand-held probe", round(ceiling * 1000)))
    d = config.device
    return DeviceConfig(d.inputs, d.rate_hz, d.block_samples, tuple(outputs))


class _Store:
    """The recorder as the request handlers see it."""

    def __init__(self, recorder: Recorder, daemon: Daemon) -> None:
        self._recorder, self._daemon = recorder, daemon

    def prepare_resume(self, case_id: str, done: Callable[[object, IonmdError | None], None]) -> None:
        def prepare() -> None:
            try:
                done(self._recorder.prepare_resume(case_id), None)
            except StorageError as error:
                done(None, Refused(str(error), 1002))

        if self._daemon.virtual:
            prepare()  # the device waits, and the sample at which the case opens does not depend on the disk
        else:
            self._recorder.background(prepare)

    def open_case(self, case_id: str, header: dict[str, Any], resume: object | None) -> int:
        room = self._daemon.room
        labels = _input_names(room, header)
        try:
            if isinstance(resume, ResumePoint):
                point = self._recorder.resume_case(
                    case_id, labels or None, room.lsb_uv or 0.03125, room.rate_hz, prepared=resume
                )
                room.clock.rebase(max(point.end_sample, room.clock.next_sample))
                self._daemon.server.announce(case_id=case_id)
                return room.clock.next_sample
            if not labels:
                raise Refused("no amplifier has answered yet: its inputs must be known to open a case", NO_DEVICE)
            self._recorder.open_case(case_id, header, labels, room.lsb_uv, room.rate_hz)
        except StorageError as error:
            raise Refused(str(error), 1002) from error
        self._daemon.server.announce(case_id=case_id)
        return room.now

    def close_case(self, state: str) -> None:
        self._recorder.close_case(state, sample=self._daemon.room.now)
        self._daemon.server.announce(case_id=None)

    def list_cases(self, done: Callable[[list[dict[str, Any]], IonmdError | None], None]) -> None:
        from ionmd.case.listing import list_cases

        def job() -> None:
            try:
                done(list_cases(self._recorder.state_dir), None)
            except StorageError as error:
                done([], error)

        self._recorder.background(job)

    def path(self, case_id: str) -> str:
        return str(self._recorder.state_dir / "cases" / case_id)

    def recording(self) -> dict[str, Any]:
        stats = self._recorder.stats()
        return {f: getattr(stats, f) for f in stats.__dataclass_fields__}


def _input_names(room: Room, header: dict[str, Any]) -> list[str]:
    """Electrode labels where the montage has them, the amplifier's own elsewhere: what the BDF+ file shows."""
    template = room.templates.get(header.get("template", ""))
    names = list(room.input_labels)
    for electrode in template.electrode if template is not None else []:
        column = header.get("montage", {}).get(electrode.label, electrode.input)
        if column < len(names):
            names[column] = electrode.label[:16]
    return names


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
        self.desk = Desk(self.room, _Store(self.recorder, self), lambda action: self.engine.post(action), __version__,
                         self.boot_id, speed_name, config.case.template, lambda: self.engine.device_status())
        template = self._templates.get(config.case.template) or next(iter(self._templates.values()))
        wanted = device_config(config, template)
        make: Callable[[DeviceConfig], Amplifier] = make_amplifier or amplifier_class(config.device.driver)
        self.engine = Engine(
            self.pipeline, self.desk, lambda: make(wanted), config.device.serial or None, speed, duration_s,
            self._device, None, (lambda: None) if speed is not None else self._let_disk_keep_up,
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
        """A request of the agenda, by the daemon's own script (connection 0)."""
        try:
            params = msgspec.convert({**step.params, "at_sample": step.at_sample}, METHODS[step.method].params)
        except KeyError:
            known = ", ".join(sorted(METHODS))
            raise ConfigError(f"agenda: method {step.method!r} came, expected one of {known}") from None
        except msgspec.ValidationError as e:
            raise ConfigError(f"agenda: {step.method} at sample {step.at_sample}: {e}") from None
        lease = getattr(params, "lease", None)
        call = Call(step.method, params, SCRIPT)

        def report(result: object, error: Exception | None) -> None:
            if error is not None:
                log.warning("agenda_refused", method=step.method, at_sample=step.at_sample, error=str(error))
            if done is not None:
                done(result, error)

        if "script" in (lease, getattr(params, "token", None)):  # the agenda cannot know what the script holds by then
            self.engine.request(_Scripted(call, self.room), report)  # type: ignore[arg-type]
        else:
            self.engine.request(call, report)

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


class _Scripted:
    """A scripted call whose lease or arm token is whatever the script holds when its sample comes."""

    def __init__(self, call: Call, room: Room) -> None:
        self._call, self._room = call, room
        self.method, self.caller = call.method, call.caller

    @property
    def params(self) -> Any:
        params, stimulation = self._call.params, self._room.stimulation
        if getattr(params, "token", None) == "script":
            manual = stimulation.by_hand.manual
            return msgspec.structs.replace(params, token=manual.token if manual else "none")
        return msgspec.structs.replace(params, lease=stimulation.lease.id or None)


def run(
    config: Config, *, socket_paths: list[Path], state_dir: Path, speed: float | None = 1.0,
    duration_s: float | None = None, agenda: list[Step] | None = None,
    on_event: Callable[[str, object, int, int | None], None] | None = None,
    make_amplifier: Callable[[DeviceConfig], Amplifier] | None = None,
    on_ready: Callable[[Path | None], None] | None = None,
) -> int:
    """Until SIGTERM, SIGINT or the end of `duration_s`; the exit code.  on_ready: the socket answers from now on."""
    daemon = Daemon(config, state_dir, speed=speed, duration_s=duration_s, agenda=agenda, on_event=on_event,
                    make_amplifier=make_amplifier)
    try:
        return asyncio.run(_serve(daemon, socket_paths, on_ready))
    except IonmdError as error:
        print(f"ionmd: {error}", file=sys.stderr)
        return error.exit_code


async def _serve(daemon: Daemon, socket_paths: list[Path], on_ready: Callable[[Path | None], None] | None) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    bound = bind(socket_paths, int(daemon.config.service.socket_mode, 8))
    try:
        daemon.start()
    except IonmdError:
        bound.close()
        raise
    try:
        await daemon.server.start(bound.socket)
        notify.notify(READY=1, STATUS=f"device {daemon.room.device.state}")
        if on_ready is not None:
            on_ready(bound.path)
        watchdog = asyncio.create_task(_watchdog(daemon))
        finished = asyncio.create_task(asyncio.to_thread(daemon.engine.finished.wait))
        await asyncio.wait([asyncio.create_task(stopping.wait()), finished], return_when=asyncio.FIRST_COMPLETED)
        notify.notify(STOPPING=1)
        watchdog.cancel()
        daemon.control.off()
        await daemon.server.close()
    finally:
        await asyncio.to_thread(daemon.stop)
        bound.close()
    return 0


async def _watchdog(daemon: Daemon) -> None:
    """Tell systemd that we live, while no stage is stuck.  This runs on the service thread: when that one is stuck,
    nothing is told either."""
    told = ""
    while True:
        await asyncio.sleep(LOOK_S)
        stuck = daemon.look(time.monotonic())
        if not stuck:
            notify.notify(WATCHDOG=1)
        words = f"stuck: {', '.join(stuck)}" if stuck else f"device {daemon.room.device.state}"
        if words != told:
            told = words
            notify.notify(STATUS=words)
            if stuck:
                log.error("stage_stuck", stages=stuck)
