"""Blocks: exact samples, exact counting of what was dropped, marks that outlive it, counters that wrap
(docs/wire/ionm1.md 2, 3)."""

from __future__ import annotations

import pytest
from firmware_rig import (
    AUX,
    OUTPUTS,
    PULSE,
    RATE,
    SAFE,
    TRIPPED,
    Unit,
    setup,
    states,
    train,
)

from firmware_sim.core import Firmware
from ionmd.drivers.base import DeviceConfig


@pytest.mark.parametrize("inputs,block", [(1, 1), (1, 148), (4, 37), (8, 20), (16, 9), (64, 40), (3, 4096)])
def test_a_block_is_one_short_transfer_of_exactly_its_samples(inputs, block):
    unit = Unit(config=DeviceConfig(inputs, RATE, block))
    unit.run(5 * block)
    assert [(b.seq, b.first, b.samples, b.session) for b in unit.blocks] == [
        (i, i * block, block, 7) for i in range(5)
    ]
    assert all((b.counts[:, 0] == range(b.first, b.first + b.samples)).all() for b in unit.blocks)
    assert [b.time_ns for b in unit.blocks] == [b.first * 100_000 for b in unit.blocks]
    assert all(b.length % 512 for b in unit.blocks)


def test_saturation_is_flagged_in_the_block_that_holds_it():
    import numpy as np

    unit = Unit()
    for value, flagged in ((0x7FFFFE, 0), (0x7FFFFF, 2), (-0x7FFFFF, 0), (-0x800000, 2), (2**31 - 1, 2), (-(2**31), 2)):
        unit.fw.stim_ticks(20)
        unit.fw.acquire(np.full((20, 4), value, np.int32))
        unit.drain()
        assert unit.blocks[-1].flags == flagged
        assert unit.blocks[-1].counts[0, 0] == max(-0x800000, min(0x7FFFFF, value))


def test_what_does_not_fit_is_dropped_whole_newest_first_and_every_count_is_exact():
    unit = Unit(fifo_bytes=65_536)
    fetched, unit.drain = unit.drain, lambda: None
    unit.run(10_000)
    held = unit.fw.pending_blocks
    dropped = 500 - held
    assert unit.status.dropped == dropped > 0 and unit.status.seq == 500
    assert unit.status.fifo_high >= 900
    unit.drain = fetched
    unit.drain()
    assert [b.seq for b in unit.blocks] == list(range(held))  # the oldest are kept, one after the other
    assert unit.blocks[-1].dropped == 0
    unit.run(40)
    after = unit.blocks[held]
    assert (after.seq, after.first, after.dropped, after.flags & 1) == (500, 10_000, dropped, 1)
    assert unit.blocks[held + 1].flags & 1 == 0 and unit.blocks[held + 1].dropped == dropped


def test_marks_of_dropped_blocks_come_in_the_next_one_with_their_own_samples():
    unit = Unit(fifo_bytes=65_536)
    token = unit.armed(train(gap_ms=20), ttl_ms=60_000)
    fetched, unit.drain = unit.drain, lambda: None
    for _ in range(20):
        assert unit.fire(token) == ""
        unit.run(500)
    unit.drain = fetched
    unit.drain()
    unit.run(100)
    assert [m.sample for m in unit.of(PULSE)] == [p.sample for p in unit.pulses] and len(unit.pulses) == 20
    late = [m for b in unit.blocks for m in b.marks if m.sample < b.first]
    assert late and all(m.kind in (PULSE, 2) for m in late)


def test_a_full_mark_store_trips_because_a_pulse_nobody_hears_of_must_not_be_followed_by_another():
    unit = Unit(fifo_bytes=65_536)
    token = unit.armed(train())
    unit.fire(token, 20_000)
    unit.drain, fetched = (lambda: None), unit.drain
    while unit.fw.sample < 15_000:
        for k in range(2):
            unit.fw.set_aux(3, k == 0)
        unit.run(20)
    assert (unit.status.state, unit.status.trip) == (TRIPPED, 17)
    assert unit.run(10_000) == []
    unit.drain = fetched
    unit.drain()
    unit.run(100)
    assert ("MARKS_LOST" in [reason for _, reason in states(unit.marks)])
    assert len(unit.of(AUX)) >= 200


