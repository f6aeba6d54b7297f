"""What the patient answers: only what was delivered, where it was delivered, as strong as it was delivered."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from firmware_sim.scenario import load, parse
from firmware_sim.unit import build
from tests.patient_rig import LSB_UV, OUTPUT, RATE, SILENT, STEADY, Pulse, counts, muscle, patient, text, train, uv
from tests.sim_rig import Rig

FRESH = 6 * RATE  # long after anything before it


def peak_to_peak(wave: np.ndarray, from_ms: float, to_ms: float) -> float:
    return float(np.ptp(wave[round(from_ms * RATE / 1000) : round(to_ms * RATE / 1000)]))


# ------------------------------------------------------------------ what is answered at all


@pytest.mark.parametrize(
    "pulse",
    [
        Pulse(100, OUTPUT["median_left"], 0),
        Pulse(100, OUTPUT["tes"], 0, volts=True),
        Pulse(100, OUTPUT["probe"], 20_000),  # in the air
        Pulse(100, OUTPUT["median_left"], 500),  # half a milliampere is below the threshold of every axon
        Pulse(100, 7),  # an output that leads nowhere
    ],
    ids=["nothing delivered", "no volts", "probe in the air", "below threshold", "no such lead"],
)
def test_a_delivery_that_reaches_no_nerve_has_no_answer(pulse):
    assert not counts(patient(), 0, 3000, [pulse]).any()


def test_without_a_pulse_there_is_no_answer():
    assert not counts(patient(), 0, 20_000).any()


def test_an_output_that_is_none_gets_neither_answer_nor_artefact():
    scenario = text(noise=SILENT) + '[device]\noutputs = ["none", "median_left"]\n'
    device = build(parse(scenario), "max", 1, None, 8, RATE)
    assert not counts(device.patient, 0, 3000, [Pulse(100, 0)]).any()
    assert counts(device.patient, 3000, 3000, [Pulse(3100, 1)]).any()


@pytest.mark.parametrize("side, near, far", [("left", "CP4", "CP3"), ("right", "CP3", "CP4")])
def test_the_cortex_opposite_the_stimulated_wrist_answers(side, near, far):
    p = patient(body=STEADY)
    rows = counts(p, 0, 600, [Pulse(0, OUTPUT[f"median_{side}"])]) * p.lsb_uv
    size = {n: peak_to_peak(rows[:, p.names.index(n)], 17, 26) for n in ("CP3", "CP4")}
    assert size[near] > 4 * size[far]
    erb = {n: float(np.ptp(rows[:200, p.names.index(n)])) for n in ("EPL", "EPR")}
    assert erb["EPL" if side == "left" else "EPR"] > 3.0
    assert erb["EPR" if side == "left" else "EPL"] == 0.0
    for label in ("PFL+", "PFR+", "AH-L+", "AH-R+"):
        assert not rows[:, p.names.index(label)].any()


def test_the_answer_follows_the_delivered_value_and_not_the_set_one():
    """Over the firmware: a stray pulse of 25 mA into a lead that is on, that is off, and that delivers a fifth."""
    heights = {}
    for name, event in (
        ("on", ""),
        ("off", '[[event]]\nkind = "lead_off"\nat_s = 0\noutput = 0\n'),
        ("fifth", '[[event]]\nkind = "stim_gain"\nat_s = 0\noutput = 0\nfactor = 0.2\n'),
    ):
        r = Rig(scenario=parse(text(event, STEADY)))
        r.stream()
        r.device.inject("stray_pulse", at=1000, output=0, amplitude=25_000)
        heights[name] = float(np.ptp(r.counts(3000)[1000:, 2])) * LSB_UV  # input 2 is CP4
    assert heights["on"] > 1.5
    assert heights["off"] == 0.0  # open: nothing was delivered, so nothing is answered
    assert heights["fifth"] < 0.1  # 5 mA: below the threshold of most axons


# ------------------------------------------------------------------ how much


def test_recruitment_rises_steadily_to_a_plateau():
    p = patient(body=STEADY)
    steps_ma = np.arange(2.0, 40.1, 1.0)
    size = [
        peak_to_peak(uv(p, ("CP4", "Fpz"), k * FRESH, 600, [Pulse(k * FRESH, 0, round(ma * 1000))]), 17, 26)
        for k, ma in enumerate(steps_ma)
    ]
    assert all(later >= earlier - 2 * p.lsb_uv for earlier, later in itertools.pairwise(size))
    assert size[0] < 0.05
    assert np.ptp(size[-15:]) < 0.03 * size[-1]  # the plateau
    half = steps_ma[np.searchsorted(size, 0.5 * size[-1])]
    assert 7 <= half <= 12


def test_a_longer_pulse_is_a_stronger_one():
    p = patient(body=STEADY)
    size = [
        peak_to_peak(uv(p, ("CP4", "Fpz"), k * FRESH, 600, [Pulse(k * FRESH, 0, 8000, width_us=width)]), 17, 26)
        for k, width in enumerate((50, 100, 200, 400))
    ]
    assert size == sorted(size) and size[0] < 0.3 * size[-1]


def test_a_motor_nerve_gives_an_m_wave_that_a_fast_train_of_a_blocked_muscle_loses():
    fade = '[[event]]\nkind = "relaxant"\nat_s = 0\nblock = 0.78\nonset_s = 1\nhalf_life_s = 100000\n'
    for events, low, high in (("", 0.95, 1.05), (fade, 0.05, 0.7)):
        p = patient(events, STEADY)
        at = 20 * RATE
        four = [Pulse(at + k * RATE // 2, OUTPUT["median_right"]) for k in range(4)]
        wave = uv(p, muscle("APB-R"), at, 2 * RATE, four)
        size = [float(np.ptp(wave[k * RATE // 2 : k * RATE // 2 + 200])) for k in range(4)]
        assert low <= size[3] / size[0] <= high


def test_a_colder_or_taller_patient_answers_later():
    def n20_ms(body: str) -> float:
        wave = uv(patient(body=STEADY + "\n" + body, lsb_uv=0.001), ("CP4", "Fpz"), 0, 600, [Pulse(0, 0)])
        return (160 + int(np.argmin(wave[160:260]))) / 10

    usual = n20_ms("")
    assert n20_ms("temperature_c = 34.5") - usual == pytest.approx(0.03 * 2 * 19.67, abs=0.15)
    assert n20_ms("height_cm = 192") - usual == pytest.approx(20 * 0.07, abs=0.15)


# ------------------------------------------------------------------ transcranial trains


def mep_uv(p, at: int, **how) -> dict[str, float]:
    rows = counts(p, at, 1500, train(at, **how)).astype(float) * p.lsb_uv
    return {
        m: float(np.ptp(rows[:, p.names.index(f"{m}+")] - rows[:, p.names.index(f"{m}-")]))
        for m in ("DELT-R", "APB-R", "TA-R", "AH-R")
    }


def mean_mep(p, trials: int = 1, **how) -> dict[str, float]:
    found = [mep_uv(p, (k + 1) * 30 * RATE, **how) for k in range(trials)]
    return {m: float(np.mean([f[m] for f in found])) for m in found[0]}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_pulse_gives_no_mep_and_the_answer_grows_to_about_five(seed):
    by_count = {n: mean_mep(patient(body=STEADY, seed=seed), pulses=n) for n in (1, 2, 3, 4, 5, 7)}
    full = by_count[7]
    for m in full:
        assert by_count[1][m] < 5.0  # nothing that a detector could take for a response
        assert by_count[2][m] < 0.10 * full[m]
        assert by_count[3][m] < by_count[4][m] < by_count[5][m] * 1.05
        assert by_count[5][m] > 0.6 * full[m]
    assert by_count[5]["APB-R"] > 300.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_intervals_of_two_to_four_milliseconds_are_best(seed):
    size = {i: sum(mean_mep(patient(body=STEADY, seed=seed), interval_ms=i).values()) for i in (1, 2, 3, 4, 7, 10)}
    assert max(size, key=size.get) in (2, 3, 4)
    assert size[4] > 3 * size[7]
    assert size[1] < 0.3 * size[2]
    assert size[10] < 0.02 * size[2]


def test_an_mep_needs_a_voltage_and_then_saturates():
    size = [mean_mep(patient(body=STEADY), volts=v)["APB-R"] for v in (100, 150, 180, 220, 300, 400)]
    assert size[0] == size[1] == 0.0
    assert size == sorted(size) or size[-1] > 0.95 * max(size)
    assert size[-1] / size[-2] < 1.05


def test_single_meps_of_a_muscle_vary_by_30_to_60_percent_and_muscles_differ():
    p = patient(body="mep_fade_per_hour = 0")
    found = [mep_uv(p, (k + 1) * 20 * RATE) for k in range(120)]
    cv = {m: np.std([f[m] for f in found]) / np.mean([f[m] for f in found]) for m in found[0]}
    assert all(0.30 <= v <= 0.60 for v in cv.values())
    assert len({round(float(v), 3) for v in cv.values()}) == len(cv)


def test_a_monophasic_train_reaches_the_limbs_opposite_its_anode_first():
    p = patient(body=STEADY)
    at = 3 * RATE
    pulses = [Pulse(at + 20 * k, OUTPUT["tes"], 260_000, True, 50, 1) for k in range(5)]
    rows = counts(p, at, 1500, pulses)
    right, left = (np.ptp(rows[:, p.names.index(f"APB-{s}+")]) for s in "RL")
    assert right > 20 * max(1, left)


def test_an_mep_comes_after_the_time_that_the_pathway_takes():
    p = patient(body=STEADY)
    at = 3 * RATE
    rows = counts(p, at, 1500, train(at)).astype(float) * p.lsb_uv
    for m, (low_ms, high_ms) in {"APB-R": (19, 30), "TA-R": (26, 40), "AH-R": (36, 50)}.items():
        wave = rows[:, p.names.index(f"{m}+")] - rows[:, p.names.index(f"{m}-")]
        onset_ms = int(np.argmax(np.abs(wave) > 20.0)) / 10
        assert low_ms <= onset_ms <= high_ms


# ------------------------------------------------------------------ probe


def test_the_probe_finds_its_threshold_while_it_touches():
    event = '[[event]]\nkind = "probe"\nat_s = 1\nuntil_s = 60\nthreshold_ma = 6\nmuscles = ["TA-R"]\n'
    p = patient(event, STEADY)
    size = {ma: float(np.ptp(uv(p, muscle("TA-R"), (2 + k) * RATE, 900, [Pulse((2 + k) * RATE, 5, ma * 1000)])))
            for k, ma in enumerate((4, 5, 6, 7, 9))}  # fmt: skip
    assert size[4] < 1.0
    assert 60 <= size[6] <= 150  # 100 uV is the definition of the threshold
    assert size[9] > 1000
    assert not counts(p, 61 * RATE, 900, [Pulse(61 * RATE, 5, 20_000)]).any()


# ------------------------------------------------------------------ electrodes


def test_every_kind_of_electrode_has_the_impedance_of_its_kind():
    for seed in range(20):
        p = patient(seed=seed, inputs=32)
        for i, label in enumerate(p.names):
            kohm = [p.impedance(i, t * 60 * RATE) / 1000 for t in range(60)]
            if label in ("Fpz", "CP3", "CP4", "CPz", "Cz"):
                assert min(kohm) >= 0.4 and max(kohm) <= 2.0  # corkscrews
            elif label.startswith(("EP", "PF", "C5S")):
                assert min(kohm) >= 1.0 and max(kohm) < 5.0  # discs
            elif not label.startswith("X"):
                assert min(kohm) >= 1.0 and max(kohm) <= 6.0  # needles


def test_an_impedance_that_the_scenario_names_is_that_one():
    p = patient('[[electrode]]\nlabel = "CP4"\nimpedance_kohm = 12\n\n[[electrode]]\nlabel = "CP3"\nkind = "disc"\n')
    assert p.impedance(p.names.index("CP4"), 0) == pytest.approx(12_000, rel=0.07)
    assert load("quiet").electrodes == []


# ------------------------------------------------------------------ exactness

STORY = """
[[event]]
kind = "loss"
at_s = 0.31
nerves = ["median_left"]
ratio = 0.3
ramp_s = 0.2

