"""A derivation that went dead between two sweeps is refused sweep by sweep, and that becomes a state."""

from __future__ import annotations

import msgspec
import numpy as np

from ionmd.catalog import resolve_test
from ionmd.dsp.history import History
from ionmd.model import Block
from ionmd.runner.evoked import EvokedRun
from ionmd.runner.plan import Channel

RATE, PERIOD, INPUTS = 10_000.0, 1_000, 16


def test_sweeps_refused_as_flat_are_all_rejected_once_a_sub_average_has_passed():
    test = resolve_test("ssep_median_left")
    test = msgspec.structs.replace(test, average=msgspec.structs.replace(test.average, sub_sweeps=5))
    channels = [Channel(d, k, -1) for k, d in enumerate(test.derivations)]
    run, history = EvokedRun(test, channels, RATE, "simulated", INPUTS, None), History(INPUTS, 30_000, RATE)
    rng, flips = np.random.default_rng(1), {}
    for sweep in range(20):
        block = Block(PERIOD, INPUTS, RATE)
        block.first, block.n = sweep * PERIOD, PERIOD
        block.uv[:PERIOD, :INPUTS] = rng.normal(0.0, 5.0, (PERIOD, INPUTS))
        if sweep >= 11:
            block.uv[:PERIOD, 0] *= 1e-4  # the first derivation is dead from here on
        history.push(block.first, block.uv, block.n)
        run.feed(block, [])
        run.expect_trigger(block.first + 300)
        for report in run.collect(history, block.first + PERIOD, []):
            flips |= report.rejecting
    assert flips == {test.derivations[0].label: True}
