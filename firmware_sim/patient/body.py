"""The body: for each nerve the waves that each electrode sees, and the muscles.

Waves are in microvolts at a supramaximal stimulus against a distant reference, negative = negative at the
electrode.  A derivation is the difference of two electrodes, so polarity and shape of CPc-Fpz, CPc-CPi ... follow
from this table alone.  Latencies are those of docs/sources.md for a person of 172 cm at 36.5 C.
"""

from __future__ import annotations

from dataclasses import dataclass

CELSIUS_DELAY = 0.030  # relative lengthening of a latency per degree below 36.5


@dataclass(frozen=True)
class Bump:
    """One Gaussian of a wave; the falling side may be wider."""

    amplitude_uv: float
    peak_ms: float
    rise_ms: float
    fall_ms: float


@dataclass(frozen=True)
class Wave:
    """What one electrode sees of one stage."""

    electrode: str
    bumps: tuple[Bump, ...]


@dataclass(frozen=True)
class Nerve:
    name: str
    side: str
    arrival_ms: dict[str, float]  # of each stage: delays by height and temperature grow in proportion
    height_ms_per_cm: float  # of the cortical latency
    threshold_ma: float  # half of the large afferents, 200 us
    motor_threshold_ma: float
    muscle: str  # answers with an M wave
    stages: dict[str, tuple[Wave, ...]]


def _b(*rows: tuple[float, float, float, float]) -> tuple[Bump, ...]:
    return tuple(Bump(*r) for r in rows)


def _triphasic(peak_uv: float, at_ms: float, width_ms: float) -> tuple[Bump, ...]:
    """A travelling volley under an electrode: small positivity, negativity, small positivity."""
    before = (-0.25 * peak_uv, at_ms - 1.9 * width_ms, 0.8 * width_ms, 0.8 * width_ms)
    after = (-0.30 * peak_uv, at_ms + 2.2 * width_ms, width_ms, 1.4 * width_ms)
    return _b(before, (peak_uv, at_ms, width_ms, width_ms), after)


# Scalp weights of the generators of the tibial response, ipsilateral positivity (P37 is paradoxically lateralised)
_TIBIAL_SCALP = {"CPz": 1.0, "CPi": 0.62, "Cz": 0.74, "CPc": -0.38, "Fpz": -0.10}


def _tibial_cortex(uv: float, side: str) -> tuple[Wave, ...]:
    i, c = ("CP3", "CP4") if side == "left" else ("CP4", "CP3")
    unit = ((0.60, 38.5, 1.9, 2.2), (-0.42, 46.5, 2.6, 3.4), (0.22, 58.0, 4.0, 6.0), (-0.10, 75.0, 7.0, 9.0))
    name = {"CPi": i, "CPc": c}
    return tuple(
        Wave(name.get(site, site), _b(*((uv * 0.72 * w * a, m, r, f) for a, m, r, f in unit)))
        for site, w in _TIBIAL_SCALP.items()
    )


