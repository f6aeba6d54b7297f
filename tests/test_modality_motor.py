"""Single muscle responses: found and timed, and an artefact's tail is not one of them."""

import numpy as np
import pytest

from ionmd import catalog
from ionmd.modality.despike import Despike
from ionmd.modality.emg import EmgStream
from ionmd.modality.motor import blank_end_ms, measure_sweep
from ionmd.modality.tof import measure_train
from ionmd.testdef import FreeEmg

DT = 0.05
T_MS = np.arange(-400, 2000) * DT
MEP = catalog.tests()["mep_tes"]


def response(onset_ms, p2p_uv, phases=2, length_ms=8.0):
    u = (T_MS - onset_ms) / length_ms
    wave = np.where((u >= 0) & (u <= 1), np.sin(np.pi * phases * u) * np.sqrt(np.clip(np.sin(np.pi * u), 0, 1)), 0.0)
    return wave * p2p_uv / np.ptp(wave)


def tail(size_uv, rng):
    """What a stimulus leaves after the blank: a decaying swing."""
    t = np.clip(T_MS - 8.0, 0.0, None)
    return np.where(T_MS > 8.0, size_uv * np.exp(-t / 4.0) * np.cos(2 * np.pi * t / 13.0 + rng.uniform(0, 6.28)), 0.0)


def blanked(sweep):
    clean = sweep.copy()
    clean[(T_MS >= -0.5) & (blank_end_ms(MEP) > T_MS)] = 0.0
    return clean


@pytest.mark.parametrize("phases", [2, 3, 5])
@pytest.mark.parametrize("uv", [60.0, 100.0, 1000.0])
def test_onset_and_size_of_a_response_on_an_artefact_tail(phases, uv):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        onset = rng.uniform(18.0, 32.0)
        sweep = blanked(response(onset, uv, phases, 4.0 * phases) + tail(20.0, rng) + rng.normal(0, 1.5, len(T_MS)))
        m = measure_sweep(MEP, "APB-L", sweep, T_MS[0], DT)
        assert m.status == "present"
        assert abs(m.markers[0].onset_ms - onset) <= (0.5 if uv >= 100.0 else 0.8)
        assert m.measures[0].amplitude_uv == pytest.approx(uv, rel=0.25)


def test_an_artefact_tail_alone_is_absent_but_keeps_a_number():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        m = measure_sweep(MEP, "APB-L", blanked(tail(60.0, rng) + rng.normal(0, 1.5, len(T_MS))), T_MS[0], DT)
        assert m.status == "absent" and m.markers == []
        assert m.measures[0].amplitude_uv > 0.0


def test_a_response_outside_its_muscles_window_is_not_that_muscles():
    rng = np.random.default_rng(0)
    sweep = blanked(response(60.0, 300.0) + rng.normal(0, 1.5, len(T_MS)))
    assert measure_sweep(MEP, "APB-L", sweep, T_MS[0], DT).status == "absent"
    assert measure_sweep(MEP, "AH-L", sweep, T_MS[0], DT).status == "present"


def test_the_blank_ends_after_the_last_pulse_of_the_train():
    assert blank_end_ms(MEP) == 2.0 + 4 * 2.0


def test_a_silent_flat_sweep_is_absent():
    assert measure_sweep(MEP, "APB-L", np.zeros(len(T_MS)), T_MS[0], DT).status == "absent"


def test_train_of_four_counts_answers_and_gives_the_ratio():
    tof = catalog.tests()["tof"]
    t = np.arange(-100, 800) * DT

    def twitch(uv, seed):
        u = (t - 5.0) / 9.0
        wave = np.where((u >= 0) & (u <= 1), np.sin(2 * np.pi * u), 0.0) * uv / 2
        return wave + np.random.default_rng(seed).normal(0, 2.0, len(t))

    full = measure_train(tof, "AH-R", [twitch(4000.0, s) for s in range(4)], t[0], DT)
    assert full.count == 4 and full.ratio == pytest.approx(1.0, abs=0.02)
    fade = measure_train(tof, "AH-R", [twitch(u, s) for s, u in enumerate((2000, 1400, 900, 500))], t[0], DT)
    assert fade.count == 4 and fade.ratio == pytest.approx(0.25, abs=0.02)
    two = measure_train(tof, "AH-R", [twitch(u, s) for s, u in enumerate((1500, 600, 0, 0))], t[0], DT)
    assert two.count == 2 and two.ratio == 0.0 and two.sizes_uv[2:] == (None, None)
    none = measure_train(tof, "AH-R", [twitch(0.0, s) for s in range(4)], t[0], DT)
    assert none.count == 0 and none.ratio is None and none.status == "absent"


def burst_signal():
    rng = np.random.default_rng(2)
    x = rng.normal(0, 5.0, (20000, 2))
    x[8000:10000, 0] += rng.normal(0, 100.0, 2000)
    return x


def run_emg(x, cuts):
    stream = EmgStream(FreeEmg(), x.shape[1], 4000.0)
    windows, bursts = [], []
    for part in np.split(x, cuts):
        w, b = stream.feed(part)
        windows += w
        bursts += b
    return windows, bursts + stream.finish(), stream


def test_a_burst_is_told_when_it_is_certain_and_again_when_it_ends():
    windows, bursts, stream = run_emg(burst_signal(), [])
    assert [b.stop is None for b in bursts] == [True, False]
    assert abs(bursts[1].start - 8000) < 120 and abs(bursts[1].stop - 10000) < 120
    assert {b.channel for b in bursts} == {0}
    assert stream.quiet_uv(0) == pytest.approx(5.0, rel=0.15)
    assert windows[0].rms_uv[1] == pytest.approx(5.0, rel=0.15)


def test_cutting_the_stream_elsewhere_changes_nothing():
    x = burst_signal()
    whole, cut = run_emg(x, []), run_emg(x, [1, 2, 77, 3001, 3002, 9001])
    assert whole[1] == cut[1]
    assert [w.rms_uv.tolist() for w in whole[0]] == [w.rms_uv.tolist() for w in cut[0]]


def test_single_sample_outliers_are_flagged_and_bridged_and_real_peaks_are_not():
    rng = np.random.default_rng(4)
    x = rng.normal(0, 3.0, (5000, 1))
    x[2000:2012, 0] += 400 * np.sin(np.linspace(0, np.pi, 12))
    y = x.copy()
    for k in (10, 500, 4000):
        y[k] = 100.0
    for cuts in ([], [11, 12, 501, 3999], list(range(1, 5000, 7))):
        despike = Despike(25.0, 1)
        clean = np.concatenate([*(despike.feed(p) for p in np.split(y, cuts)), despike.finish()])
        assert [k for k, _ in despike.places] == [10, 500, 4000]
        assert len(clean) == len(y) and np.abs(clean - x).max() < 20.0
        assert (clean[2000:2012] == x[2000:2012]).all()


def test_an_outlier_that_recurs_is_found_inside_activity_too():
    rng = np.random.default_rng(9)
    x = np.convolve(rng.normal(0.0, 1.0, 20_000), np.hanning(20), "same") * 3.0  # as smooth as EMG
    x[12_000:] *= 12.0
    due = np.arange(500, 20_000, 1001)
    x[due] = 100.0
    despike = Despike(25.0, 1)
    out = np.concatenate([despike.feed(x[k : k + 250, None]) for k in range(0, len(x), 250)] + [despike.finish()])
    assert [sample for sample, _ in despike.places] == due.tolist()
    assert not (out[due, 0] == 100.0).any()
