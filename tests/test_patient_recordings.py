"""The patient that ships against the recordings it was fitted to, and the patient that is made of them."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.interpolate
import scipy.signal
from click.testing import CliRunner

from bench import fit_patient
from firmware_sim.patient import Patient
from firmware_sim.patient.recorded import Recordings, band_pass, marks
from firmware_sim.patient.truth import noiseless
from firmware_sim.scenario import load
from firmware_sim.unit import build, check
from ionmd.agenda import Step
from ionmd.cli import main
from ionmd.errors import ConfigError
from tests.data_dir import data_dir
from tests.patient_rig import OUTPUT, RATE, Pulse, counts
from tests.rig import SCENARIOS, CaseRun, opening

BAND = (30.0, 500.0)
SHAPE_MS = (15.0, 35.0)
ALIKE = 0.9  # correlation of the shapes, landmarks aligned
OCTAVE_FACTOR = 1.5  # of the noise density in each octave


@pytest.fixture(scope="module")
def data() -> Path:
    return data_dir()


@pytest.fixture(scope="module")
def shipped() -> Patient:
    made = Patient(load("quiet"), 1)
    made.configure(28, RATE, 0.03125)
    return made


@pytest.fixture(scope="module")
def sites(data) -> tuple[np.ndarray, np.ndarray]:
    """(time_ms, uv[CPc CPi CPz Cz Fpz]) of the recorded average at the places of our electrodes, 30-500 Hz."""
    t, uv, unit = fit_patient.sphara(data)
    uv = uv - uv[:, (t > -30) & (t < -5)].mean(axis=1, keepdims=True)
    uv[:, (t > -3) & (t < 7)] = 0.0
    at = scipy.interpolate.RBFInterpolator(unit, uv, kernel="thin_plate_spline", smoothing=0.05)
    return t, band_pass(at(fit_patient.site_vectors()), 2048.0, *BAND)


# ------------------------------------------------------------------ the patient that ships


def test_the_table_that_ships_is_the_fit_of_these_recordings(data):
    again = tomllib.loads(fit_patient.as_toml(fit_patient.fit(data)))
    assert tomllib.loads(fit_patient.TABLE.read_text(encoding="utf-8")) == again


@pytest.mark.parametrize("minus, ours", [("Fpz", "CP3-Fpz"), ("CPi", "CP3-CP4")])
def test_the_cortical_shape_is_that_of_the_recording(shipped, sites, minus, ours):
    """15-35 ms, N20 and the positivity after it moved on one another: latencies are those of the norms (next test),
    and this subject's positivity comes at 29.6 ms."""
    t_ms, uv = sites
    recorded = uv[0] - uv[fit_patient.SITES.index(minus)]
    model = noiseless(shipped, "median_right", ours)
    t = np.arange(len(model)) * 1000 / RATE
    model = band_pass(model, RATE, *BAND)
    (rn, rp, _), (mn, mp, _) = marks(t_ms, recorded), marks(t, model)
    moved = np.interp(np.interp(t, [mn - 10, mn, mp, mp + 30], [rn - 10, rn, rp, rp + 30]), t_ms, recorded)
    look = (t >= SHAPE_MS[0]) & (t <= SHAPE_MS[1])
    assert np.corrcoef(moved[look], model[look])[0, 1] >= ALIKE


def test_the_derivations_have_the_proportions_of_the_recording(shipped, sites):
    t_ms, uv = sites
    t = np.arange(shipped.answers.wave_samples) * 1000 / RATE

    def sizes(of) -> float:
        return of("CP3-Fpz") / of("CP3-CP4")

    recorded = sizes(lambda d: marks(t_ms, uv[0] - uv[4 if d == "CP3-Fpz" else 1])[2])
    model = sizes(lambda d: marks(t, band_pass(noiseless(shipped, "median_right", d), RATE, *BAND))[2])
    assert model == pytest.approx(recorded, rel=0.35)


