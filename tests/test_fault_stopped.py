"""A daemon that the system stops (faults F11, T04): the unit goes safe by itself, and what was lost is told exactly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from firmware_sim.launch import Simulator
from tests.usb_daemon import RATE, UsbDaemon, opening
from tests.usb_rig import LIMIT_S, ROOT

SAFE, ARMED, FIRING = 0, 2, 3
INPUTS = 64  # 1.9 MB/s: the FIFO holds half a second


def child() -> None:
    """Stimulates, says so, is stopped and continued from outside, and tells what it saw."""
    with UsbDaemon(opening(500, 1000), speed=1.0, inputs=INPUTS) as d:
        d.wait(lambda: sum(bool(line.zero_sample) for line in d.room.deliveries._last.values()) and d.room.now > 8000)
        print("stimulating", flush=True)
        d.wait(lambda: d.gaps() and d.alarms("stimulation.stopped"), 60)
        d.reach(d.room.now + RATE)
    print(json.dumps({
        "gaps": d.gaps(), "lost": d.lost(), "dropped": d.stats().errors.get("dropped_blocks", 0) * 20,
        "whole": d.whole(), "alarm": d.alarms("stimulation.stopped")[0].sentence,
        "lease": d.room.stimulation.lease.holder is not None, "states": d.states(),
    }), flush=True)  # fmt: skip


@pytest.mark.usb
def test_a_stopped_daemon_leaves_a_safe_unit_within_500_ms_and_an_exact_gap():
    with Simulator(speed=1.0, inputs=INPUTS, rate_hz=RATE, block_samples=20, seed=3) as sim:
        command = [sys.executable, "-c", "import tests.test_fault_stopped as m; m.child()"]
        with subprocess.Popen(command, env=sim.env(), cwd=ROOT, stdout=subprocess.PIPE, text=True) as daemon:
            assert daemon.stdout is not None
            try:
                line = "\n"
                while line and line != "stimulating\n":
                    line = daemon.stdout.readline()
                assert line, "the daemon ended before it stimulated"
                while sim.state()["stim_state"] not in (ARMED, FIRING):
                    pass
                os.kill(daemon.pid, signal.SIGSTOP)
                stopped = sim.state()["sample"]
                while (now := sim.state())["sample"] < stopped + RATE // 2:
                    pass
                assert now["stim_state"] == SAFE
                pulses = now["pulses"]
                while (now := sim.state())["sample"] < stopped + 2 * RATE:
                    pass
                assert now["pulses"] == pulses
                os.kill(daemon.pid, signal.SIGCONT)
                *_, last = daemon.communicate(timeout=3 * LIMIT_S)[0].splitlines()
            finally:
                if daemon.poll() is None:
                    os.kill(daemon.pid, signal.SIGCONT)
                    daemon.kill()
    seen = json.loads(last)
    assert seen["dropped"] > 0 and seen["lost"] == seen["dropped"] and seen["whole"]
    assert all(gap["exact"] for gap in seen["gaps"])
    assert "watchdog" in seen["alarm"] or "silent" in seen["alarm"]
    assert "lost" not in seen["states"]
