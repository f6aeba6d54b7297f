"""The stimulus artefact: the pulse itself at every electrode, then the decay of amplifier and skin.

Always: proportional to the delivered value, larger near the stimulated site; the decay was fitted (fitted.toml).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from firmware_sim.events import NERVES
from firmware_sim.montage import region
from firmware_sim.patient.body import Table
from firmware_sim.patient.overlay import Overlay
from firmware_sim.patient.stimulus import PulseLike
from firmware_sim.scenario import Scenario

Floats = npt.NDArray[np.float32]

DECAY_MS = 40.0
_PER_MA = {"scalp": 1.2, "frontal": 1.5, "neck": 2.0, "limb": 3.0, "muscle": 3.0, "spare": 0.2}
_PER_TES_V = {"scalp": 60.0, "frontal": 50.0, "neck": 12.0}
_NEAR = {"median": ("EP", "APB", "DELT"), "tibial": ("PF", "AH", "TA")}


class Artefact:
    def __init__(self, scenario: Scenario, table: Table, names: tuple[str, ...], rate_hz: float, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64([seed, 29]))
        t_ms = np.arange(round(DECAY_MS * rate_hz / 1000.0) + 1) * 1000.0 / rate_hz
        self._rate = rate_hz
        parts = zip(table.artefact_tau_ms, table.artefact_share, strict=True)
        self._decay = np.sum([share * np.exp(-t_ms / tau) for tau, share in parts], axis=0).astype(np.float32)
        own = rng.uniform(0.6, 1.2, (16, len(names))) * rng.choice([-1, 1], (16, len(names)), p=[0.35, 0.65])
        self._gain = [
            (np.array([_gain(target, n) for n in names]) * factor * scenario.noise.artefact).astype(np.float32)
            for target, factor in zip(scenario.device.outputs, own, strict=False)
        ]

    def add(self, p: PulseLike, amount: float, sign: int, overlay: Overlay, now: int) -> None:
        """`amount` in mA, or V for TES."""
        gains = self._gain[p.output] * np.float32(amount * sign * (0.25 if p.biphasic else 1.0))
        length = max(1, round(p.width_us * 1e-6 * self._rate))
        overlay.add_outer(p.sample, gains * np.float32(4.0), np.ones(length, np.float32), now)
        overlay.add_outer(p.sample + length, -gains, self._decay, now)


def _gain(target: str, name: str) -> float:
    """uV per mA (per V for TES) of an output at an electrode, right after the pulse."""
    place = region(name)
    if target == "tes":
        return _PER_TES_V.get(place, 1.5)
    if target == "probe":
        return 6.0 if name.startswith(("DELT", "APB")) or place == "neck" else 2.0
    gain = _PER_MA[place]
    if target in NERVES:
        nerve, side = target.split("_")
        if name.startswith(_NEAR[nerve]) and ("L" if side == "left" else "R") in name[2:]:
            gain *= 12.0
    return gain
