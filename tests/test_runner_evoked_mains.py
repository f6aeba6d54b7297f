"""`mains = "subtract"`: taken off every sweep, named in the reading, refused where it cannot be."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ionmd.catalog import load_test, resolve_test
from ionmd.dsp.history import History
from ionmd.errors import ConfigError
from ionmd.model import Block
from ionmd.runner.evoked import EvokedRun
from ionmd.runner.plan import Channel

RATE, PERIOD, INPUTS = 10_000.0, 2_000, 16  # 5/s: a whole number of mains cycles


def averaged(mains: str, sweeps: int = 60):
    test = resolve_test("ssep_median_left")
    test = msgspec.structs.replace(
        test, average=msgspec.structs.replace(test.average, sub_sweeps=10, sweeps=sweeps),
        filter=msgspec.structs.replace(test.filter, mains=mains),
    )
    channels = [Channel(d, k, -1) for k, d in enumerate(test.derivations)]
    run, history = EvokedRun(test, channels, RATE, "simulated", INPUTS, None), History(INPUTS, 30_000, RATE)
    rng, readings, sweeps_seen = np.random.default_rng(1), [], []
    for k in range(sweeps + 8):
        block = Block(PERIOD, INPUTS, RATE)
        block.first, block.n = k * PERIOD, PERIOD
        t = (block.first + np.arange(PERIOD)) / RATE
        hum = 15.0 * np.sin(2 * np.pi * 50.0 * t)
        block.uv[:PERIOD, :INPUTS] = rng.normal(0.0, 3.0, (PERIOD, INPUTS)) + hum[:, None]
        history.push(block.first, block.uv, block.n)
        run.feed(block, [])
        run.expect_trigger(block.first + 500)
        for report in run.collect(history, block.first + PERIOD, []):
            readings += report.readings
            sweeps_seen += report.sweeps
    return run, readings, sweeps_seen


def test_the_mains_is_gone_from_the_average_and_the_reading_says_how_much_it_was():
    kept, plain, _ = averaged("keep")
    run, readings, seen = averaged("subtract")
    assert run.filter_id != kept.filter_id
    last, before = readings[-1], plain[-1]
    assert last.mains_uv == pytest.approx(15.0 / np.sqrt(2.0), rel=0.05) and before.mains_uv is None
    assert b"mains_uv" in msgspec.json.encode(last) and b"mains_uv" not in msgspec.json.encode(before)
    refused = [s for s in seen if s.get("reason") == "mains"]
    assert 1 <= len(refused) <= 6 and refused == seen[: len(refused)]  # only while there was nothing to learn it from


@pytest.mark.parametrize(("text", "said"), [
    ('mains = "subtract"\nnotch_hz = 50.0', "one or the other"), ('mains = "subtract"\nmains_hz = 55.0', "50 or 60 Hz"),
    ("mains_hz = 50.0", "50 or 60 Hz"), ('mains = "remove"', "mains"),
    ('mains = "subtract"\nmains_hz = nan', "mains_hz"),
])  # fmt: skip
def test_what_cannot_be_is_refused_by_name(tmp_path, text, said):
    file = tmp_path / "t.toml"
    file.write_text(
        '[test]\nid = "t"\nmodality = "evoked"\n[epoch]\nstart_ms = -20.0\nstop_ms = 80.0\n[filter]\nkind = "none"\n'
        f"{text}\n[presence]\nwindow_ms = [10.0, 50.0]\n"
    )
    with pytest.raises(ConfigError, match=said):
        load_test(file)


def test_single_sweeps_have_no_mains_taken_off():
    from ionmd.catalog.check import check_test

    motor = resolve_test("mep_tes")
    wrong = msgspec.structs.replace(motor, filter=msgspec.structs.replace(motor.filter, mains="subtract"))
    with pytest.raises(ConfigError, match="only the sweeps of an average"):
        check_test(wrong, "mep.toml")
