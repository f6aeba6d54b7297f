"""Every event of a scenario does what it says, from its sample on and not before."""

from __future__ import annotations

import numpy as np
import pytest

from firmware_sim.patient.truth import noiseless
from tests.patient_rig import OUTPUT, RATE, SILENT, STEADY, Pulse, counts, muscle, patient, train, uv

AT = 3 * RATE + 17  # an event's sample in these tests


def event(kind: str, at: int = AT, **keys: object) -> str:
    def value(v: object) -> str:
        return str(v).lower() if isinstance(v, bool) else repr(v).replace("'", '"')

    return f'[[event]]\nkind = "{kind}"\nat_sample = {at}\n' + "".join(f"{k} = {value(v)}\n" for k, v in keys.items())


def first_difference(events: str, noise: str | None, n: int = 4 * RATE, pulses=(), inputs: int = 28) -> int | None:
    """First sample that the event changes, by comparison with the same patient without it."""
    a, b = (counts(patient(e, STEADY, noise, inputs=inputs), 0, n, pulses, (1000,)) for e in (events, ""))
    rows = np.flatnonzero((a != b).any(axis=1))
    return int(rows[0]) if len(rows) else None


def n20_p23(p, at: int, side: str = "left") -> float:
    pair = ("CP4", "Fpz") if side == "left" else ("CP3", "Fpz")
    wave = uv(p, pair, at, 600, [Pulse(at, OUTPUT[f"median_{side}"])])
    return float(wave[210:320].max() - wave[160:240].min())


# ------------------------------------------------------------------ at its sample


@pytest.mark.parametrize(
    "text, starts_at",
    [
        (event("cautery", duration_s=0.05), AT),
        (event("emg", muscle="TA-R", pattern="train"), AT),
        (event("emg", muscle="TA-R", pattern="burst"), AT + 1),  # its envelope begins at zero
        (event("electrode", electrodes=["CP4"], state="off"), AT),
        (event("electrode", electrodes=["CP4"], state="saturated"), AT),
        (event("electrode", electrodes=["CP4"], state="noisy"), AT),
        (event("electrode", electrodes=["CP4", "C5S"], state="flat"), AT),
    ],
    ids=["cautery", "A-train", "burst", "off", "saturated", "noisy", "flat"],
)
def test_what_electrodes_see_changes_at_the_sample_and_not_before(text, starts_at):
    assert first_difference(text, "") in range(starts_at, starts_at + 3)


@pytest.mark.parametrize(
    "text",
    [
        event("loss", nerves=["median_left"], stage="limb", ratio=0.5),
        event("loss", nerves=["median_left"], stage="cortex", ratio=0.0),
        event("latency", nerves=["median_left"], shift_ms=1.0),
        event("fade", ratio=0.5, ramp_s=0.0),
        event("temperature", to_c=33, ramp_s=0.0),
        event("relaxant", block=0.9, onset_s=0.001),
    ],
    ids=["limb loss", "cortical loss", "latency", "fade", "temperature", "relaxant"],
)
def test_an_answer_is_changed_for_pulses_from_the_sample_on_and_for_none_before(text):
    at = 2000 if "relaxant" in text else 0  # a drug needs its time
    before, after = [Pulse(AT - 1, 0)], [Pulse(AT + at, 0)]
    assert first_difference(text, SILENT + "artefact = 0\n", pulses=before) is None
    assert first_difference(text, SILENT + "artefact = 0\n", pulses=after) is not None