def norms(data: Path) -> dict[str, tuple[float, float]]:
    """wave -> (mean, standard deviation) of the adults, ms."""
    seen: dict[str, list[float]] = {}
    with (data / "allison1983-sep-norms" / "allison-t-1983_SEPs.csv").open() as f:
        for row in csv.DictReader(f):
            if float(row["AGE"]) >= 18:
                seen.setdefault(row["Potential"], []).append(float(row["Latency"]))
    return {k: (float(np.mean(v)), float(np.std(v))) for k, v in seen.items()}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("wave", ["N10", "N13a", "N20", "P22"])
def test_latencies_lie_within_two_standard_deviations_of_the_norms(shipped, data, side, wave):
    mark, c = ("L", "CP4") if side == "left" else ("R", "CP3")
    derivation, sign, low, high = {
        "N10": (f"EP{mark}-EP{'R' if mark == 'L' else 'L'}", -1, 7, 14), "N13a": ("C5S-Fpz", -1, 10, 18),
        "N20": (f"{c}-Fpz", -1, 17, 23), "P22": (f"{c}-Fpz", 1, 21, 28),
    }[wave]  # fmt: skip
    shape = sign * noiseless(shipped, f"median_{side}", derivation)
    latency_ms = (low * 10 + int(np.argmax(shape[low * 10 : high * 10]))) / 10
    mean, deviation = norms(data)[wave]
    assert abs(latency_ms - mean) <= 2 * deviation


def octaves(psd: np.ndarray, f: np.ndarray) -> np.ndarray:
    """Amplitude density of each octave from 30 Hz to 960 Hz."""
    return np.array([np.sqrt(psd[(f >= low) & (f < 2 * low)].mean()) for low in 30.0 * 2.0 ** np.arange(5)])


def density(x: np.ndarray, rate_hz: float) -> np.ndarray:
    f, p = scipy.signal.welch(x, rate_hz, nperseg=2048, detrend="linear", axis=-1)
    p = np.median(p, axis=0) if p.ndim > 1 else p
    for line in (50, 100, 150, 250):
        near = abs(f - line) < 4
        p[near] = np.median(p[(abs(f - line) < 12) & ~near])
    return octaves(p, f)


def model_noise(shipped: Patient, label: str) -> np.ndarray:
    bare = msgspec.structs.replace(load("quiet").noise, mains_uv=0.0, ecg_uv=0.0, amplifier_uv=0.05)
    p = Patient(msgspec.structs.replace(load("quiet"), noise=bare), 4)
    p.configure(28, RATE, 0.002)
    return counts(p, 0, 30 * RATE).astype(float)[:, p.names.index(label)].reshape(30, RATE) * 0.002


@pytest.mark.parametrize("label, recording", [("CP3", "eeg"), ("TA-L+", "emg")])
def test_noise_has_the_spectrum_of_the_recording_in_every_octave(shipped, data, label, recording):
    if recording == "eeg":
        theirs = density(fit_patient.pre_stimulus(data), 5000.0)
    else:
        theirs = density(fit_patient.emg(data)[:48_000].reshape(12, 4000), 4000.0)
    ours = density(model_noise(shipped, label), RATE)
    ratio = ours / theirs
    ratio /= np.exp(np.log(ratio).mean())  # the level is the scenario's
    assert (np.abs(np.log(ratio)) <= np.log(OCTAVE_FACTOR)).all(), ratio


# ------------------------------------------------------------------ the patient made of recordings


@pytest.fixture
def recorded(data, monkeypatch):
    """A patient of real_ssep; `calm` without artefact, mains and variation from sweep to sweep."""
    monkeypatch.setenv("IONMD_DATA", str(data))

    def make(seed: int = 3, calm: bool = False, rate_hz: int = RATE) -> Patient:
        s = load("real_ssep")
        if calm:
            noise = msgspec.structs.replace(s.noise, artefact=0.0, mains_uv=0.0, ecg_uv=0.0, offset_mv=0.0)
            s = msgspec.structs.replace(s, noise=noise, patient=msgspec.structs.replace(s.patient, sweep_cv=0.0))
        p = Patient(s, seed)
        p.configure(8, rate_hz, 0.002 if calm else 0.03125)
        return p

    return make


