"""The watchdog's question: is every stage alive; asked of a real daemon whose stages are blocked one by one."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from ionmd.agenda import SCRIPT
from ionmd.case.files import OsFiles
from ionmd.case.timedfiles import TimedFiles
from ionmd.config import Config, Device
from ionmd.daemon import Daemon
from ionmd.drivers.demo import Demo
from ionmd.service.backend import Call
from ionmd.service.health import Health, Stage
from ionmd.service.schema import METHODS

ROOT = Path(__file__).parents[1]


class Gate:
    """Something to block a stage with."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, *_: object, **__: object) -> None:
        self.entered.set()
        self.open.wait(30)


class SlowDisk(OsFiles):
    """Blocks in the next fsync when told to."""

    gate: Gate | None = None

    def fsync(self, fd: int) -> None:
        if self.gate is not None:
            self.gate()
        super().fsync(fd)


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def disk():
    return SlowDisk()


@pytest.fixture
def daemon(tmp_path, gate, disk):
    device = Device(driver="demo", inputs=8, rate_hz=10_000, block_samples=100)
    config = msgspec.structs.replace(Config(), device=device)
    streaming = threading.Event()
    running = Daemon(config, tmp_path, speed=1.0, make_amplifier=lambda wanted: Demo(wanted, "quiet", 1), files=disk,
                     on_event=lambda topic, data, sample, n: streaming.set() if topic == "device" else None)
    running.start()
    assert streaming.wait(20)
    yield running
    gate.open.set()
    running.stop()


def sign_in(daemon: Daemon, name: str):
    return ask(daemon, "person.sign_in", name=name)


def ask(daemon: Daemon, method: str, **params: object):
    return daemon.submit(Call(method, msgspec.convert(params, METHODS[method].params), SCRIPT))


def test_a_stage_with_input_that_consumes_none_is_stuck_after_half_a_second():
    work, done = [1], [0]
    health = Health([Stage("idle", lambda: False, lambda: 0), Stage("busy", lambda: bool(work), lambda: done[0])])
    assert health.stuck(10.0) == [] and health.stuck(10.4) == []
    assert health.stuck(10.6) == ["busy"]
    done[0] += 1
    assert health.stuck(10.7) == [] and health.stuck(11.1) == [] and health.stuck(11.2) == ["busy"]
    work.clear()
    assert health.stuck(11.3) == []


def test_a_pipeline_that_hangs_is_stuck_even_with_nothing_to_do(daemon, gate):
    daemon.engine.post(gate)
    assert gate.entered.wait(20) and daemon.recorder.drain(20)
    daemon.look(1.0)  # its first look: all that comes later than this is too late
    assert "pipeline" not in daemon.look(1.4) and "pipeline" in daemon.look(1.6)


def test_a_control_thread_that_hangs_is_stuck(daemon, gate):
    daemon.control.reset(0, gate)  # refused by the device; the answer blocks the thread
    assert gate.entered.wait(20)
    daemon.look(1.0)
    assert "control" in daemon.look(1.6)


def test_a_journal_that_waits_for_the_disk_is_not_stuck_but_an_alarm(daemon, gate, disk, monkeypatch):
    sign_in(daemon, "Kim").result(20)
    disk.gate = gate
    second = sign_in(daemon, "Lee")
    assert gate.entered.wait(20)
    daemon.look(1.0)
    assert "journal" not in daemon.look(9.0)  # it waits, it does not hang
    before = daemon.files.now_s
    monkeypatch.setattr(daemon.files, "now_s", lambda: before() + 3.0)
    daemon.look(9.1)
    called = ask(daemon, "alarm.list").result(20)
    assert [a.code for a in called.alarms] == ["record.disk_slow"]
    monkeypatch.undo()
    disk.gate = None
    gate.open.set()
    second.result(20)
    daemon.look(9.2)


def test_a_journal_thread_that_never_comes_back_is_stuck(daemon, gate):
    sign_in(daemon, "Kim").result(20)
    daemon.engine.post(lambda: daemon.recorder.journal("audit", 0, {"denied": "test", "uid": 0}, gate))
    assert gate.entered.wait(20)
    sign_in(daemon, "Max")  # its line is handed in on the pipeline thread and stays where it is
    ask(daemon, "status").result(20)
    daemon.look(1.0)
    assert "journal" in daemon.look(1.6)


def test_calls_to_the_disk_are_timed_for_each_thread(tmp_path):
    now = [5.0]
    inner = SlowDisk()
    files = TimedFiles(inner, lambda: now[0])
    inner.gate = Gate()
    fd = files.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    thread = threading.Thread(target=files.fsync, args=(fd,), name="writer")
    thread.start()
    assert inner.gate.entered.wait(20)
    now[0] = 7.5
    assert (files.waiting_s(), files.inside("writer"), files.inside("other")) == (2.5, True, False)
    inner.gate.open.set()
    thread.join(20)
    assert files.waiting_s() == 0.0
    os.close(fd)


def test_without_a_device_the_daemon_is_ready_and_feeds_the_watchdog(tmp_path):
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "n"))
    notify.settimeout(30)
    child = subprocess.Popen(
        [sys.executable, "-m", "ionmd", "run", "--socket", str(tmp_path / "s"), "--state-dir", str(tmp_path / "state")],
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "n")}, cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )
    try:
        said = ""
        while "WATCHDOG=1" not in said:
            said += notify.recv(4096).decode() + "\n"
        assert said.startswith("READY=1\nSTATUS=device absent") and "stuck" not in said
        done = subprocess.run([sys.executable, "-m", "ionmd", "status", "--socket", str(tmp_path / "s")],
                              capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert (done.returncode, done.stdout) == (4, "") and "group" in done.stderr  # no rights without groups
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0, child.stderr.read()
        notify.close()
