"""The daemon as a process: signals, READY, the watchdog of systemd, the exit code.

In: a configuration and where to listen.  Out: an exit code.  Always: outputs go off before anything else ends.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from ionmd.agenda import Step
from ionmd.config import Config
from ionmd.daemon import Daemon
from ionmd.drivers.base import Amplifier, DeviceConfig
from ionmd.errors import IonmdError
from ionmd.service import notify
from ionmd.service.bind import bind

log = structlog.get_logger()
LOOK_S = 0.1  # between looks at the stages


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
