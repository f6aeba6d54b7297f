"""The one table of time limits, read from timers.toml; writes the firmware's copy.

    python -m ionmd.timers > firmware_sim/firmware/timers.h
"""

from __future__ import annotations

import tomllib
from pathlib import Path

SOURCE = Path(__file__).with_name("timers.toml")
_TABLE: dict[str, int] = tomllib.loads(SOURCE.read_text(encoding="utf-8"))

HEARTBEAT_MS = _TABLE["heartbeat_ms"]
WATCHDOG_MS = _TABLE["watchdog_ms"]
TRAIN_ABORT_MS = _TABLE["train_abort_ms"]
ARM_TTL_MS = _TABLE["arm_ttl_ms"]
LEASE_KEEPALIVE_MS = _TABLE["lease_keepalive_ms"]
NO_DATA_ALARM_MS = _TABLE["no_data_alarm_ms"]
STAGE_STUCK_MS = _TABLE["stage_stuck_ms"]
WINDOW_MS = _TABLE["window_ms"]
HORIZON_MS = _TABLE["horizon_ms"]
CAUTERY_QUIET_MS = _TABLE["cautery_quiet_ms"]


def c_header() -> str:
    """The same table as C preprocessor lines."""
    lines = ["/* Written by `python -m ionmd.timers` from ionmd/timers.toml; do not edit. */", "#ifndef IONM_TIMERS_H"]
    lines += ["#define IONM_TIMERS_H"]
    lines += [f"#define IONM_{name.upper()} {value}" for name, value in _TABLE.items()]
    return "\n".join([*lines, "#endif", ""])


if __name__ == "__main__":
    print(c_header(), end="")
