"""The simulated patient: answers the pulses that the firmware really gave, as converter counts.

In: a scenario, a seed, pulses with their delivered value.  Out: int32 counts `[sample, input]`, the load that each
output sees, aux edges, impedances, scripted device faults, and the truth.
Always: the same (seed, scenario, pulses) give the same counts whatever the size of the batches; nothing here knows
the daemon, and `truth()` never reaches it.
Single thread; samples are asked in order (a jump forward is allowed, as when a cable was out).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_sim.events import AUX_LINE, Aux, Cautery, DeviceEvent, DeviceFault
from firmware_sim.montage import IMPEDANCE_KOHM, kind, labels
from firmware_sim.patient.answers import Answers
from firmware_sim.patient.background import CHUNK, Background
from firmware_sim.patient.body import load_table
from firmware_sim.patient.overlay import Overlay
from firmware_sim.patient.recorded import Recordings, recordings_dir
from firmware_sim.patient.stimulus import PulseLike
from firmware_sim.patient.tracks import Tracks
from firmware_sim.patient.truth import describe
from firmware_sim.scenario import Scenario

COUNT_MAX, COUNT_MIN = np.float32(0x7FFFFF), np.float32(-0x800000)  # both exact
OPEN_OHM = math.inf
FOREVER = 1 << 62


class Patient:
    def __init__(self, scenario: Scenario, seed: int | None = None) -> None:
        self.scenario = scenario
        self.seed = scenario.scenario.seed if seed is None else int(seed)
        self.table = load_table()
        self.recordings: Recordings | None = None
        if scenario.patient.source == "recordings":
            self.recordings = Recordings.open(recordings_dir())
        self._ready = False

    def configure(self, inputs: int, rate_hz: float, lsb_uv: float) -> None:
        """Before the first sample and after every change of rate or inputs (the counter then starts at 0)."""
        if not (1 <= inputs <= 64 and 1000 <= rate_hz <= 40_000 and 0 < lsb_uv < 10):
            raise ValueError(f"inputs {inputs}, rate {rate_hz}, lsb {lsb_uv}: expected 1-64, 1000-40000 Hz, 0-10 uV")
        self.inputs, self.rate_hz, self.lsb_uv = inputs, float(rate_hz), float(lsb_uv)
        self.names = labels(inputs)
        self.tracks = Tracks(self.scenario, self.rate_hz)
        self._make_sources()
        self._overlay = Overlay(inputs, self.answers.longest + CHUNK, CHUNK)
        rng = np.random.Generator(np.random.PCG64([self.seed, 37]))
        self._ohm = 1000.0 * np.array([self._usual_kohm(n, float(rng.uniform())) for n in self.names])
        self._ohm_phase = rng.uniform(0, 2 * math.pi, inputs)
        self._load_ohm = rng.uniform(0.8, 1.2, 16)
        self._load_gain = 1.0 + 0.004 * rng.standard_normal(16)
        self._spans = sorted(
            (start, stop, self.names.index(label), state, kohm)
            for label, state, kohm, start, stop in self.tracks.electrode_spans()
            if label in self.names
        )
        self._aux = self._aux_edges()
        self._chunk_number = -1
        self._work = np.empty(inputs * CHUNK, np.float32)
        self._counts_per_uv = np.float32(1.0 / lsb_uv)
        self._loads: tuple[int, int, list[tuple[float, float]]] = (0, 0, [])
        self._load_changes = self.tracks.load_changes()
        self._ready = True

    def _make_sources(self) -> None:
        noise = shapes = None
        if self.recordings is not None:
            noise = self.recordings.noise(self.names, self.rate_hz, self.seed)
            shapes = self.recordings.shapes()
        self.background = Background(self.scenario, self.table, self.names, self.rate_hz, self.seed, noise)
        self.answers = Answers(self.scenario, self.table, self.tracks, self.names, self.rate_hz, self.seed, shapes)

    # ------------------------------------------------------------ stimulator side

    def load(self, output: int, sample: int) -> tuple[float, float]:
        """(ohm between the two poles of an output, factor of the delivered value) at that sample; inf = open."""
        first, stop, known = self._loads
        if not first <= sample < stop:
            k = bisect.bisect_right(self._load_changes, sample)
            first = self._load_changes[k - 1] if k else 0
            stop = self._load_changes[k] if k < len(self._load_changes) else FOREVER
            known = [self._load_at(i, sample) for i in range(len(self.scenario.device.outputs))]
            self._loads = first, stop, known
        return known[output] if 0 <= output < len(known) else (OPEN_OHM, 1.0)

    def load_changes(self, first: int, n: int) -> list[int]:
        """Samples first + 1 .. first + n - 1 at which a load may change, in order."""
        a, b = (bisect.bisect_left(self._load_changes, k) for k in (first + 1, first + n))
        return self._load_changes[a:b]

    def _load_at(self, output: int, sample: int) -> tuple[float, float]:
        outputs = self.scenario.device.outputs
        if outputs[output] == "none":
            return OPEN_OHM, 1.0
        gain = float(self._load_gain[output]) * self.tracks.stim_gain(output, sample)
        if self.tracks.lead_off(output, sample):
            return OPEN_OHM, gain
        target = outputs[output]
        if target == "probe" and not self.tracks.probe(sample)[0]:
            return OPEN_OHM, gain
        ohm = {"tes": 750.0, "probe": 1100.0}.get(target, 1600.0) * float(self._load_ohm[output])
        return ohm, gain

    # ------------------------------------------------------------ samples

    def render(self, first: int, n: int, pulses: Sequence[PulseLike], out: npt.NDArray[np.int32]) -> None:
        """Counts of samples first .. first + n into out[:n, :inputs]; `pulses` were delivered in these samples."""
        if not self._ready:
            raise ValueError("configure() comes before render()")
        todo = list(pulses)
        done = 0
        while done < n:
            at = first + done
            number = at // CHUNK
            m = min(n - done, (number + 1) * CHUNK - at)
            while todo and todo[0].sample < at + m:
                self.answers.pulse(todo.pop(0), self._overlay, at)
            self._render_piece(number, at, m, out[done : done + m])
            done += m

    def _render_piece(self, number: int, at: int, m: int, out: npt.NDArray[np.int32]) -> None:
        if number != self._chunk_number:
            self._begin_chunk(number)
        k = at - number * CHUNK
        uv = self._chunk[:, k : k + m]
        # packed, because the transpose reads down: rows a power of two apart fall on one another in the cache
        work = self._work[: self.inputs * m].reshape(self.inputs, m)
        extra = self._overlay.take(at, m)
        if extra is not None:
            uv = np.add(uv, extra, out=work)
        for row, a, b, state, instead in self._fault_rows:
            a, b = max(a, k), min(b, k + m)
            if a < b:
                if uv is not work:
                    np.copyto(work, uv)
                    uv = work
                if state == "noisy":
                    work[row, a - k : b - k] += instead[a:b]
                else:
                    work[row, a - k : b - k] = instead[a:b]
        np.multiply(uv, self._counts_per_uv, out=work)
        np.rint(work, out=work)
        np.maximum(work, COUNT_MIN, out=work)
        np.minimum(work, COUNT_MAX, out=work)
        out[:, : self.inputs] = work.T

    def _begin_chunk(self, number: int) -> None:
        first = number * CHUNK
        self._chunk = self.background.chunk(number)
        self._chunk_number = number
        self._fault_rows = [
            (row, max(0, start - first), min(CHUNK, stop - first), state,
             self.background.disconnected(row, first, state, self.lsb_uv))
            for start, stop, row, state, _ in self._spans
            if start < first + CHUNK and stop > first
        ]  # fmt: skip

    # ------------------------------------------------------------ slow facts

    def impedance(self, input: int, sample: int) -> float:
        """Ohm of one electrode against the others; inf when it is off."""
        for start, stop, row, _, kohm in self._spans:
            if row == input and start <= sample < stop:
                return kohm * 1000.0
        t = sample // self.rate_hz  # whole seconds: a measurement does not depend on how time was cut
        return float(self._ohm[input] * (1.0 + 0.06 * math.sin(t / 420.0 + self._ohm_phase[input])))

    def _usual_kohm(self, label: str, chance: float) -> float:
        """Of an electrode to which nothing happens: as the scenario says, else by its kind."""
        own = next((e for e in self.scenario.electrodes if e.label == label), None)
        if own is not None and own.impedance_kohm is not None:
            return own.impedance_kohm
        low, high = IMPEDANCE_KOHM[(own.kind if own is not None else None) or kind(label)]
        return low + (high - low) * chance

    def _aux_edges(self) -> list[tuple[int, int, int]]:
        edges = []
        for e in self.scenario.events:
            if isinstance(e, Aux):
                edges.append((e.sample(self.rate_hz), AUX_LINE[e.line], int(e.level)))
            elif isinstance(e, Cautery) and e.sensed:
                start = e.sample(self.rate_hz)
                edges += [(start, 0, 1), (start + max(1, round(e.duration_s * self.rate_hz)), 0, 0)]
        return sorted(edges)

    def aux(self, first: int, n: int) -> list[tuple[int, int, int]]:
        """(sample, line, level) of the edges in these samples, in order."""
        return [e for e in self._aux if first <= e[0] < first + n]

    def device_faults(self, first: int, n: int) -> list[DeviceFault]:
        """Scripted faults of the unit in these samples, in order."""
        faults = [
            DeviceFault(e.sample(self.rate_hz), e.fault, e.count, round(e.duration_s * self.rate_hz))
            for e in self.scenario.events
            if isinstance(e, DeviceEvent)
        ]
        return sorted((f for f in faults if first <= f.sample < first + n), key=lambda f: f.sample)

    def truth(self) -> dict[str, Any]:
        """What is really the case, machine-readable; for tests and `ionmd evaluate`, never for the daemon."""
        return describe(self)
