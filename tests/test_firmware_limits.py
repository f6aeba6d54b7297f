"""Both edges of every limit of the stimulator, one device unit on either side (docs/wire/ionm1.md 7.8), in the firmware
and, with the same sequences, in the host."""

from __future__ import annotations

import pytest
from firmware_rig import NERVE, NERVE_2, OUTPUTS, PROBE, RATE, TES, Unit, train

from ionmd.drivers.base import DeviceConfig, OutputConfig, Pulse, Sequence
from ionmd.errors import Refused
from ionmd.stim.limits import PROBE as PROBE_LIMITS
from ionmd.stim.limits import TRANSCRANIAL, TRANSCUTANEOUS, check_sequence

KINDS = {NERVE: TRANSCUTANEOUS, TES: TRANSCRANIAL, PROBE: PROBE_LIMITS}


def one(output: int, amplitude: int, width_us: int, biphasic: bool = False) -> Sequence:
    return Sequence(output, (Pulse(0, amplitude, width_us, biphasic),), OUTPUTS[output].kind == 2)


def steps(output: int, n: int, step_us: int, amplitude: int = 1000, width_us: int = 50) -> Sequence:
    return train(n, output, amplitude, width_us, step_us)


CASES = [
    # amplitude, uA or mV
    (one(NERVE, 1, 50), True), (one(NERVE, 100_000, 1000), True), (one(NERVE, 100_001, 50), False),
    (one(NERVE, -100_000, 50), True), (one(NERVE, -100_001, 50), False), (one(NERVE, -(2**31), 50), False),
    (one(NERVE, 2**31 - 1, 50), False),
    (one(TES, 1, 50), True), (one(TES, 1_000_000, 50), True), (one(TES, 1_000_001, 50), False),
    (one(PROBE, 1, 50), True), (one(PROBE, 40_000, 50), True), (one(PROBE, 40_001, 50), False),
    # width, us
    (one(NERVE, 1000, 49), False), (one(NERVE, 1000, 50), True), (one(NERVE, 1000, 1000), True),
    (one(NERVE, 1000, 1001), False), (one(NERVE, 1000, 0), False), (one(NERVE, 1000, 65_535), False),
    (one(TES, 1000, 49), False), (one(TES, 1000, 50), True), (one(TES, 1000, 100), True), (one(TES, 1000, 101), False),
    (one(PROBE, 1000, 49), False), (one(PROBE, 1000, 50), True), (one(PROBE, 1000, 300), True),
    (one(PROBE, 1000, 301), False),
    # energy into 1 kohm: 50 mJ.  100 mA x 1 ms is 10 mJ, so only the voltage source can reach it
    (one(TES, 816_496, 75), True), (one(TES, 816_497, 75), False),
    (one(TES, 1_000_000, 50, True), False), (one(TES, 707_106, 50, True), True), (one(TES, 707_107, 50, True), False),
    (one(TES, 707_106, 100), True), (one(TES, 707_107, 100), False),
    # pulses of one delivery
    (steps(NERVE, 4, 2000), True), (steps(NERVE, 5, 2000), False), (steps(TES, 9, 1000), True),
    (steps(TES, 10, 1000), False), (steps(PROBE, 5, 1000), True), (steps(PROBE, 6, 1000), False),
    # interval, us
    (steps(NERVE, 2, 1999), False), (steps(NERVE, 2, 2000), True), (steps(NERVE, 2, 10_000_000), True),
    (steps(TES, 2, 999), False), (steps(TES, 2, 1000), True), (steps(TES, 2, 10_000), True),
    (steps(TES, 2, 10_001), False), (steps(PROBE, 2, 999), False), (steps(PROBE, 2, 1000), True),
]  # fmt: skip


@pytest.mark.parametrize("sequence,allowed", CASES)
def test_each_limit_holds_at_its_edge_in_the_firmware_and_in_the_host(sequence, allowed):
    assert Unit().load(sequence) == ("" if allowed else "LIMIT")
    if allowed:
        check_sequence(sequence, KINDS[sequence.output])
    else:
        with pytest.raises(Refused):
            check_sequence(sequence, KINDS[sequence.output])


@pytest.mark.parametrize("output,lowered", [(NERVE, 30_000), (TES, 250_000), (PROBE, 5000)])
def test_a_lower_ceiling_of_an_output_holds_at_its_edge(output, lowered):
    outputs = list(OUTPUTS)
    outputs[output] = OutputConfig(OUTPUTS[output].kind, OUTPUTS[output].hand_held, lowered)
    unit = Unit(config=DeviceConfig(4, RATE, 20, tuple(outputs)))
    assert unit.load(one(output, lowered, 50)) == "" and unit.load(one(output, lowered + 1, 50)) == "LIMIT"
    assert unit.load(one(output, -lowered - 1, 50)) == "LIMIT"