[[event]]
kind = "cautery"
at_s = 0.55
duration_s = 0.1

[[event]]
kind = "electrode"
at_s = 0.7
until_s = 0.9
electrodes = ["CP4"]
state = "noisy"

[[event]]
kind = "emg"
at_s = 0.8
muscle = "TA-R"
"""


def story(seed: int, cuts: tuple[int, ...], inputs: int = 28, rate_hz: int = RATE) -> np.ndarray:
    p = patient(STORY, noise="", seed=seed, inputs=inputs, rate_hz=rate_hz)
    pulses = [Pulse(k * rate_hz // 7 + 13, k % 4) for k in range(7)] + train(rate_hz * 6 // 10, rate_hz=rate_hz)
    return counts(p, 0, rate_hz * 11 // 10, pulses, cuts)


def test_one_seed_gives_the_same_samples_twice_and_another_seed_others():
    assert np.array_equal(story(5, (500,)), story(5, (500,)))
    assert not np.array_equal(story(5, (500,)), story(6, (500,)))


@pytest.mark.parametrize("cuts", [(1,), (7, 333), (2048,), (5000,), (100, 1, 2047)])
@pytest.mark.parametrize("inputs, rate_hz", [(28, 10_000), (8, 3000)])
def test_the_size_of_the_batches_changes_no_bit(cuts, inputs, rate_hz):
    assert np.array_equal(story(5, cuts, inputs, rate_hz), story(5, (400,), inputs, rate_hz))


def test_a_cable_that_was_out_leaves_the_samples_after_it_as_they_would_have_been():
    whole, jumped = patient(noise=""), patient(noise="")
    first = counts(whole, 0, 30_000)
    counts(jumped, 0, 5000)
    assert np.array_equal(counts(jumped, 20_000, 10_000), first[20_000:])


def test_the_same_stream_comes_at_every_speed_although_a_lead_falls_off_between_two_batches():
    """5 ms batches in real time, 10 ms at max: the lead is off from its own sample on."""
    event = '[[event]]\nkind = "lead_off"\nat_sample = 3037\noutput = 0\n'
    seen = []
    for speed in (1.0, "max"):
        r = Rig(speed=speed, scenario=parse(text(event, STEADY)))
        r.stream()
        for sample in (3030, 3036, 3037, 3045):
            r.device.inject("stray_pulse", at=sample, output=0, amplitude=25_000)
        seen.append(r.counts(4000)[:4000])
    assert seen[0].any() and np.array_equal(*seen)