def test_an_event_in_seconds_is_at_the_sample_of_the_rate_in_force():
    text = '[[event]]\nkind = "cautery"\nat_s = 0.25\nduration_s = 0.1\n'
    for rate in (2000, 10_000):
        a, b = (counts(patient(e, noise="", rate_hz=rate, inputs=8), 0, rate // 2) for e in (text, ""))
        changed = np.flatnonzero((a != b).any(axis=1))
        assert changed[0] == rate // 4
        assert changed[-1] == rate // 4 + rate // 10 - 1


# ------------------------------------------------------------------ what it does


def test_a_loss_goes_down_its_ramp_stays_and_comes_back_as_far_as_it_says():
    p = patient(
        '[[event]]\nkind = "loss"\nat_s = 10\nnerves = ["median_left"]\nstage = "brainstem"\nratio = 0.2\nramp_s = 4\n'
        "until_s = 30\nrecover_ramp_s = 10\nrecover_to = 0.8\n",
        STEADY, lsb_uv=0.002,
    )  # fmt: skip
    size = {t: n20_p23(p, t * RATE) for t in (5, 12, 20, 29, 35, 45)}
    relative = [round(size[t] / size[5], 2) for t in (12, 20, 29, 35, 45)]
    assert relative == pytest.approx([0.6, 0.2, 0.2, 0.5, 0.8], abs=0.02)


def test_a_loss_above_the_plexus_leaves_the_plexus_and_the_other_side():
    p = patient(event("loss", nerves=["median_left"], stage="cord", ratio=0.0), STEADY)
    rows = counts(p, AT, 600, [Pulse(AT, OUTPUT["median_left"])]) * p.lsb_uv
    assert np.ptp(rows[:, p.names.index("EPL")]) > 3.0
    for label in ("CP4", "CP3", "C5S", "Fpz"):
        assert not rows[:, p.names.index(label)].any()
    assert n20_p23(p, AT + RATE, "right") > 1.5


def test_a_loss_at_the_plexus_takes_everything_with_it():
    p = patient(event("loss", nerves=["median_left"], stage="limb", ratio=0.0), STEADY)
    assert not counts(p, AT, 600, [Pulse(AT, OUTPUT["median_left"])])[:, :8].any()


def test_a_loss_of_muscles_takes_the_mep_and_leaves_the_m_wave():
    p = patient(event("loss", muscles=["APB-R"], ratio=0.0), STEADY)
    assert not np.ptp(uv(p, muscle("APB-R"), AT, 1500, train(AT)))
    assert np.ptp(uv(p, muscle("APB-L"), AT + 3 * RATE, 1500, train(AT + 3 * RATE))) > 200
    at = AT + 6 * RATE
    assert np.ptp(uv(p, muscle("APB-R"), at, 600, [Pulse(at, OUTPUT["median_right"])])) > 2000


def test_a_fade_lowers_cortex_and_muscles_on_both_sides_and_no_peripheral_nerve():
    p, q = (patient(e, STEADY, lsb_uv=0.002) for e in (event("fade", ratio=0.4, ramp_s=0.0), ""))
    for side in ("left", "right"):
        at = AT + (RATE if side == "right" else 0)
        assert n20_p23(p, at, side) / n20_p23(q, at, side) == pytest.approx(0.4, abs=0.08)  # P14 falls to the root only
    at = AT + 5 * RATE
    erb = [uv(x, ("EPL", "EPR"), at, 300, [Pulse(at, 0)]) for x in (p, q)]
    assert np.array_equal(*erb)
    meps = [np.ptp(uv(patient(e, STEADY), muscle("TA-L"), AT, 1500, train(AT)))
            for e in (event("fade", ratio=0.4, ramp_s=0.0), "")]  # fmt: skip
    assert meps[0] / meps[1] == pytest.approx(0.4, abs=0.02)


def test_a_latency_shift_moves_the_wave_and_keeps_its_size():
    p = patient(event("latency", nerves=["median_left"], stage="cord", shift_ms=1.5), STEADY, lsb_uv=0.002)
    moved = uv(p, ("CP4", "Fpz"), AT, 600, [Pulse(AT, 0)])
    plain = uv(patient(body=STEADY, lsb_uv=0.002), ("CP4", "Fpz"), AT, 600, [Pulse(AT, 0)])
    assert np.abs(moved[160:500] - plain[145:485]).max() < 0.02


def test_anaesthesia_fades_meps_and_cortical_responses_by_the_hour():
    body = STEADY.replace("sep_fade_per_hour = 0", "sep_fade_per_hour = 0.1").replace(
        "mep_fade_per_hour = 0", "mep_fade_per_hour = 0.3"
    )
    p = patient(body=body, lsb_uv=0.002)
    early = n20_p23(p, RATE), np.ptp(uv(p, muscle("AH-L"), 2 * RATE, 1500, train(2 * RATE)))
    late = 3600 * RATE
    after = n20_p23(p, late), np.ptp(uv(p, muscle("AH-L"), late + RATE, 1500, train(late + RATE)))
    assert after[0] / early[0] == pytest.approx(0.9, abs=0.02)
    assert after[1] / early[1] == pytest.approx(0.7, abs=0.02)


def test_amplitudes_wander_as_much_as_the_scenario_says():
    body = STEADY.replace("drift = 0", "drift = 0.1")
    p = patient(body=body, lsb_uv=0.002)
    size = [n20_p23(p, k * 40 * RATE) for k in range(90)]
    assert 0.05 < np.std(size) / np.mean(size) < 0.15


def test_single_cortical_responses_vary_by_sweep_cv():
    body = STEADY.replace("sweep_cv = 0\n", "sweep_cv = 0.2\n")
    p = patient(body=body, lsb_uv=0.002)
    size = [n20_p23(p, k * RATE) for k in range(150)]
    assert 0.15 < np.std(size) / np.mean(size) < 0.25


def test_a_relaxant_fades_a_train_of_four_and_wears_off():
    p = patient('[[event]]\nkind = "relaxant"\nat_s = 10\nblock = 0.9\nonset_s = 20\nhalf_life_s = 120\n', STEADY)

    def four(at_s: int) -> list[float]:
        at = at_s * RATE
        wave = uv(p, muscle("APB-R"), at, 2 * RATE, [Pulse(at + k * RATE // 2, 1) for k in range(4)])
        return [float(np.ptp(wave[k * RATE // 2 : k * RATE // 2 + 200])) for k in range(4)]

    free, deep, lighter, late = (four(t) for t in (2, 40, 70, 900))
    assert free[3] / free[0] > 0.95
    assert deep[0] < 0.5 * free[0] and deep[3] < 0.5 * deep[0]
    assert lighter[0] > 0.8 * free[0] and lighter[3] < 0.85 * lighter[0]  # the fade outlasts the fall of the first
    assert late[3] / late[0] > 0.95


def test_a_lead_that_falls_off_is_open_from_its_sample_to_its_end():
    p = patient(event("lead_off", output=0, until_s=5.0))
    assert p.load(0, AT - 1)[0] < 5000
    assert p.load(0, AT)[0] == p.load(0, 5 * RATE - 1)[0] == float("inf")
    assert p.load(0, 5 * RATE)[0] < 5000
    assert p.load(1, AT)[0] < 5000
    assert p.load_changes(AT - 100, 200) == [AT]


def test_an_output_that_delivers_half_says_so_in_its_gain():
    p = patient(event("stim_gain", output=2, factor=0.5))
    assert p.load(2, AT)[1] / p.load(2, AT - 1)[1] == pytest.approx(0.5)


def test_the_probe_is_open_until_it_touches():
    p = patient(event("probe", until_s=5.0))
    assert p.load(5, AT - 1)[0] == float("inf")
    assert p.load(5, AT)[0] < 5000
    assert p.load(5, 5 * RATE)[0] == float("inf")


# ------------------------------------------------------------------ noise


def band(wave: np.ndarray, low_hz: float, high_hz: float, rate_hz: float = RATE) -> float:
    """rms of that band."""
    f = np.fft.rfftfreq(len(wave), 1 / rate_hz)
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2 / np.mean(np.hanning(len(wave)) ** 2)
    return float(np.sqrt(2 * power[(f >= low_hz) & (f < high_hz)].sum()) / len(wave))


def only(**levels: float) -> str:
    """A noise table in which everything but these is silent."""
    rows = dict(row.split(" = ") for row in SILENT.splitlines()) | {k: str(v) for k, v in levels.items()}
    return "".join(f"{k} = {v}\n" for k, v in rows.items()) + "artefact = 0\n"


@pytest.mark.parametrize("mains_hz", [50.0, 60.0, 59.97])
def test_mains_have_the_frequency_and_level_of_the_scenario(mains_hz):
    p = patient(noise=only(mains_uv=10) + f"mains_hz = {mains_hz}\n")
    wave = counts(p, 0, 20 * RATE).astype(float)[:, p.names.index("CP4")] * p.lsb_uv
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    peak_hz = np.argmax(spectrum) / 20
    assert peak_hz == pytest.approx(mains_hz, abs=0.05)
    assert 2 < band(wave, mains_hz - 2, mains_hz + 2) < 20
    assert band(wave, mains_hz + 5, 2 * mains_hz) < 0.1


def test_mains_keep_their_phase_for_an_hour():
    p = patient(noise=only(mains_uv=100), inputs=4)
    early = counts(p, 0, 200)
    late = counts(p, 3600 * RATE, 200)  # a whole number of cycles later
    assert np.abs(early - late).max() <= 2


def test_eeg_and_emg_have_the_levels_of_the_scenario():
    p = patient(noise=only(eeg_uv=2.0, frontal_uv=3.0))
    rows = counts(p, 0, 30 * RATE).astype(float) * p.lsb_uv
    assert band(rows[:, p.names.index("CP3")], 30, 500) == pytest.approx(2.0, rel=0.1)
    assert band(rows[:, p.names.index("Fpz")], 30, 500) == pytest.approx(3.0, rel=0.1)
    p = patient(noise=only(emg_uv=4.0))
    rows = counts(p, 0, 30 * RATE).astype(float) * p.lsb_uv
    assert band(rows[:, p.names.index("TA-L+")], 30, 500) == pytest.approx(0.7 * 4.0, rel=0.1)


def test_an_amplifier_alone_is_white():
    p = patient(noise=only(amplifier_uv=2.0), lsb_uv=0.002)
    wave = counts(p, 0, 20 * RATE).astype(float)[:, 1] * p.lsb_uv
    octaves = [band(wave, f, 2 * f) / np.sqrt(f) for f in (100, 400, 1600)]
    assert max(octaves) / min(octaves) < 1.2


def test_no_two_inputs_and_no_two_minutes_have_the_same_noise():
    p = patient(noise=only(eeg_uv=2.0), lsb_uv=0.002)
    rows = counts(p, 0, 100 * RATE).astype(float)[:, 1:5]
    assert np.abs(np.corrcoef(rows.T) - np.eye(4)).max() < 0.1
    one, other = rows[: 40 * RATE, 0], rows[60 * RATE :, 0]
    for shift in (0, 1 << 19, 3**12):  # the lengths of the banks
        a, b = rows[: len(rows) - shift, 0], rows[shift:, 0]
        assert shift == 0 or abs(np.corrcoef(a, b)[0, 1]) < 0.75  # one of the two banks again, never both
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_a_heart_beats_at_every_electrode_and_not_in_step_with_anything():
    p = patient(noise=only(ecg_uv=40))
    wave = counts(p, 0, 30 * RATE).astype(float)[:, p.names.index("C5S")] * p.lsb_uv
    beats = np.flatnonzero((wave[1:-1] > 20) & (wave[1:-1] >= wave[:-2]) & (wave[1:-1] > wave[2:]))
    gaps = np.diff(beats) / RATE
    assert 30 <= len(beats) <= 40
    assert 0.01 < gaps.std() < 0.1


# ------------------------------------------------------------------ trouble at the electrodes


def test_an_electrode_that_is_off_shows_mains_and_an_infinite_impedance_and_comes_back():
    p = patient(event("electrode", electrodes=["CP4"], state="off", until_s=6.0), noise="")
    k = p.names.index("CP4")
    rows = counts(p, 0, 7 * RATE).astype(float) * p.lsb_uv
    assert band(rows[AT : 6 * RATE, k], 48, 52) > 20 * band(rows[:AT, k], 48, 52)
    assert band(rows[AT : 6 * RATE, k + 1], 48, 52) < 3 * band(rows[:AT, k + 1], 48, 52)
    assert p.impedance(k, AT - 1) < 3000 and p.impedance(k, 6 * RATE) < 3000
    assert p.impedance(k, AT) == p.impedance(k, 6 * RATE - 1) == float("inf")


def test_a_flat_electrode_is_flat_a_saturated_one_at_its_end_stop_and_a_noisy_one_noisy():
    for state, kohm in (("flat", 0.1), ("saturated", 60.0), ("noisy", 22.0)):
        p = patient(event("electrode", electrodes=["Cz"], state=state), noise="")
        k = p.names.index("Cz")
        rows = counts(p, 0, 5 * RATE)
        during, before = rows[AT:, k], rows[:AT, k]
        assert p.impedance(k, AT) == pytest.approx(kohm * 1000)
        if state == "flat":
            assert not during.any()
        elif state == "saturated":
            assert (during == 0x7FFFFF).all()
        else:
            assert band(during.astype(float), 30, 500) > 1.5 * band(before.astype(float), 30, 500)


def test_an_impedance_of_a_fault_is_the_one_that_the_scenario_names():
    p = patient(event("electrode", electrodes=["Cz"], state="noisy", impedance_kohm=45))
    assert p.impedance(p.names.index("Cz"), AT) == 45_000


def test_cautery_is_everywhere_and_its_line_follows_only_when_it_is_sensed():
    sensed = patient(event("cautery", duration_s=0.5, level_uv=5000.0), noise="")
    rows = counts(sensed, AT, RATE).astype(float) * sensed.lsb_uv
    loud, quiet = rows[: RATE // 2].std(axis=0), rows[RATE // 2 :].std(axis=0)
    assert (loud > 500).all() and (quiet < 500).all()
    assert sensed.aux(AT - 10, 2 * RATE) == [(AT, 0, 1), (AT + RATE // 2, 0, 0)]
    unsensed = patient(event("cautery", duration_s=0.5, sensed=False), noise="")
    assert unsensed.aux(0, 10 * RATE) == []


def test_free_emg_is_in_its_muscle_with_its_pattern():
    p = patient(event("emg", muscle="DELT-L", pattern="train", duration_s=1.0, amplitude_uv=200.0, rate_hz=100.0))
    wave = uv(p, muscle("DELT-L"), AT, 2 * RATE)
    assert np.ptp(wave[:RATE]) == pytest.approx(200, rel=0.25)
    assert np.argmax(np.abs(np.fft.rfft(wave[:RATE]))) == 100
    assert not wave[RATE:].any()
    assert not uv(patient(event("emg", muscle="DELT-L")), muscle("DELT-R"), AT, 4000).any()


def test_lines_of_the_unit_change_at_their_sample():
    p = patient(event("aux", line="probe_button", level=1) + event("aux", at=AT + 500, line="probe_button", level=0))
    assert p.aux(AT, 1) == [(AT, 2, 1)]
    assert p.aux(AT - 1, 1) == []
    assert p.aux(0, AT + 1000) == [(AT, 2, 1), (AT + 500, 2, 0)]


def test_faults_of_the_unit_come_at_their_sample_in_order():
    late = event("device", at=500, fault="drop", count=3)
    early = event("device", at=400, fault="freeze", duration_s=0.5)
    p = patient(late + early)
    found = p.device_faults(0, 1000)
    assert [(f.sample, f.kind, f.count, f.duration_samples) for f in found] == [
        (400, "freeze", 1, 5000), (500, "drop", 3, 0),
    ]  # fmt: skip
    assert p.device_faults(401, 99) == []


# ------------------------------------------------------------------ truth


def test_the_truth_is_what_the_samples_show():
    p = patient(body=STEADY, lsb_uv=0.001)
    told = p.truth()["responses"]["ssep_median_left"]["CP4-Fpz"]
    wave = uv(p, ("CP4", "Fpz"), 0, 600, [Pulse(0, OUTPUT["median_left"])])
    assert np.abs(wave - noiseless(p, "median_left", "CP4-Fpz")[:600]).max() < 0.01
    assert (160 + np.argmin(wave[160:240])) / 10 == pytest.approx(told["latency_ms"], abs=0.2)
    assert wave[210:320].max() - wave[170:230].min() == pytest.approx(told["peak_to_peak_uv"], abs=0.02)


def test_the_truth_names_onset_side_cause_and_derivations_of_a_loss():
    text = event("loss", nerves=["median_right"], muscles=["APB-R"], stage="brainstem", ratio=0.1, ramp_s=2.0,
                 side="right", level="C5")  # fmt: skip
    (told,) = patient(text).truth()["changes"]
    assert (told["patient"], told["cause"], told["side"], told["level"]) == (True, "focal", "right", "C5")
    assert (told["onset_sample"], told["full_sample"], told["until_sample"]) == (AT, AT + 2 * RATE, None)
    assert told["derivations"] == {"ssep_median_right": ["CP3-Fpz", "CP3-CP4"], "mep_tes": ["APB-R"]}


@pytest.mark.parametrize(
    "text, concerns_patient, cause",
    [
        (event("loss", nerves=["median_left"], stage="limb", cause="peripheral"), True, "peripheral"),
        (event("latency", nerves=["median_left"]), True, "peripheral"),
        (event("fade"), True, "systemic"),
        (event("temperature", to_c=34), True, "systemic"),
        (event("lead_off", output=0), False, "technical"),
        (event("stim_gain", output=0, factor=0.5), False, "technical"),
        (event("electrode", electrodes=["C5S"]), False, "technical"),
        (event("cautery"), False, "technical"),
        (event("device", fault="drop"), False, "technical"),
    ],
)
def test_the_truth_tells_trouble_of_the_patient_from_trouble_of_the_cart(text, concerns_patient, cause):
    (told,) = patient(text).truth()["changes"]
    assert (told["patient"], told["cause"], told["onset_sample"]) == (concerns_patient, cause, AT)


def test_the_truth_of_a_lost_electrode_lists_what_it_takes_down():
    (told,) = patient(event("electrode", electrodes=["EPL"])).truth()["changes"]
    assert told["derivations"] == {"ssep_median_left": ["EPL-EPR"], "ssep_median_right": ["EPR-EPL"]}
