"""`ionmd-sim` as a process: its ready line, its refusals, its end; and the helper that starts it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_sim import shim
from firmware_sim.launch import Simulator

COMMAND = [sys.executable, "-m", "firmware_sim.cli"]


@pytest.mark.parametrize(
    "options, says",
    [
        (["--speed", "0"], "0.01..1000, or max"),
        (["--speed", "nan"], "0.01..1000, or max"),
        (["--speed", "fast"], "0.01..1000, or max"),
        (["--listen", "udp:5"], "unix:PATH or tcp:PORT"),
        (["--listen", "tcp:0.0.0.0:5"], "loopback only"),
        (["--listen", "unix:/nonexistent/x"], "No such file"),
        (["--scenario", "no such"], "no such"),
        (["--scenario", "/nonexistent.toml"], "/nonexistent.toml"),
        (["--inputs", "65"], "--inputs"),
        (["--rate-hz", "999"], "--rate-hz"),
        (["--block-samples", "0"], "--block-samples"),
        (["--serial", "AMP-1"], "expected SIM-"),
        (["--frobnicate"], "No such option"),
    ],
)
def test_a_bad_option_ends_with_2_and_says_what_was_expected(options, says, tmp_path):
    listen = [] if "--listen" in options else ["--listen", f"unix:{tmp_path / 'usb'}"]
    done = subprocess.run([*COMMAND, *listen, *options], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert done.stdout == ""


@pytest.fixture
def started(tmp_path):
    command = [*COMMAND, "--listen", f"unix:{tmp_path / 'usb'}", "--listen", "tcp:0", "--with-parent", "--inputs", "8"]
    command += ["--shim-root", str(tmp_path / "r"), "--control", f"unix:{tmp_path / 'control'}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    yield process, json.loads(process.stdout.readline()), tmp_path
    process.stdin.close()
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "end of stdin"])
def test_it_ends_cleanly_and_removes_what_it_made(started, how):
    process, ready, tmp_path = started
    assert ready["ready"] is True
    assert ready["serial"] == "SIM-0001"
    for address in ready["listen"]:
        kind, _, where = address.partition(":")
        if kind == "tcp":
            socket.create_connection(("127.0.0.1", int(where.rpartition(":")[2]))).close()
    if how == "end of stdin":
        process.stdin.close()
    else:
        process.send_signal(getattr(signal, how))
    assert process.wait(10) == 0
    assert process.stderr.read() == b""
    assert not (tmp_path / "usb").exists()
    assert [d.name for d in (tmp_path / "r/sys/bus/usb/devices").iterdir()] == ["usb1"]


def test_the_launcher_gives_an_environment_a_fault_and_a_state_and_leaves_nothing():
    with Simulator(speed="max", seed=3, inputs=8, rate_hz=10_000) as sim:
        env = sim.env()
        assert Path(env["USBSHIM_SOCK"]).is_socket()
        assert Path(env["LD_PRELOAD"].split()[0]).resolve() == shim.path().resolve()
        sim.inject("unplug")
        assert sim.state()["address"] == 0
        with pytest.raises(ValueError, match="quake"):
            sim.inject("quake")
        pid, directory = sim.pid, sim.directory
    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    sim.stop()


def test_when_the_launching_process_is_killed_the_simulator_ends_and_removes_its_directory():
    source = "from firmware_sim.launch import Simulator; s = Simulator(inputs=8); s.start(); "
    source += "print(s.pid, s.directory, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid, directory = parent.stdout.readline().decode().split()
    watch = os.pidfd_open(int(pid))
    parent.kill()
    parent.wait()
    try:
        assert select.select([watch], [], [], 10)[0], "the simulator outlived its parent"
    finally:
        os.close(watch)
        parent.stdin.close()
        parent.stdout.close()
    assert not Path(directory).exists()


def test_the_launcher_repeats_the_simulators_own_words_when_it_does_not_start():
    with pytest.raises(RuntimeError, match=r"exit code 2.*no-such"):
        Simulator(scenario="no-such").start()