def test_an_amplitude_of_the_wrong_unit_or_an_unused_output_is_refused():
    unit = Unit(config=DeviceConfig(4, RATE, 20, (OutputConfig(1), OutputConfig(2), OutputConfig(0))))
    assert unit.load(Sequence(0, (Pulse(0, 1000, 50),), volts=True)) == "RANGE"
    assert unit.load(Sequence(1, (Pulse(0, 1000, 50),), volts=False)) == "RANGE"
    assert unit.load(Sequence(2, (Pulse(0, 1000, 50),), volts=False)) == "RANGE"


# ---------------------------------------------------------------- between deliveries


def refused(unit: Unit) -> list[str]:
    unit.flush()
    return [m.reason for m in unit.of(6)]


@pytest.mark.parametrize("output,gap_ms", [(NERVE, 15), (TES, 1000), (PROBE, 50)])
def test_the_gap_counts_from_the_last_pulse_of_a_delivery_to_the_first_of_the_next(output, gap_ms):
    for early in (1, 0):
        unit = Unit()
        sequence = train(2, output, 5000, 50, 4000)
        token = unit.armed(sequence)
        last = 1000 + 40
        assert unit.fire(token, 1000) == ""
        assert unit.fire(token, last + gap_ms * 10 - early) == ""
        pulses = unit.run(last + gap_ms * 10 + 100)
        assert len(pulses) == (2 if early else 4)
        assert refused(unit) == (["RATE"] if early else [])


def test_a_sequence_may_ask_for_a_longer_gap_after_or_before_itself():
    for first, second in ((300, 0), (0, 300)):
        for early in (1, 0):
            unit = Unit()
            tokens = [unit.armed(train(1, gap_ms=gap), slot) for slot, gap in enumerate((first, second))]
            unit.fire(tokens[0], 1000)
            unit.fire(tokens[1], 1000 + 3000 - early, slot=1)
            assert len(unit.run(5000)) == (1 if early else 2)
            assert refused(unit) == (["RATE"] if early else [])


def test_the_gap_of_one_output_does_not_hold_another_up_but_the_dead_time_does():
    for wait, word in ((11, "DEAD_TIME"), (12, "")):  # 200 us of pulse, then 1 ms
        unit = Unit()
        tokens = [unit.armed(train(output=output), slot) for slot, output in enumerate((NERVE, NERVE_2))]
        unit.fire(tokens[0], 1000)
        unit.fire(tokens[1], 1000 + wait, slot=1)
        assert [p.output for p in unit.run(2000)] == ([NERVE] if word else [NERVE, NERVE_2])
        assert refused(unit) == ([word] if word else [])


def test_a_biphasic_pulse_is_twice_as_long_for_the_dead_time():
    for wait, word in ((13, "DEAD_TIME"), (14, "")):
        unit = Unit()
        tokens = [unit.armed(train(output=o, biphasic=True), slot) for slot, o in enumerate((NERVE, NERVE_2))]
        unit.fire(tokens[0], 1000)
        unit.fire(tokens[1], 1000 + wait, slot=1)
        unit.run(2000)
        assert refused(unit) == ([word] if word else [])


def test_while_a_train_runs_no_other_one_starts_on_any_output():
    unit = Unit()
    tokens = [unit.armed(train(4, NERVE, step_us=100_000), 0), unit.armed(train(output=NERVE_2), 1)]
    unit.fire(tokens[0], 1000)
    for at in (1500, 2500, 3999):
        unit.fire(tokens[1], at, slot=1)
    unit.fire(tokens[1], 4012, slot=1)
    pulses = unit.run(6000)
    assert [(p.output, p.sample) for p in pulses] == [(NERVE, 1000 + 1000 * k) for k in range(4)] + [(NERVE_2, 4012)]
    assert refused(unit) == ["DEAD_TIME"] * 3


@pytest.mark.parametrize("output,per_minute,n,period_ms", [(TES, 60, 2, 1100), (PROBE, 1200, 5, 70),
                                                           (NERVE, 3000, 4, 30)])  # fmt: skip
@pytest.mark.parametrize("early", [1, 0])
def test_pulses_of_one_output_in_any_minute_are_limited_and_the_minute_slides(output, per_minute, n, period_ms, early):
    unit = Unit(config=DeviceConfig(1, RATE, 400, OUTPUTS))
    token = unit.armed(train(n, output, 5000, 50, 2000), ttl_ms=60_000)
    for k in range(per_minute // n + 1):
        at = unit.fw.sample + 100
        assert unit.fire(token, at) == ""
        unit.run(period_ms * RATE // 1000)
        assert len(unit.pulses) == min(per_minute, n * (k + 1))
    assert refused(unit) == ["RATE"]
    free = unit.pulses[n - 1].sample + 60 * RATE  # when the whole first delivery is a minute old
    while unit.fw.sample < free - 5000:
        unit.run(min(RATE, free - 4000 - unit.fw.sample))
        assert unit.beat() == ""
    # the token lives on: a fire waits within its time to live
    assert unit.fire(token, free - early) == ""
    unit.run(RATE)
    assert len(unit.pulses) == per_minute + (0 if early else n)
    assert refused(unit) == ["RATE"] * (1 + early)
