"""A test definition resolved against the electrodes and the sampling rate at hand.

Pure.  `SweepPlan` has every window in samples; `resolve` turns electrode labels into input columns and names what is
missing, so that a derivation without its electrode is "not monitored: why" rather than absent.
"""

from __future__ import annotations

from dataclasses import dataclass

from ionmd.errors import ConfigError
from ionmd.model import Derivation, Electrode
from ionmd.testdef import TestDefinition
from ionmd.units import ms_to_samples


@dataclass(frozen=True)
class Channel:
    """One derivation as columns of the block: uv[:, plus] - uv[:, minus]."""

    derivation: Derivation
    plus: int
    minus: int


@dataclass(frozen=True)
class SweepPlan:
    """Windows of one sweep, in samples from time zero; `start` is negative or zero, `stop` exclusive."""

    start: int
    stop: int
    baseline: tuple[int, int]
    blank: tuple[int, int] | None
    reject: tuple[int, int]
    reject_uv: float | None
    t0_ms: float
    dt_ms: float

    @property
    def n(self) -> int:
        return self.stop - self.start

    def row(self, ms: float) -> int:
        """Row of the sweep nearest to `ms` after time zero."""
        return ms_to_samples(ms, 1000.0 / self.dt_ms) - self.start


def plan_sweep(definition: TestDefinition, rate_hz: float) -> SweepPlan:
    """Raises ConfigError when the definition has no epoch."""
    epoch = definition.epoch
    if epoch is None:
        raise ConfigError(f"test {definition.test.id}: [epoch] is missing, start_ms and stop_ms were expected")

    def s(ms: float) -> int:
        return ms_to_samples(ms, rate_hz)

    base_ms = epoch.baseline_ms or (epoch.start_ms, min(0.0, definition.blank.start_ms))
    baseline = (s(base_ms[0]), max(s(base_ms[1]), s(base_ms[0]) + 1))
    blank = None
    if definition.blank.method != "none":
        # `stop_ms` counts from the last pulse of a train when time zero is its first
        tail_ms = 0.0
        if definition.stimulus is not None and definition.trigger.zero == "first pulse":
            tail_ms = (definition.stimulus.pulses - 1) * definition.stimulus.interval_ms
        blank = (s(definition.blank.start_ms), s(definition.blank.stop_ms + tail_ms))
    reject_ms = definition.average.reject_window_ms or (max(definition.blank.stop_ms, 0.0), epoch.stop_ms)
    return SweepPlan(
        s(epoch.start_ms), s(epoch.stop_ms), baseline, blank, (s(reject_ms[0]), s(reject_ms[1])),
        definition.average.reject_uv, s(epoch.start_ms) * 1000.0 / rate_hz, 1000.0 / rate_hz,
    )


def resolve(
    derivations: list[Derivation], electrodes: dict[str, Electrode], inputs: int
) -> tuple[list[Channel], dict[str, str]]:
    """Channels that can be recorded, and for each of the others the reason why not."""
    channels: list[Channel] = []
    missing: dict[str, str] = {}
    for derivation in derivations:
        columns = []
        for label in (derivation.plus, derivation.minus):
            electrode = electrodes.get(label)
            if electrode is None:
                missing[derivation.label] = f"electrode {label} is not in the montage"
            elif electrode.input >= inputs:
                missing[derivation.label] = f"electrode {label} is on input {electrode.input} of {inputs}"
            else:
                columns.append(electrode.input)
        if derivation.label not in missing:
            channels.append(Channel(derivation, columns[0], columns[1]))
    return channels, missing