def nerve(name: str, cortical_uv: float, cervical_uv: float, limb_uv: float, table: Table) -> Nerve:
    """The nerve of that name with the patient's amplitudes; `table` has the fitted median response of the scalp."""
    kind, side = name.split("_")
    mark = "L" if side == "left" else "R"
    i, c = ("CP3", "CP4") if side == "left" else ("CP4", "CP3")
    if kind == "median":
        norms = table.norm_ms
        named = {"CPc": c, "CPi": i}
        scalp = {named.get(s, s): rows for s, rows in table.median.items()}
        waves: dict[bool, list[Wave]] = {True: [], False: []}  # far field first: bumps before and after the border
        for electrode, bumps in scalp.items():
            sized = [Bump(cortical_uv * b.amplitude_uv, b.peak_ms, b.rise_ms, b.fall_ms) for b in bumps]
            for early, kept in waves.items():
                some = tuple(b for b in sized if (b.peak_ms < table.far_field_end_ms) is early)
                kept.append(Wave(electrode, some))
        arrival = {"limb": norms["N10"], "cord": norms["N13a"], "brainstem": norms["N14"], "cortex": norms["N20"]}
        return Nerve(
            name, side, arrival, 0.07, 9.0, 11.0, f"APB-{mark}",
            {
                "limb": (Wave(f"EP{mark}", _triphasic(-limb_uv, norms["N10"], 0.75)),),
                "cord": (
                    Wave("C5S", _b((-cervical_uv, norms["N13a"], 1.3, 1.9), (0.25 * cervical_uv, 20.5, 2.5, 4.0))),
                    Wave("Fpz", _b((0.10 * cervical_uv, norms["N13a"], 1.3, 1.9))),
                ),
                "brainstem": tuple(waves[True]),
                "cortex": tuple(waves[False]),
            },
        )  # fmt: skip
    return Nerve(
        name, side, {"limb": 8.2, "cord": 30.5, "brainstem": 31.5, "cortex": 38.5}, 0.20, 14.0, 16.0, f"AH-{mark}",
        {
            "limb": (
                Wave(f"PF{mark}+", _triphasic(-0.85 * limb_uv, 8.2, 0.8)),
                Wave(f"PF{mark}-", _triphasic(0.15 * limb_uv, 8.2, 0.8)),
            ),
            "cord": (Wave("C5S", _b((-0.30 * cervical_uv, 30.5, 1.6, 2.2), (0.10 * cervical_uv, 37.0, 3.0, 4.0))),),
            "brainstem": tuple(
                Wave(s, _b((0.20 * cervical_uv * w, 31.5, 1.3, 1.8), (-0.12 * cervical_uv * w, 34.5, 1.6, 2.2)))
                for s, w in (("Fpz", 1.0), ("CPz", 0.9), ("Cz", 0.95), ("CP3", 0.9), ("CP4", 0.9))
            ),
            "cortex": _tibial_cortex(cortical_uv, side),
        },
    )  # fmt: skip


@dataclass(frozen=True)
class Muscle:
    """One muscle: its electrode pair is NAME+ and NAME-."""

    name: str
    side: str
    conduction_ms: float  # from the corticospinal volley that fires it to the onset of its MEP
    drive: float  # summed excitation at which half of its units fire under anaesthesia (1 = one supramaximal volley)
    mep: float  # supramaximal MEP relative to APB
    duration_ms: float
    m_latency_ms: float
    m_uv: float


def muscles() -> tuple[Muscle, ...]:
    rows = (("DELT", 9.5, 2.15, 0.55, 13.0, 3.0, 4000.0), ("APB", 17.0, 1.95, 1.0, 11.0, 3.6, 6000.0),
            ("TA", 24.5, 2.10, 0.75, 15.0, 4.0, 4500.0), ("AH", 34.0, 2.00, 0.60, 13.0, 4.6, 7000.0))  # fmt: skip
    return tuple(
        Muscle(f"{n}-{mark}", side, lat, drive, mep, dur, mlat, muv)
        for n, lat, drive, mep, dur, mlat, muv in rows
        for mark, side in (("L", "left"), ("R", "right"))
    )


@dataclass(frozen=True)
class Table:
    """Numbers fitted to recordings and norms (fitted.toml); written by bench/fit_patient.py."""

    norm_ms: dict[str, float]
    median: dict[str, tuple[Bump, ...]]  # CPc, CPi, CPz, Cz, Fpz; N20-P23 of CPc-Fpz is 1
    far_field_end_ms: float
    eeg_hz: tuple[float, ...]
    eeg_asd: tuple[float, ...]  # amplitude density, uV/rtHz, scaled to 1 uV rms at 30-500 Hz
    emg_hz: tuple[float, ...]
    emg_asd: tuple[float, ...]
    artefact_tau_ms: tuple[float, ...]
    artefact_share: tuple[float, ...]


def load_table() -> Table:
    import tomllib
    from pathlib import Path

    d = tomllib.loads(Path(__file__).with_name("fitted.toml").read_text(encoding="utf-8"))
    m = d["median"]
    median = {
        site: tuple(Bump(a, p, m["sigma_ms"], m["sigma_ms"]) for a, p in zip(row, m["peak_ms"], strict=True) if a)
        for site, row in m["uv"].items()
    }
    return Table(
        dict(d["norm_ms"]), median, float(m["far_field_end_ms"]), tuple(d["eeg"]["hz"]), tuple(d["eeg"]["asd"]),
        tuple(d["emg"]["hz"]), tuple(d["emg"]["asd"]), tuple(d["artefact"]["tau_ms"]), tuple(d["artefact"]["share"]),
    )  # fmt: skip