def cp4_fpz(p: Patient, n: int, pulses=()) -> np.ndarray:
    rows = counts(p, 0, n, pulses, (2000,)).astype(float) * p.lsb_uv
    return rows[:, p.names.index("CP4")] - rows[:, p.names.index("Fpz")]


def sweeps(wave: np.ndarray, rate_hz: float, pre: int = 200, post: int = 600) -> np.ndarray:
    """Epochs at that trigger rate, 30-500 Hz."""
    at = np.round(np.arange(1, int(len(wave) / RATE * rate_hz) - 1) * RATE / rate_hz).astype(int)
    filtered = band_pass(wave, RATE, *BAND)
    return np.stack([filtered[k - pre : k + post] for k in at])


def test_one_seed_gives_the_same_recorded_patient_whatever_the_cutting(recorded):
    pulses = [Pulse(k * 3921 + 5, k % 2) for k in range(20)]
    one = counts(recorded(), 0, 80_000, pulses, (20,))
    assert np.array_equal(one, counts(recorded(), 0, 80_000, pulses, (4999, 1)))
    assert not np.array_equal(one, counts(recorded(4), 0, 80_000, pulses, (500,)))


def test_a_single_sweep_has_the_noise_of_the_recording(recorded, data):
    p = recorded(calm=True)
    rms = sweeps(cp4_fpz(p, 120 * RATE), 2.55).std(axis=1)
    assert 2.2 <= np.sqrt(np.mean(rms**2)) <= 2.8
    assert np.sqrt(np.mean(rms**2)) == pytest.approx(p.truth()["recordings"]["noise_uv_rms"], rel=0.1)
    assert rms.std() / rms.mean() > 0.1  # real noise is not even


@pytest.mark.parametrize("rate_hz", [2.55, 4.0, 5.1], ids=["demo", "grid of the stretches", "fast"])
def test_noise_averages_away_as_independent_noise_does(recorded, rate_hz):
    cut = sweeps(cp4_fpz(recorded(calm=True), 120 * RATE), rate_hz)
    expected = np.sqrt(np.mean(cut**2) / len(cut))
    assert cut.mean(axis=0).std() == pytest.approx(expected, rel=0.35)


def test_no_stimulus_of_the_recording_leaks_into_the_noise(data):
    trials = Recordings.open(data).trials_uv
    band = band_pass(trials, 5000.0, *BAND)[:, 100:-100]
    t_value = band.mean(axis=0) / (band.std(axis=0) / np.sqrt(len(band)))
    assert np.abs(t_value).max() < 5.0  # over 2250 instants; the artefact at 500 ms would give hundreds
    assert band[:, -100:].std() < 1.3 * band[:, :-100].std()


def test_a_response_is_the_recorded_shape_at_three_microvolts_after_the_pulse(recorded):
    n, at = 2000, 300
    quiet, answered = (cp4_fpz(recorded(calm=True), n, p) for p in ([], [Pulse(at, OUTPUT["median_left"])]))
    shape = answered - quiet
    assert not shape[: at + 10].any()
    wave = band_pass(shape, RATE, *BAND)
    n20, p23, size = marks((np.arange(n) - at) / 10, wave)
    told = recorded(calm=True).truth()["recordings"]
    assert size == pytest.approx(3.0, rel=0.02)
    assert (n20, p23) == pytest.approx((told["n20_ms"], told["p23_ms"]), abs=0.1)


def test_only_the_wrist_that_was_stimulated_has_an_answer_and_only_if_something_was_delivered(recorded):
    quiet = cp4_fpz(recorded(calm=True), 2000)
    for pulse in (Pulse(300, OUTPUT["median_left"], 0), Pulse(300, OUTPUT["median_right"])):
        assert np.array_equal(cp4_fpz(recorded(calm=True), 2000, [pulse]), quiet)


