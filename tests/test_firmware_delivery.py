"""Pulses: at the samples asked for, measured, marked with what was delivered; what each failure of delivery does."""

from __future__ import annotations

import math

import pytest
from firmware_rig import (
    ARMED,
    CONFIGURED,
    END,
    NERVE,
    NERVE_2,
    OUTPUTS,
    PROBE,
    PULSE,
    RATE,
    REFUSED,
    SAFE,
    TES,
    TRIPPED,
    Unit,
    states,
    train,
)

from ionmd.drivers.base import DeviceConfig, Pulse, Sequence

LAST, NOT_OK, NO_CONTACT, COMPLIANCE, NEGATIVE, VOLTS = 1, 2, 4, 8, 16, 64


def fired(unit: Unit, output: int, n: int, at: int = 1000, **more: object) -> None:
    token = unit.armed(train(n, output, **more))
    assert unit.fire(token, at) == ""
    unit.run(at - unit.fw.sample + 2000)


# ---------------------------------------------------------------- when


@pytest.mark.parametrize("rate_hz", [1000, 9999, 10_000, 20_000, 40_000])
def test_a_train_leaves_at_the_samples_nearest_to_its_times(rate_hz):
    times = (0, 1333, 2667, 4001, 100_049)
    unit = Unit(config=DeviceConfig(2, rate_hz, 20, OUTPUTS))
    sequence = Sequence(PROBE, tuple(Pulse(t, 1000 + i, 100) for i, t in enumerate(times)), zero_at=4)
    token = unit.armed(sequence)
    start = 500 * rate_hz // 10_000
    assert unit.fire(token, start) == ""
    pulses = unit.run(rate_hz // 5 + start)
    assert [p.sample for p in pulses] == [start + (t * rate_hz + 500_000) // 1_000_000 for t in times]
    assert [p.last for p in pulses] == [False] * 4 + [True]
    unit.flush()
    assert [(m.sample, m.pulse, m.set) for m in unit.of(PULSE)] == [
        (p.sample, i, 1000 + i) for i, p in enumerate(pulses)
    ]


@pytest.mark.parametrize("cut", [1, 7, 20, 33, 1000])
def test_the_stream_is_the_same_however_samples_are_handed_on(cut):
    whole, pieces = Unit(), Unit()
    for unit in (whole, pieces):
        unit.fire(unit.armed(train(3)), 501)
        unit.fw.set_aux(3, True, 777)
    whole.run(1000)
    while pieces.fw.sample < 1000:
        pieces.run(min(cut, 1000 - pieces.fw.sample), beats=False)
    assert [(b.seq, b.first, b.state, b.aux, b.marks) for b in whole.blocks] == [
        (b.seq, b.first, b.state, b.aux, b.marks) for b in pieces.blocks
    ]


def test_every_pulse_and_every_delivery_has_its_mark_with_all_that_was_asked():
    unit = Unit()
    sequence = Sequence(NERVE, (Pulse(0, -15_000, 300, True), Pulse(5000, 15_000, 200)), zero_at=1)
    token = unit.armed(sequence, slot=9)
    assert unit.fire(token, 1010, slot=9, nonce=77) == ""
    unit.run(2000)
    a, b = unit.of(PULSE)
    assert (a.sample, a.output, a.slot, a.nonce, a.pulse, a.width_us) == (1010, NERVE, 9, 77, 0, 300)
    assert (a.set, a.delivered, a.value, a.flags) == (-15_000, 15_000, 15_000, NEGATIVE)  # 15 mA x 1 kohm
    assert (b.sample, b.set, b.delivered, b.flags, b.pulse) == (1060, 15_000, 15_000, LAST, 1)
    (end,) = unit.of(END)
    assert (end.sample, end.nonce, end.slot, end.pulse, end.value, end.flags) == (1060, 77, 9, 2, 0, 0)
    # a mark travels in the block that holds its sample
    assert all(b.first <= m.sample < b.first + b.samples for b in unit.blocks for m in b.marks)


def test_no_pulse_is_without_a_mark_and_no_mark_without_a_pulse():
    unit = Unit(config=DeviceConfig(2, RATE, 100, OUTPUTS))
    tokens = [unit.armed(train(2 + o % 2, o, 5000, 60, gap_ms=50), o, 60_000) for o in range(4)]
    for k in range(200):
        unit.fire(tokens[k % 4], unit.fw.sample + 200, slot=k % 4)
        unit.run(500 + k)
    unit.flush()
    assert len(unit.pulses) > 200
    assert [(p.sample, p.nonce, p.pulse, p.output) for p in unit.pulses] == [
        (m.sample, m.nonce, m.pulse, m.output) for m in unit.of(PULSE)
    ]
    assert unit.stim.pulses == len(unit.pulses) and unit.stim.last_pulse == unit.pulses[-1].sample
    assert unit.stim.deliveries == len(unit.of(END)) and unit.stim.refused == len(unit.of(REFUSED))


# ---------------------------------------------------------------- tolerance


@pytest.mark.parametrize("output,set_,edge", [
    (NERVE, 20_000, 2000), (NERVE, 100_000, 10_000), (NERVE, 100, 50), (NERVE, 500, 50), (NERVE, 501, 50),
    (PROBE, 2000, 200), (PROBE, 300, 50), (TES, 400_000, 40_000), (TES, 20_000, 5000), (TES, 50_000, 5000),
])  # fmt: skip
@pytest.mark.parametrize("direction", [-1, 1])
def test_the_tolerance_is_ten_percent_or_its_least_to_the_unit(output, set_, edge, direction):
    for miss, ok in ((edge, True), (edge + 1, False)):
        unit = Unit()
        unit.fw.set_load(output, 1000.0, direction * miss / set_)
        fired(unit, output, 1, amplitude=set_, width_us=50)
        (mark,) = unit.of(PULSE)
        assert mark.delivered == set_ + direction * miss
        assert bool(mark.flags & NOT_OK) is not ok
        assert unit.status.state == (ARMED if ok or direction < 0 else TRIPPED)


# ---------------------------------------------------------------- too little


@pytest.mark.parametrize("output", [NERVE, TES])
def test_two_under_deliveries_in_a_row_abort_a_fixed_pairs_own_output_only(output):
    unit = Unit()
    other = unit.armed(train(output=NERVE_2), 5)
    unit.fw.set_load(output, math.inf)
    fired(unit, output, 4, width_us=60)
    assert [(m.pulse, m.delivered, m.flags & NOT_OK) for m in unit.of(PULSE)] == [(0, 0, NOT_OK), (1, 0, NOT_OK)]
    (end,) = unit.of(END)
    assert (end.reason, end.pulse, end.sample) == ("UNDER_DELIVERY", 2, unit.of(PULSE)[1].sample)
    assert unit.token()[0] == 0 and unit.stim.armed == 1 << 5 and unit.status.state == ARMED
    assert unit.fire(other, slot=5) == "" and len(unit.run(100)) == 1
    assert unit.stim.trips == 0


def test_one_under_delivery_is_marked_and_a_good_pulse_forgives_it():
    unit = Unit()
    token = unit.armed(train(gap_ms=20), ttl_ms=60_000)
    for k in range(6):
        unit.fw.set_load(NERVE, math.inf if k % 2 else 1000.0)
        assert unit.fire(token) == ""
        unit.run(500)
    unit.flush()
    assert [bool(m.flags & NOT_OK) for m in unit.of(PULSE)] == [False, True] * 3
    assert [m.reason for m in unit.of(END)] == ["NONE", "UNDER_DELIVERY"] * 3
    assert unit.token()[0] == token


def test_under_deliveries_count_over_deliveries_and_arming_again_starts_the_count_anew():
    unit = Unit()
    unit.fw.set_load(NERVE, math.inf)
    token = unit.armed(train())
    assert unit.fire(token) == ""
    unit.run(500)
    assert unit.arm(train()) == ""
    assert unit.fire(unit.token()[0]) == ""
    unit.run(500)
    assert unit.status.state == ARMED
    assert unit.fire(unit.token()[0]) == ""
    unit.run(500)
    assert unit.status.state == CONFIGURED


def test_the_compliance_limit_of_a_current_source_shows_and_counts_as_under_delivery():
    unit = Unit()
    unit.fw.set_load(NERVE, 25_000.0)  # 400 V give 16 mA
    fired(unit, NERVE, 1)
    (mark,) = unit.of(PULSE)
    assert (mark.delivered, mark.value) == (16_000, 400_000) and mark.flags & (COMPLIANCE | NOT_OK) == 10


def test_a_probe_in_air_is_no_contact_and_nothing_else_happens():
    unit = Unit()
    unit.fw.set_load(PROBE, math.inf)
    token = unit.armed(train(3, PROBE, 2000, 100))
    for _ in range(20):
        assert unit.fire(token) == ""
        unit.run(1000)
    unit.flush()
    assert len(unit.of(PULSE)) == 60 and all(m.flags & (NOT_OK | NO_CONTACT) == 6 for m in unit.of(PULSE))
    assert {(m.reason, m.flags & 6) for m in unit.of(END)} == {("NO_CONTACT", 6)}
    assert unit.token()[0] == token and unit.status.state == ARMED
    unit.fw.set_load(PROBE, 1500.0)
    unit.fire(token)
    unit.run(1000)
    assert unit.of(END)[-1].reason == "NONE"


@pytest.mark.parametrize("output,state", [(NERVE, CONFIGURED), (PROBE, ARMED)])
def test_a_monitor_that_says_nothing_saw_nothing(output, state):
    unit = Unit()
    unit.fw.inject("monitor_silent", output=output)
    fired(unit, output, 3, amplitude=2000, width_us=100)
    marks = unit.of(PULSE)
    assert all(m.delivered == 0 and m.flags & NOT_OK for m in marks)
    assert unit.status.state == state and len(marks) == (2 if output == NERVE else 3)


# ---------------------------------------------------------------- too much, and nobody asked


@pytest.mark.parametrize("output", [NERVE, TES, PROBE])
def test_one_over_delivery_switches_everything_off_and_latches(output):
    unit = Unit()
    unit.armed(train(output=NERVE_2), 5)
    unit.fw.set_load(output, 1000.0, 0.2)
    fired(unit, output, 4, amplitude=100_000 if output == TES else 20_000, width_us=60)
    assert len(unit.pulses) == 1 and (unit.status.state, unit.status.trip) == (TRIPPED, 15)
    assert unit.stim.armed == 0 and unit.stim.trips == 1
    (end,) = unit.of(END)
    assert (end.reason, end.pulse) == ("OVER_DELIVERY", 1)
    assert states(unit.marks)[-1] == (TRIPPED, "OVER_DELIVERY")
    assert unit.arm(train()) == "TRIPPED" and unit.run(3000) == []


@pytest.mark.parametrize("width_us,edge_us", [(50, 60), (100, 110), (300, 330), (1000, 1100)])
def test_a_pulse_that_lasts_too_long_is_too_much_to_the_edge(width_us, edge_us):
    for measured, state in ((edge_us, ARMED), (edge_us + 1, TRIPPED)):
        unit = Unit()
        unit.fw.inject("shape", output=NERVE, stretch=measured / width_us)
        fired(unit, NERVE, 1, width_us=width_us)
        assert unit.status.state == state and unit.status.trip == (15 if state == TRIPPED else 0)


@pytest.mark.parametrize("output,amplitude", [(NERVE, 20_000), (NERVE, -20_000), (TES, 100_000), (PROBE, -2000)])
def test_a_pulse_of_the_other_polarity_is_too_much(output, amplitude):
    unit = Unit()
    unit.fw.inject("shape", output=output, flip=True)
    fired(unit, output, 3, amplitude=amplitude, width_us=60)
    assert len(unit.pulses) == 1 and (unit.status.state, unit.status.trip) == (TRIPPED, 15)


def test_an_open_circuit_has_neither_length_nor_direction():
    unit = Unit()
    unit.fw.inject("shape", output=PROBE, stretch=9.0, flip=True)
    unit.fw.set_load(PROBE, math.inf)
    fired(unit, PROBE, 3, amplitude=2000, width_us=100)
    assert unit.status.state == ARMED and unit.stim.trips == 0


@pytest.mark.parametrize("state", [SAFE, CONFIGURED, ARMED])
def test_a_stray_pulse_latches_in_every_state_and_is_marked_as_nobodys(state):
    unit = Unit()
    if state:
        unit.load(train())
    if state == ARMED:
        unit.arm(train())
    unit.fw.inject("stray_pulse", at_sample=500, output=NERVE, amplitude=3000, width_us=150, polarity=-1)
    unit.run(1000)
    (mark,) = unit.of(PULSE)
    assert (mark.sample, mark.output, mark.nonce, mark.set, mark.delivered) == (500, NERVE, 0, 0, 3000)
    assert mark.flags == LAST | NOT_OK | NEGATIVE and mark.width_us == 150
    assert states(unit.marks)[-1] == (TRIPPED, "STRAY_PULSE") and unit.stim.trips == 1
    assert [b.state for b in unit.blocks if b.first == 500] == [TRIPPED]


def test_a_second_stray_pulse_is_marked_too_and_the_first_reason_stays():
    unit = Unit()
    unit.fw.set_load(NERVE, 1000.0, 0.5)
    fired(unit, NERVE, 1)
    unit.fw.inject("stray_pulse", output=NERVE_2)
    unit.run(100)
    assert len(unit.of(PULSE)) == 2 and (unit.status.trip, unit.stim.trips) == (15, 1)


def test_a_second_measurement_of_one_pulse_is_a_stray_pulse():
    unit = Unit()
    unit.fw.inject("stray_pulse", at_sample=1000, output=NERVE)
    fired(unit, NERVE, 1, at=1000)
    assert unit.status.trip in (15, 16) and unit.status.state == TRIPPED


def test_a_lie_about_the_state_does_not_hide_the_marks():
    unit = Unit()
    unit.fw.inject("lie_state")
    fired(unit, NERVE, 1)
    assert unit.status.state == SAFE and all(b.state == SAFE for b in unit.blocks)
    assert len(unit.of(PULSE)) == 1 and unit.fw.stim_state == ARMED
