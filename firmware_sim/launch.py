"""The simulator as a child process, for `ionmd run --simulate` and for tests.

    with Simulator(scenario="demo", speed="max", seed=1) as sim:
        subprocess.Popen([...], env=sim.env())

In: what `ionmd-sim` takes.  Out: the environment in which the real libusb finds the simulated unit.
Always: `start` returns only when the simulator answers; it dies with this process (its stdin is a pipe of ours);
`stop` is safe twice; the private directory goes with the simulator, even when this process is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from firmware_sim import shim
from firmware_sim.device import Speed

_START_S = 20.0


class Simulator:
    """One `ionmd-sim` and the directory that its sockets and tree live in."""

    def __init__(self, scenario: str | Path = "quiet", speed: Speed | str = 1.0, seed: int | None = None,
                 **options: Any) -> None:  # fmt: skip
        """`options` are those of `ionmd-sim` by their Python names: inputs, rate_hz, block_samples, serial, ppm."""
        self._arguments = ["--scenario", str(scenario), "--speed", str(speed)]
        for name, value in {"seed": seed, **options}.items():
            if value is not None:
                self._arguments += [f"--{name.replace('_', '-')}", str(value)]
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path()
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Raises RuntimeError with the simulator's own words when it does not start."""
        library = shim.path()
        self.directory = Path(tempfile.mkdtemp(prefix="ionmd-sim-"))
        # LD_PRELOAD is cut at blanks and colons, so the library is named by a path of our own
        (self.directory / "usbfs_shim.so").symlink_to(library)
        command = [sys.executable, "-m", "firmware_sim.cli", "--with-parent", "--own", str(self.directory)]
        command += ["--shim-root", str(self.directory / "root")]
        command += ["--listen", f"unix:{self._path('usb')}", "--control", f"unix:{self._path('control')}"]
        packages = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join([packages, *filter(None, [os.environ.get("PYTHONPATH")])])
        with (self.directory / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [*command, *self._arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
            )  # fmt: skip
        line = self._first_line()
        if not line:
            code, said = self._process.poll(), (self.directory / "stderr").read_text(errors="replace").strip()
            self.stop()
            raise RuntimeError(f"the simulator did not start (exit code {code}): {said or 'no message'}")
        self.ready = json.loads(line)

    def _first_line(self) -> bytes:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101
        until = time.monotonic() + _START_S
        fd, line = self._process.stdout.fileno(), b""
        while not line.endswith(b"\n") and select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
            got = os.read(fd, 4096)
            if not got:
                self._process.wait(5)
                return b""
            line += got
        return line if line.endswith(b"\n") else b""

    def _path(self, name: str) -> str:
        path = str(self.directory / name)
        if len(path) > 100:
            raise RuntimeError(f"{path} is too long for a Unix socket: set TMPDIR to a shorter directory")
        return path

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def env(self) -> dict[str, str]:
        """The environment of a process that shall find the unit by libusb; `os.environ` and three variables."""
        preload = f"{self.directory / 'usbfs_shim.so'} {os.environ.get('LD_PRELOAD', '')}".strip()
        return {**os.environ, "LD_PRELOAD": preload, "USBSHIM_ROOT": str(self.directory / "root"),
                "USBSHIM_SOCK": str(self.directory / "usb")}  # fmt: skip

    # ------------------------------------------------------------------ control socket

    def inject(self, kind: str, at: int | None = None, **params: object) -> dict[str, Any]:
        """Make something go wrong (docs/simulator.md), now or at a device sample.  Raises ValueError."""
        return self._ask({"inject": {"kind": kind, "at": at, **params}})

    def state(self) -> dict[str, Any]:
        """serial, address (0: unplugged), plugged, streaming, sample, processed."""
        return self._ask({"state": True})

    def _ask(self, what: dict[str, object]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(10.0)
            sock.connect(self._path("control"))
            sock.sendall(json.dumps(what).encode() + b"\n")
            reply = json.loads(sock.makefile("rb").readline())
        if not reply.pop("ok"):
            raise ValueError(reply["error"])
        return dict(reply)

    def stop(self) -> None:
        """End the simulator and remove what it left."""
        process, self._process = self._process, None
        if process:
            with contextlib.suppress(OSError):
                assert process.stdin is not None  # noqa: S101
                process.stdin.close()
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None  # noqa: S101
            process.stdout.close()
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = Path()
