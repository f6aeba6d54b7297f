"""Averages of known truth: waves are found where they are, noise is not, and intervals hold the truth."""

import numpy as np
import pytest

from ionmd import catalog
from ionmd.dsp import noise as noises
from ionmd.dsp import waves
from ionmd.dsp.design import design
from ionmd.dsp.presence import effective_dof, f_cdf, f_tail, t_quantile
from ionmd.dsp.zerophase import filter_average
from ionmd.modality.evoked import Measured, choose_derivation, measure_average, presence

RATE = 5000.0
T_MS = np.arange(-100, 300) / 5.0
WINDOW = (182, 261)
TEST = catalog.tests()["ssep_median_left"]
SOS = design(TEST.filter, RATE)


def shape(p2p_uv=3.0, shift_ms=0.0):
    t = T_MS - shift_ms
    wave = -np.exp(-0.5 * ((t - 20.0) / 1.4) ** 2) + 0.9 * np.exp(-0.5 * ((t - 25.0) / 2.2) ** 2)
    return wave * (p2p_uv / np.ptp(filtered(wave)[180:280]))


def filtered(x):
    y = filter_average(SOS, x, True)
    return y - y[..., :95].mean(axis=-1, keepdims=True)


def noise(rng, sweeps, uv=2.5):
    white = rng.normal(size=(sweeps, 400 + 200))
    pink = filter_average(design(TEST.filter, RATE), np.cumsum(white, axis=1), False)[:, 200:]
    return pink * (uv / pink.std())


