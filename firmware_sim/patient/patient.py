"""The simulated patient: answers the pulses that the firmware really gave, as converter counts.

In: a scenario, a seed, pulses with their delivered value.  Out: int32 counts `[sample, input]`, the load that each
output sees, aux edges, impedances, scripted device faults, and the truth.
Always: the same (seed, scenario, pulses) give the same counts whatever the size of the batches; nothing here knows
the daemon, and `truth()` never reaches it.
Single thread; samples are asked in order (a jump forward is allowed, as when a cable was out).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_sim.patient.answers import Answers, PulseLike
from firmware_sim.patient.background import CHUNK, Background
from firmware_sim.patient.body import labels, load_table, region
from firmware_sim.patient.overlay import Overlay
from firmware_sim.patient.recorded import Recordings, recordings_dir
from firmware_sim.patient.tracks import Tracks
from firmware_sim.patient.truth import describe
from firmware_sim.scenario import AUX_LINE, Aux, Cautery, DeviceEvent, DeviceFault, Scenario

COUNT_MAX, COUNT_MIN = 0x7FFFFF, -0x800000
OPEN_OHM = math.inf


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
        base = {"scalp": 1.6, "frontal": 1.8, "neck": 2.2, "limb": 2.5, "muscle": 2.8, "spare": 3.0}
        told = {e.label: e.impedance_kohm for e in self.scenario.electrodes if e.impedance_kohm is not None}
        kohm = [told.get(n, base[region(n)] * float(rng.uniform(0.6, 1.5))) for n in self.names]
        self._ohm = np.array(kohm) * 1000.0
        self._ohm_phase = rng.uniform(0, 2 * math.pi, inputs)
        self._load_ohm = rng.uniform(0.8, 1.2, 16)
        self._load_gain = 1.0 + 0.004 * rng.standard_normal(16)
        self._spans = sorted(
            (start, stop, self.names.index(label), state)
            for label, state, start, stop in self.tracks.electrode_spans()
            if label in self.names
        )
        self._aux = self._aux_edges()
        self._chunk_number = -1
        self._rendered = 0
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
        outputs = self.scenario.device.outputs
        if not 0 <= output < len(outputs) or outputs[output] == "none":
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
        self._rendered = first + n

    def _render_piece(self, number: int, at: int, m: int, out: npt.NDArray[np.int32]) -> None:
        if number != self._chunk_number:
            self._chunk = self.background.chunk(number)
            self._chunk_number = number
            self._fault_rows = [
                (row, max(0, start - number * CHUNK), min(CHUNK, stop - number * CHUNK), state,
                 self.background.disconnected(row, number * CHUNK, state, self.lsb_uv))
                for start, stop, row, state in self._spans
                if start < (number + 1) * CHUNK and stop > number * CHUNK
            ]  # fmt: skip
        k = at - number * CHUNK
        uv = self._chunk[:, k : k + m]
        extra = self._overlay.take(at, m)
        work = uv + extra if extra is not None else uv.copy()
        for row, a, b, state, instead in self._fault_rows:
            a, b = max(a, k), min(b, k + m)
            if a < b:
                if state == "noisy":
                    work[row, a - k : b - k] += instead[a:b]
                else:
                    work[row, a - k : b - k] = instead[a:b]
        work *= np.float32(1.0 / self.lsb_uv)
        np.rint(work, out=work)
        np.clip(work, COUNT_MIN, COUNT_MAX, out=work)
        out[:, : self.inputs] = work.T

    # ------------------------------------------------------------ slow facts

    def impedance(self, input: int, sample: int) -> float:
        """Ohm of one electrode against the others; inf when it is off."""
        for start, stop, row, state in self._spans:
            if row == input and state == "off" and start <= sample < stop:
                return OPEN_OHM
        t = sample / self.rate_hz
        return float(self._ohm[input] * (1.0 + 0.06 * math.sin(t / 420.0 + self._ohm_phase[input])))

    def _aux_edges(self) -> list[tuple[int, int, int]]:
        edges = []
        for e in self.scenario.events:
            if isinstance(e, Aux):
                edges.append((Scenario.sample(e, self.rate_hz), AUX_LINE[e.line], int(e.level)))
            elif isinstance(e, Cautery) and e.sensed:
                start = Scenario.sample(e, self.rate_hz)
                edges += [(start, 0, 1), (start + max(1, round(e.duration_s * self.rate_hz)), 0, 0)]
        return sorted(edges)

    def aux(self, first: int, n: int) -> list[tuple[int, int, int]]:
        """(sample, line, level) of the edges in these samples, in order."""
        return [e for e in self._aux if first <= e[0] < first + n]

    def device_faults(self, first: int, n: int) -> list[DeviceFault]:
        """Scripted faults of the unit in these samples, in order."""
        faults = [
            DeviceFault(Scenario.sample(e, self.rate_hz), e.fault, e.count, round(e.duration_s * self.rate_hz))
            for e in self.scenario.events
            if isinstance(e, DeviceEvent)
        ]
        return sorted((f for f in faults if first <= f.sample < first + n), key=lambda f: f.sample)

    def truth(self) -> dict[str, Any]:
        """What is really the case, machine-readable; for tests and `ionmd evaluate`, never for the daemon."""
        return describe(self)
