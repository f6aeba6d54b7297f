"""A cart for a bench: the simulator, and the daemon started with a configuration file as on a real one.

In: scenario, speed, shape of the unit.  Out: the daemon's process (CPU, memory, threads as the kernel counts them),
clients on its socket, the record it left.  Nothing of the daemon is imported into the measuring process but its client.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from firmware_sim.launch import Simulator
from ionmd.client import Client
from ionmd.errors import Refused

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
START_S = 30.0


class Cart:
    """`with Cart(...) as cart:`; `agenda` is that of the scenario ([[operator]])."""

    def __init__(self, scenario: str | Path = "quiet", speed: str = "1", *, inputs: int = 32, rate_hz: int = 20_000,
                 block_samples: int = 40, duration_s: float | None = None,
                 seed: int | None = None) -> None:  # fmt: skip
        self.directory = Path(tempfile.mkdtemp(prefix="ionmd-bench-"))
        self.socket = self.directory / "s"
        self.state = self.directory / "state"
        self.simulator = Simulator(scenario, speed, seed, inputs=inputs, rate_hz=rate_hz, block_samples=block_samples)
        self._command = [sys.executable, "-m", "ionmd", "run", "--socket", str(self.socket), "--state-dir",
                         str(self.state), "--speed", speed]  # fmt: skip
        if duration_s is not None:
            self._command += ["--duration", f"{duration_s:g}"]
        self._shape = (inputs, rate_hz, block_samples)
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Cart:
        try:
            self.simulator.start()
            self.start_daemon()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_daemon()
        self.simulator.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # ------------------------------------------------------------ the daemon

    def start_daemon(self) -> float:
        """Start it and wait for READY=1; seconds from exec to READY."""
        inputs, rate, block = self._shape
        config = self.directory / "ionmd.toml"
        config.write_text(f'[device]\ndriver = "ionm1"\nserial = "{self.simulator.ready["serial"]}"\n'
                          f"inputs = {inputs}\nrate_hz = {rate}\nblock_samples = {block}\n")  # fmt: skip
        notify = self.directory / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, (self.directory / "log").open("ab") as log:
            ready.bind(str(notify))
            environment = {**self.simulator.env(), "NOTIFY_SOCKET": str(notify),
                           "PYTHONPATH": str(Path(__file__).parents[2])}
            began = time.monotonic()
            self._daemon = subprocess.Popen([*self._command, "--config", str(config)], env=environment, stdout=log,
                                            stderr=log)  # fmt: skip
            while time.monotonic() - began < START_S:
                if select.select([ready], [], [], 0.1)[0] and b"READY=1" in ready.recv(4096):
                    return time.monotonic() - began
                if self._daemon.poll() is not None:
                    break
        raise RuntimeError(f"the daemon did not start:\n{self.log()}")

    def stop_daemon(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None and daemon.poll() is None:
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def wait_end(self, timeout_s: float) -> None:
        """Until the daemon has ended by itself (`duration_s`)."""
        if self._daemon is not None and self._daemon.wait(timeout_s):
            raise RuntimeError(f"the daemon failed:\n{self.log()}")

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-4000:]

    @property
    def pid(self) -> int:
        if self._daemon is None:
            raise RuntimeError("no daemon runs")
        return self._daemon.pid

    def cpu_s(self) -> float:
        """User and system seconds of the daemon's process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def resident_mib(self) -> float:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE / (1 << 20)

    # ------------------------------------------------------------ the room

    def client(self) -> Client:
        return Client(self.socket, timeout_s=20.0)

    def until_streaming(self, client: Client) -> None:
        """Before the unit is known to be simulated, nobody has a right without groups: refused until then."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            with contextlib.suppress(Refused):
                status = client.call("status")
                if status["device"]["state"] == "streaming" and status["sample"]:
                    return
            select.select([], [], [], 0.05)
        raise RuntimeError(f"the device does not stream\n{self.log()}")

    def open_case(self, client: Client, case_id: str = "bench") -> str:
        """Signed in, case open, lease held by `client`; the lease's id."""
        self.until_streaming(client)
        client.call("person.sign_in", name="Bench", credential="CNIM")
        client.call("case.open", case_id=case_id, template="cervical")
        return str(client.call("stim.acquire")["lease"])