def test_how_much_of_the_recording_was_heard_is_reported(recorded):
    p = recorded()
    heard = []
    for k in range(4):
        counts(p, k * 10 * RATE, 10 * RATE)
        told = p.truth()["recordings"]
        heard.append(told["noise_unique_s"])
    assert heard == sorted(heard) and 5 < heard[0] < heard[-1] <= told["noise_available_s"]
    assert told["noise_available_s"] == pytest.approx(told["noise_trials"] * 0.49, abs=0.1)


def test_the_simulator_reports_it_at_its_control_socket(recorded):
    recorded()  # IONMD_DATA
    device = build("real_ssep", "max")
    device.run_until(5000)
    assert device.state()["recordings"]["noise_available_s"] > 20
    assert "recordings" not in build("quiet", "max").state()


def test_real_ssep_tells_the_demos_story_at_the_same_times():
    real, demo = load("real_ssep"), load("demo")
    assert [(type(e), e.at_s) for e in real.events] == [(type(e), e.at_s) for e in demo.events]
    times = {(s.method, s.at_s) for s in demo.operator_steps}
    assert {(s.method, s.at_s) for s in real.operator_steps} <= times  # all but the MEPs and the train of four
    assert {e.at_s for e in real.events} == {380.0, 590.0}


def test_a_loss_in_the_real_signals_is_found_and_a_lead_off_is_not_one(data, monkeypatch, tmp_path):
    """The story in short: loss on the right at 75 s, the left lead falls off at 105 s."""
    monkeypatch.setenv("IONMD_DATA", str(data))
    story = msgspec.structs.replace(load("real_ssep"), events=load(SCENARIOS / "loss.toml").events)
    tests = ["ssep_median_left", "ssep_median_right"]
    agenda = opening()
    agenda += [Step(2500, "test.set", {"test": t, "rate_hz": 5.1, "sweeps": 150}) for t in tests]
    agenda.append(Step(3000, "test.start", {"tests": tests, "lease": "script"}))
    agenda += [Step(66 * RATE, "baseline.set", {"test": t, "kind": "pre-position", "reason": "stable"}) for t in tests]
    agenda.append(Step(118 * RATE, "case.close", {"reason": "end"}))
    case = CaseRun(tmp_path, story, agenda, 119.0).run()
    assert case.refusals() == []
    alarms = [a for a in case.of("alarm") if a.state == "active"]
    patient = {a.test for a in alarms if a.kind == "physiological"}
    assert patient == {"ssep_median_right"}
    assert {a.side for a in alarms if a.kind == "physiological"} == {"right"}
    assert [a.code for a in alarms if a.kind == "technical"][:1] == ["stimulus.not-delivered"]


# ------------------------------------------------------------------ without the recordings


def test_missing_recordings_are_named_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("IONMD_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"sep_average_dev_channels\.csv is not there; set IONMD_DATA"):
        check(load("real_ssep"))
    (tmp_path / "sphara-sep").mkdir()
    (tmp_path / "sphara-sep" / "sep_average_dev_channels.csv").write_text("")
    with pytest.raises(ConfigError, match=r"SEP_trials_odd\.mat is not there"):
        check(load("real_ssep"))


def test_a_damaged_recording_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("IONMD_DATA", str(tmp_path))
    for folder, name in (("sphara-sep", "sep_average_dev_channels.csv"), ("artacs-sep", "SEP_trials_odd.mat")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("10,1,2,3\n")
    with pytest.raises(ConfigError, match="a recording is damaged: not a MATLAB"):
        Patient(load("real_ssep"))


@pytest.mark.parametrize("verb", [["run", "--simulate", "real_ssep"], ["demo", "--fast", "--scenario", "real_ssep"]])
def test_the_command_line_says_which_recording_is_missing_before_anything_starts(monkeypatch, tmp_path, verb):
    monkeypatch.setenv("IONMD_DATA", str(tmp_path))
    result = CliRunner().invoke(main, [*verb, "--state-dir", str(tmp_path / "state")])
    assert result.exit_code == 2
    assert "sep_average_dev_channels.csv is not there; set IONMD_DATA" in result.output
    assert not (tmp_path / "state").exists()
