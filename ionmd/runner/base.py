"""What every running test offers the pipeline, and what it hands on.

The pipeline calls, in this order for each block: `feed` (continuous samples), `expect` (deliveries whose time zero
came), `collect` (sweeps that are complete by now).  A runner never looks at wall time and never publishes by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ionmd.alarm.baseline import AverageData, Reference
from ionmd.alarm.evidence import SweepShares
from ionmd.dsp.history import History
from ionmd.events import SweepSeen
from ionmd.model import AverageResult, Block, Reading
from ionmd.runner.plan import Channel
from ionmd.stim.delivery import Delivery
from ionmd.testdef import TestDefinition


@dataclass
class SubAverage:
    """A finished sub-average (or single sweep) for the change rules: filtered curves of fresh, independent sweeps."""

    first_sample: int
    sample: int
    uv: npt.NDArray[np.float64]  # [derivation, sample]
    counts: list[int]  # accepted sweeps of each derivation
    readings: list[Reading]  # of the recent average that ends here


@dataclass
class Report:
    """What a runner hands on at a milestone; every part is optional."""

    averages: list[AverageResult] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    sub: SubAverage | None = None
    finished: AverageData | None = None
    sweeps: list[SweepSeen] = field(default_factory=list)  # each one that was cut, or was not delivered
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)  # topic, data
    valid: list[str] = field(default_factory=list)  # derivations that were watched until now without a reading of it
    rejected: str = ""  # why a single sweep that was asked for gave no reading
    shares: list[SweepShares] = field(default_factory=list)  # of accepted sweeps, once there is a baseline
    rejecting: dict[str, bool] = field(default_factory=dict)  # derivations whose sweeps are (no longer) all rejected


@dataclass(frozen=True)
class Span:
    """Samples [start, stop) that are no signal: stimulus artefact, cautery, a gap.  `answered`: until then muscles may
    answer the stimulus, which is no spontaneous activity."""

    start: int
    stop: int
    cause: str
    answered: int = 0


@dataclass
class Pending:
    """A delivery whose sweep is not complete yet."""

    delivery: Delivery
    zero: int


class Run(ABC):
    """One started test."""

    def __init__(self, definition: TestDefinition, channels: list[Channel], rate_hz: float, source: str) -> None:
        self.definition = definition
        self.channels = channels
        self.rate_hz = rate_hz
        self.source = source
        self.labels = [c.derivation.label for c in channels]
        self.excluded: set[str] = set()
        self.own_rate_hz: float | None = None  # of its deliveries after interleaving
        self.rejected: Counter[str] = Counter()

    @property
    def id(self) -> str:
        return self.definition.test.id

    @property
    def shares_sweeps(self) -> bool:
        """Every accepted sweep is compared with the baseline, not only each milestone."""
        return False

    def compare_with(self, references: Mapping[str, Reference]) -> None:  # noqa: B027 - single sweeps are milestones
        """The baseline waveforms from now on, by derivation."""

    def feed(self, block: Block, artefacts: list[Span], muted: str = "") -> list[Report]:
        """Continuous samples; `artefacts` are the stimulus windows near this block, by start; `muted` says why no
        sample of it is a signal."""
        return []

    def expect(self, delivery: Delivery, zero: int) -> list[Report]:
        """A delivery of this test came back: cut its sweep when it is complete."""
        return []

    @abstractmethod
    def collect(self, history: History, processed: int, spoiled: Iterable[Span]) -> list[Report]:
        """Sweeps whose last sample is before `processed`; `spoiled` are gaps and cautery, newest last."""

    def restart(self, sample: int, cause: str) -> None:  # noqa: B027 - a test without running averages has nothing
        """Forget running averages and pending sweeps (a gap, a changed setting): nothing is merged across."""

    def sweep_window(self) -> tuple[int, int]:
        """(first, last) sample of a sweep around time zero that the history must still hold."""
        return (0, 0)