def measure(sweeps, label="CP4-Fpz"):
    mean = filtered(sweeps.mean(axis=0))
    halves = [filtered(sweeps[k::2].mean(axis=0)) for k in (0, 1)]
    groups = np.array_split(sweeps, max(1, len(sweeps) // 25))
    estimate = noises.estimate(
        mean, halves, [filtered(g.mean(axis=0)) for g in groups], [len(g) for g in groups], WINDOW, 0.2
    )
    return measure_average(TEST, label, mean, -20.0, 0.2, estimate), estimate


def marks(m):
    return {x.label: x for x in m.markers} | {x.label: x for x in m.measures}


def test_a_response_is_found_with_its_latency_amplitude_and_intervals():
    truth = marks(measure(np.tile(shape(), (50, 1)) + 1e-6 * noise(np.random.default_rng(1), 50))[0])
    inside = np.zeros(3)
    seeds = 40
    for seed in range(seeds):
        m, _ = measure(noise(np.random.default_rng(seed), 300) + shape())
        assert m.status == "present"
        got = marks(m)
        assert abs(got["N20"].latency_ms - truth["N20"].latency_ms) < 0.5
        assert abs(got["N20-P23"].amplitude_uv / truth["N20-P23"].amplitude_uv - 1) < 0.25
        for k, name in enumerate(("N20", "P23")):
            lo, hi = got[name].latency_ci_ms
            inside[k] += lo <= truth[name].latency_ms <= hi
        lo, hi = got["N20-P23"].amplitude_ci_uv
        inside[2] += lo <= truth["N20-P23"].amplitude_uv <= hi
    assert (inside >= 0.85 * seeds).all(), inside


def test_zero_stimulus_is_never_present():
    for seed in range(40):
        m, _ = measure(noise(np.random.default_rng(100 + seed), 300))
        assert m.status in ("absent", "uncertain")
        assert all(x.status == "uncertain" for x in m.markers)


def test_residual_noise_is_that_of_the_average_and_falls_with_the_square_root():
    found = {}
    for sweeps in (75, 300):
        values = [measure(noise(np.random.default_rng(s), sweeps))[1].residual_uv for s in range(10)]
        found[sweeps] = float(np.sqrt(np.mean(np.square(values))))
    spread = np.std([filtered(noise(np.random.default_rng(s), 300).mean(axis=0))[182:] for s in range(20)])
    assert found[300] == pytest.approx(spread, rel=0.15)
    assert found[75] / found[300] == pytest.approx(2.0, rel=0.12)


def test_a_single_sub_average_is_judged_from_its_halves_alone():
    rng = np.random.default_rng(3)
    sweeps = noise(rng, 24) + shape(8.0)
    mean, halves = filtered(sweeps.mean(axis=0)), [filtered(sweeps[k::2].mean(axis=0)) for k in (0, 1)]
    estimate = noises.estimate(mean, halves, [mean], [24], WINDOW, 0.2)
    assert estimate.known and estimate.plus_minus_uv == pytest.approx(estimate.residual_uv, rel=0.5)
    assert measure_average(TEST, "CP4-Fpz", mean, -20.0, 0.2, estimate).status == "present"


def test_without_any_noise_estimate_the_verdict_is_uncertain():
    nothing = noises.estimate(filtered(shape()), [], [], [], WINDOW, 0.2)
    m = measure_average(TEST, "CP4-Fpz", filtered(shape()), -20.0, 0.2, nothing)
    assert not nothing.known and m.status == "uncertain" and m.residual_noise_uv is None
    assert {x.status for x in m.markers} == {"uncertain"}


def test_a_slope_at_the_edge_of_a_window_is_not_a_peak():
    rule = waves.WaveRule("N", -1, 20.0, 60.0)
    falling = -np.linspace(0.0, 5.0, 100)
    assert waves.label(falling, [rule], (0, 100))[0].peak is None
    beyond = falling + 3.0 * np.exp(-0.5 * ((np.arange(100) - 10.0) / 3.0) ** 2)
    assert waves.label(beyond, [rule], (0, 100))[0].peak is None


def test_a_parabola_finds_the_place_between_samples():
    x = np.arange(100.0)
    for place in (40.0, 40.25, 40.5, 40.9):
        peak = waves.label(np.cos((x - place) / 20.0), [waves.WaveRule("P", 1, 20.0, 60.0)], (0, 100))[0].peak
        assert peak.position == pytest.approx(place, abs=0.002) and peak.value_uv == pytest.approx(1.0, abs=1e-6)
    flat = np.where((x >= 40) & (x <= 44), 1.0, 0.0)
    assert waves.label(flat, [waves.WaveRule("P", 1, 20.0, 60.0)], (0, 100))[0].peak.index == 42


def test_ordered_waves_never_run_backwards_and_keep_their_distances():
    x = np.arange(200.0)
    curve = sum(a * np.exp(-0.5 * ((x - m) / 4.0) ** 2) for a, m in ((1.0, 50.0), (0.4, 80.0), (2.0, 120.0)))
    first, second = waves.WaveRule("I", 1, 30, 130, 1), waves.WaveRule("II", 1, 30, 130, 2)
    found = [f.peak.index for f in waves.label(curve, [first, second], (0, 200))]
    assert found == [50, 120]
    near = waves.WaveRule("II", 1, 30, 130, 2, (10.0, 45.0))
    found = [f.peak.index for f in waves.label(curve, [first, near], (0, 200))]
    assert found == [80, 120]
    missing = waves.WaveRule("II", -1, 0, 10, 2)
    assert [f.peak and f.peak.index for f in waves.label(curve, [first, missing], (0, 200))] == [120, None]


def test_two_peaks_of_nearly_one_height_are_doubtful():
    rng = np.random.default_rng(5)
    t = T_MS
    twin = 3.0 * -(np.exp(-0.5 * ((t - 18.0) / 0.7) ** 2) + 0.99 * np.exp(-0.5 * ((t - 23.0) / 0.7) ** 2))
    test = catalog.tests()["ssep_median_left"]
    import msgspec

    plain = msgspec.structs.replace(test, marker=[msgspec.structs.replace(r, smooth=0.0) for r in test.marker])
    sweeps = noise(rng, 300) + twin
    mean = filtered(sweeps.mean(axis=0))
    parts = [filtered(g.mean(axis=0)) for g in np.array_split(sweeps, 12)]
    estimate = noises.estimate(mean, [], parts, [25] * 12, WINDOW, 0.2)
    m = marks(measure_average(plain, "CP4-Fpz", mean, -20.0, 0.2, estimate))
    assert m["N20"].status == "uncertain"


def test_distributions_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for d1, d2 in ((1.0, 5.0), (7.3, 22.1), (40.0, 400.0)):
        for f in (0.1, 1.0, 2.5, 8.0):
            assert f_cdf(f, d1, d2) == pytest.approx(stats.f.cdf(f, d1, d2), abs=1e-10)
            assert f_tail(f, d1, d2) == pytest.approx(stats.f.sf(f, d1, d2), rel=1e-8)
    for dof in (3.0, 12.5, 300.0):
        assert t_quantile(0.975, dof) == pytest.approx(stats.t.ppf(0.975, dof), rel=1e-6)


def test_coloured_noise_has_fewer_independent_values_than_samples():
    assert effective_dof(np.array([1.0, 0.0, 0.0]), 100) == pytest.approx(100.0)
    assert effective_dof(0.9 ** np.arange(80.0), 100) < 15.0


def test_presence_score_rises_with_the_response():
    scores = []
    for uv in (0.0, 0.5, 1.0, 2.0, 4.0):
        _, estimate = measure(noise(np.random.default_rng(9), 100))
        mean = filtered(noise(np.random.default_rng(9), 100).mean(axis=0) + shape(max(uv, 1e-9)))
        scores.append(presence(TEST, mean, WINDOW, estimate).score)
    assert scores == sorted(scores) and scores[-1] > 0.999


def test_the_derivation_with_the_best_signal_is_chosen_presence_first():
    a, b, c = (Measured("present", snr_db=9.0), Measured("present", snr_db=14.0), Measured("uncertain", snr_db=20.0))
    assert choose_derivation({"a": a, "b": b, "c": c}, ["a", "b", "c"]) == "b"
    assert choose_derivation({"a": a, "d": a}, ["a", "d"]) == "a"
    assert choose_derivation({}, ["a"]) is None
