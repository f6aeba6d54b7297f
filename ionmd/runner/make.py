"""The runner of a test: one place that knows which class moves which modality."""

from __future__ import annotations

from ionmd.errors import ConfigError
from ionmd.model import Source
from ionmd.runner.base import Run
from ionmd.runner.evoked import EvokedRun
from ionmd.runner.freerun import FreeRun
from ionmd.runner.plan import Channel
from ionmd.runner.sweeps import SweepRun
from ionmd.testdef import TestDefinition


def make_run(
    definition: TestDefinition, channels: list[Channel], rate_hz: float, source: Source, stride_in: int,
    own_rate_hz: float | None, mains_hz: float,
) -> Run:
    """Raises ConfigError for a modality that has no runner."""
    modality = definition.test.modality
    if modality == "evoked":
        return EvokedRun(definition, channels, rate_hz, source, stride_in, own_rate_hz, mains_hz=mains_hz)
    if modality in ("motor", "tof", "temg"):
        return SweepRun(definition, channels, rate_hz, source, stride_in)
    if modality == "emg":
        return FreeRun(definition, channels, rate_hz, source, stride_in)
    raise ConfigError(f"test {definition.test.id}: modality {modality} cannot be run")
