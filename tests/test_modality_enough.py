"""A test says how many sweeps it needs, and may stop when it has them."""

import msgspec
import numpy as np
import pytest

from ionmd import testdef as td
from ionmd.dsp.history import History
from ionmd.model import Block, Derivation
from ionmd.runner.evoked import EvokedRun
from ionmd.runner.plan import Channel

RATE, PERIOD = 2000.0, 300


def definition(**averaging):
    return td.TestDefinition(
        td.TestHead("two_waves", "evoked"), td.Epoch(-20.0, 60.0, (-20.0, -1.0)), td.Filter(band_hz=(10.0, 300.0)),
        td.Blank(method="none"), td.Averaging(sweeps=400, sub_sweeps=20, reject_uv=200.0, **averaging),
        marker=[td.MarkerRule("N20", "negative", (15.0, 25.0), order=1),
                td.MarkerRule("P30", "positive", (25.0, 38.0), order=2)],
        measure=[td.MeasureRule("N20-P30", "N20", "P30")],
    )  # fmt: skip


def readings(test, noise_uv, sweeps=440):
    rng = np.random.default_rng(11)
    t = np.arange(-40, 120) / 2.0
    wave = -3.0 * np.exp(-0.5 * ((t - 20) / 2.5) ** 2) + 3.0 * np.exp(-0.5 * ((t - 31) / 3.0) ** 2)
    n = PERIOD * (sweeps + 2)
    x = rng.normal(0.0, noise_uv, n)
    zeros = [PERIOD * (k + 1) for k in range(sweeps)]
    for z in zeros:
        x[z - 40 : z + 120] += wave
    run = EvokedRun(test, [Channel(Derivation("C-F", "C", "F"), 0, -1)], RATE, "replay", 16, None)
    block, history, found = Block(PERIOD, 1, RATE), History(16, 4 * PERIOD, RATE), []
    for k in range(n // PERIOD):
        block.clear()
        block.first, block.n = k * PERIOD, PERIOD
        block.uv[:PERIOD, 0] = x[k * PERIOD : (k + 1) * PERIOD]
        history.push(block.first, block.uv, PERIOD)
        run.feed(block, [])
        if 1 <= k <= sweeps:
            run.expect_trigger(k * PERIOD)
        found += [r for report in run.collect(history, (k + 1) * PERIOD, []) for r in report.readings]
    return found


def test_the_need_is_told_early_and_is_about_right():
    found = readings(definition(enough_share=0.1), 12.0)
    recent = [r.sweeps_needed for r in found if r.kind == "recent" and r.sweeps_needed is not None]
    whole = [r for r in found if r.kind == "average"]
    assert whole[0].sweeps == 400 and whole[0].sweeps_needed is not None
    assert np.median(recent) == pytest.approx(whole[0].sweeps_needed, rel=0.6)
    half = whole[0].measures[0].amplitude_ci_uv[1] - whole[0].measures[0].amplitude_uv
    assert whole[0].sweeps_needed == pytest.approx(400 * (half / whole[0].measures[0].amplitude_uv / 0.1) ** 2, abs=1.0)


def test_a_test_that_may_stop_stops_with_the_interval_it_asked_for():
    found = [r for r in readings(definition(enough_share=0.3, stop_when_enough=True), 12.0) if r.kind == "average"]
    assert 40 <= found[0].sweeps < 400 and found[0].sweeps_needed <= found[0].sweeps
    m = found[0].measures[0]
    assert m.amplitude_ci_uv[1] - m.amplitude_uv <= 0.3 * m.amplitude_uv


def test_noise_alone_never_has_enough():
    test = definition(enough_share=0.3, stop_when_enough=True)
    quiet = msgspec.structs.replace(test, marker=[msgspec.structs.replace(m, window_ms=(44.0 + 4 * i, 50.0 + 4 * i))
                                                  for i, m in enumerate(test.marker)])  # fmt: skip
    assert [r.sweeps for r in readings(quiet, 12.0) if r.kind == "average"] == [400]


def test_nothing_is_said_where_nothing_is_asked():
    assert all(r.sweeps_needed is None for r in readings(definition(), 12.0, 60))