def test_a_device_that_does_not_stream_sends_status_every_100_ms_into_an_empty_fifo_only():
    unit = Unit(streaming=False)
    unit.run(5000, beats=False)
    assert [(b.type, b.samples, b.first) for b in unit.blocks] == [(4, 0, 1000 * k) for k in range(1, 6)]
    unit.drain, fetched = (lambda: None), unit.drain
    unit.run(5000, beats=False)
    assert unit.fw.pending_blocks == 1
    fetched()
    assert unit.blocks[-1].first == 6000


def test_the_counter_runs_on_without_a_stream_and_without_a_cable_under_one_boot_id():
    unit = Unit()
    boot = unit.fw.boot_id
    unit.run(1000)
    unit.tell(0x41, 0x10, 0)
    unit.fw.skip(333)
    unit.fw.disconnect()
    unit.fw.skip(44_000)
    unit.open()
    unit.stream(8)
    unit.run(100)
    first = next(b for b in unit.blocks if b.session == 8)
    assert (first.first, first.seq, first.dropped, first.boot_id) == (45_333, 0, 0, boot)


def test_a_stream_needs_the_pipe_and_one_start():
    unit = Unit(streaming=False)
    start = (0x41, 0x10, 1, b"\1\0\0\0")
    assert unit.tell(*start) == "" and unit.tell(*start) == "STATE"
    assert unit.send(setup(1, 11, 0)) == "" and not unit.fw.streaming
    assert unit.tell(*start) == "STATE"
    assert unit.send(setup(1, 11, 1)) == "" and unit.tell(*start) == ""
    assert unit.send(setup(0, 9, 0)) == ""
    assert unit.fw.control(setup(0x41, 0x10, 1, 0, 4), b"\1\0\0\0")[0] == -32  # unconfigured: no interface


def test_at_full_speed_the_device_enumerates_but_does_not_stream():
    fw = Firmware(high_speed=False)
    fw.control(setup(0, 9, 1))
    fw.control(setup(1, 11, 1))
    assert fw.control(setup(0x41, 0x10, 1, 0, 4), b"\1\0\0\0")[0] == -32
    status = fw.control(setup(0xC0, 2, 0, 0, 48))[1]
    assert (status[2], status[40]) == (18, 2)


def test_samples_that_the_converter_lost_end_the_block_short_and_the_next_begins_after_them():
    unit = Unit()
    unit.run(30)
    unit.fw.stim_ticks(7)
    unit.fw.acquire_lost(7)
    unit.run(40)
    assert [(b.seq, b.first, b.samples) for b in unit.blocks] == [(0, 0, 20), (1, 20, 10), (2, 37, 20), (3, 57, 20)]


def test_the_block_number_wraps_at_32_bits_and_is_no_gap():
    unit = Unit()
    unit.fw.inject("jump", seq=2**32 - 2)
    unit.run(80)
    assert [(b.seq, b.first) for b in unit.blocks] == [(2**32 - 2, 0), (2**32 - 1, 20), (0, 40), (1, 60)]


@pytest.mark.parametrize("bits", [16, 32, 40])
def test_the_sample_counter_passes_its_powers_of_two_with_exact_pulses_and_rates(bits):
    unit = Unit(streaming=False)
    edge = 1 << bits
    unit.fw.inject("jump", samples=edge - 5000)
    unit.stream()
    unit.beat()
    token = unit.armed(train(gap_ms=100), ttl_ms=10_000)
    for at in (edge - 1000, edge - 1, edge + 999):
        assert unit.fire(token, at) == ""
    assert [p.sample for p in unit.run(10_000)] == [edge - 1000, edge + 999]  # 999 samples are too few between two
    assert [m.sample for m in unit.of(PULSE)] == [edge - 1000, edge + 999]
    assert unit.blocks[0].first == edge - 5000
    assert all(b.first == a.first + a.samples for a, b in zip(unit.blocks, unit.blocks[1:], strict=False))
    assert all(b.time_ns == b.first * 100_000 for b in unit.blocks)
    assert unit.status.state != SAFE


def test_the_rate_of_a_minute_survives_the_low_words_wrap():
    unit = Unit(streaming=False, config=DeviceConfig(1, RATE, 400, OUTPUTS))
    unit.fw.inject("jump", samples=(1 << 32) - 10 * RATE)
    unit.stream()
    unit.beat()
    token = unit.armed(train(2, 1, 5000, 50, 2000), ttl_ms=60_000)
    for _ in range(31):
        assert unit.fire(token, unit.fw.sample + 100) == ""
        unit.run(11_000)
    assert len(unit.pulses) == 60 and unit.pulses[-1].sample > 1 << 32
