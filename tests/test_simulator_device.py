"""The unit's time and its faults, in virtual time: pacing, window, FIFO, unplug, and every fault by name."""

from __future__ import annotations

import struct

import pytest

from firmware_sim import faults
from firmware_sim.pacing import batch_samples, next_batch
from firmware_sim.scenario import parse
from ionmd.timers import WINDOW_MS
from tests.sim_rig import Rig, setup

WINDOW = WINDOW_MS * 10  # samples at 10 kHz


def rig(**options):
    made = Rig(**options)
    made.stream()
    return made


# ------------------------------------------------------------------ time


def test_at_max_the_device_runs_one_window_ahead_of_the_stream_start_and_waits():
    r = rig()
    r.turn(1.0)
    r.drain()
    r.turn(1.0)
    assert r.device.firmware.sample == WINDOW
    assert r.device.wait_s(r.now_s) is None


def test_at_max_a_heartbeat_moves_the_window():
    r = rig()
    r.turn(1.0)
    r.drain()
    r.beat(1000)
    assert r.device.wait_s(r.now_s) == 0.0
    r.turn(1.0)
    assert r.device.firmware.sample == 1000 + WINDOW


def test_at_max_a_host_that_does_not_read_loses_nothing():
    r = rig(inputs=64, rate_hz=40_000, block_samples=40)
    for _ in range(4):
        r.turn(0.1)
        r.beat(r.device.firmware.sample)
    held = r.drain()
    assert 64 * 3 * held[-1].first < 1 << 20  # it stopped when the FIFO was full
    assert held[-1].dropped == 0
    assert [h.seq for h in held] == list(range(len(held)))


def test_at_max_time_stands_still_while_nothing_streams():
    r = Rig()
    r.turn(5.0)
    assert r.device.firmware.sample == 0


def test_in_real_time_a_host_that_does_not_read_overflows_the_fifo():
    r = rig(speed=1.0, inputs=64, rate_hz=40_000, block_samples=40)
    r.turn(0.3)
    r.drain()
    r.turn(0.01)
    late = r.drain()
    assert late[-1].dropped > 0
    assert abs(r.device.firmware.sample - 12_400) <= 200


@pytest.mark.parametrize("speed, ppm", [(1.0, 0.0), (4.0, 0.0), (1.0, 500.0), (1.0, -500.0)])
def test_the_device_clock_is_wall_time_times_speed_and_its_own_error(speed, ppm):
    r = rig(speed=speed, ppm=ppm)
    r.turn(0.0)
    start = r.device.firmware.sample
    for _ in range(20):
        r.turn(0.1)
        r.drain()
    expected = 2.0 * speed * 10_000 * (1 + ppm * 1e-6)
    assert expected - 100 <= r.device.firmware.sample - start <= expected


def test_a_machine_that_cannot_keep_up_slips_the_clock_and_says_how_much():
    r = rig(speed=1.0)
    r.turn()
    r.now_s += 30.0
    r.turn(0.1)
    assert r.device.state()["slipped_s"] > 28


def test_the_same_stream_is_cut_into_the_same_batches_whatever_the_block_length():
    for block in (1, 7, 20, 99, 100, 250, 4096):
        batch = batch_samples(10_000, block, 10.0)
        at, cuts = 0, []
        while at < 5 * 4096:
            n = next_batch(at, block, batch)
            assert 1 <= n <= 100 or n == block
            at += n
            cuts.append(at)
        assert all(edge in cuts for edge in range(batch, 4096, batch)) or block > 100
        assert all(edge in cuts for edge in range(block, 4096, block)) or block < 100


def test_samples_are_the_same_at_any_speed():
    def first_second(speed):
        r = rig(speed=speed, scenario="quiet")
        out = []
        while len(out) < 100:
            r.turn(0.01)
            while (got := r.read()) is not None:
                out.append(got[1][64 : 64 + 480])
            r.beat(len(out) * 20)
        return out[:100]

    assert first_second("max") == first_second("max") == first_second(4.0)


def test_step_gives_a_driver_without_usb_the_same_stream():
    r = rig()
    seen = []
    while len(seen) < 200:
        if not r.device.step():
            blocks = r.drain()
            seen += blocks
            r.beat(blocks[-1].first + 20)
    assert [h.seq for h in seen] == list(range(len(seen)))


def test_step_passes_a_silent_spell_and_a_cable_without_waiting():
    r = rig()
    r.device.inject("silent", ms=2000)
    for _ in range(1000):
        if not r.device.step():
            break
    assert r.device.firmware.sample >= 20_000
    got = r.drain()
    r.device.inject("unplug", replug_ms=1000)
    at = r.device.firmware.sample
    assert not r.device.step()
    assert r.device.plugged
    assert not r.device.firmware.streaming
    assert r.device.firmware.sample == at + 10_000
    assert got[0].first == 0


def test_step_does_not_run_away_under_an_endpoint_that_is_wedged_for_ever():
    r = rig()
    r.device.inject("wedge")
    assert sum(r.device.step() for _ in range(1000)) < 1000


def test_impedance_mode_lets_time_pass_at_max_although_nothing_streams():
    r = Rig()
    assert r.control(setup(0x41, 0x30, 1, 0, 8), struct.pack("<Q", 0b101))[0] == 0
    r.turn(5.0)
    assert r.device.firmware.impedance_input is None
    at = r.device.firmware.sample
    assert at > 0
    r.turn(5.0)
    assert r.device.firmware.sample == at


# ------------------------------------------------------------------ faults of blocks


def test_blocks_are_dropped_doubled_spoiled_and_swapped_at_the_sample_asked_for():
    r = rig()
    r.device.inject("drop", at=205, n=2)
    r.device.inject("duplicate", at=405)
    r.device.inject("corrupt", at=605)
    r.device.inject("bit_error", at=805, bit=700)
    r.device.inject("reorder", at=1005, window=3)
    got = r.samples(1400)
    assert [h.seq for h in got if 9 <= h.first // 20 <= 12] == [9, 12]
    assert [h.seq for h in got].count(20) == 2
    assert [h.seq for h in got if not h.good] == [30, 40]
    order = [h.seq for h in got]
    assert order[order.index(49) + 1 : order.index(53)] == [52, 51, 50]
    assert got[-1].dropped == 0  # the device did nothing wrong


def test_a_stall_asks_for_one_clear_each():
    r = rig()
    r.turn()
    r.device.inject("stall", n=2)
    for _ in range(2):
        assert r.read()[0] == -32
        assert r.control(setup(0x02, 1, 0, 0x81))[0] == 0
    assert r.read()[0] == 0


def test_babble_ends_transfers_with_an_overflow():
    r = rig()
    r.turn()
    r.device.inject("babble", n=2)
    assert [r.read()[0] for _ in range(3)] == [-75, -75, 0]


@pytest.mark.parametrize("kind, lost", [("silent", True), ("overflow", True)])
def test_a_silent_device_goes_on_counting_in_wall_time_and_its_fifo_overflows(kind, lost):
    r = rig(inputs=64, rate_hz=40_000, block_samples=40)
    r.turn(0.1)
    r.drain()
    r.device.inject(kind, ms=500)
    start = r.device.firmware.sample
    r.turn(0.4)
    assert r.read() is None
    assert abs(r.device.firmware.sample - start - 16_000) <= 400
    r.turn(0.2)
    got = r.drain()
    r.beat(r.device.firmware.sample)
    r.turn(0.01)
    got += r.drain()
    assert (got[-1].dropped > 0) is lost


def test_a_frozen_device_answers_but_does_not_count():
    r = rig(speed=1.0)
    r.turn(0.1)
    r.device.inject("freeze", ms=300)
    at = r.device.firmware.sample
    r.turn(0.2)
    assert r.device.firmware.sample == at
    assert len(r.control(setup(0xC0, 2, 0, 0, 48))[1]) == 48
    r.turn(0.2)
    assert at < r.device.firmware.sample < at + 1200


# ------------------------------------------------------------------ faults of EP0


def test_requests_are_stalled_slowed_lost_and_repeated_by_number():
    r = rig()
    ask = setup(0xC0, 2, 0, 0, 48)
    r.device.inject("stall_ep0", request=2)
    assert r.function.control(ask, b"").status == -32
    r.device.inject("slow_ep0", request=2, ms=250)
    assert r.function.control(ask, b"").delay_s == 0.25
    r.device.inject("lose_reply", request=2)
    assert r.function.control(setup(0xC0, 1, 0, 0, 64), b"").lost is False
    assert r.function.control(ask, b"").lost is True
    assert r.function.control(ask, b"") == r.device.request(ask)


def test_a_repeated_heartbeat_is_ignored_by_the_firmware():
    r = rig()
    r.device.inject("repeat_request", request=0x40)
    r.beat(0)
    status = r.control(setup(0xC0, 2, 0, 0, 48))[1]
    assert struct.unpack_from("<I", status, 28)[0] == 1


def test_the_identity_can_announce_another_protocol_and_limit_table():
    r = rig()
    r.device.inject("identity", protocol_major=2, limit_table_version=9)
    said = r.control(setup(0xC0, 1, 0, 0, 64))[1]
    assert struct.unpack_from("<HH", said) == (2, 0)
    assert struct.unpack_from("<I", said, 16)[0] == 9


def test_sim_fault_takes_json_and_stalls_on_nonsense():
    r = rig()
    ask = setup(0x40, 0x7E, 0, 0, 40)
    assert r.control(ask, b'{"kind": "babble", "n": 3}')[0] == 0
    assert r.device.babbles_left == 3
    for bad in (b"", b"[]", b"{}", b'{"kind": "quake"}', b'{"kind": "drop", "n": true}', b'{"kind": "drop", "x": 1}'):
        assert r.control(ask, bad)[0] == -32


# ------------------------------------------------------------------ cable and power


def test_at_max_the_cable_is_pulled_only_when_everything_made_before_was_read():
    r = rig()
    r.device.inject("unplug", at=995, replug_ms=100)
    got = []
    while r.device.plugged:
        r.turn(0.001)
        got += r.drain()
    assert got[-1].first + got[-1].samples == r.device.firmware.sample == 1000


def test_after_a_replug_the_counter_has_gone_on_by_exactly_the_time_without_cable():
    r = rig()
    boot = r.device.firmware.boot_id
    r.device.inject("unplug", at=995, replug_ms=60_000)
    while r.device.plugged:
        r.turn(0.001)
        r.drain()
    r.turn(1.0)
    assert r.device.plugged
    assert r.device.firmware.sample == 1000 + 600_000
    assert r.device.firmware.boot_id == boot
    assert not r.device.firmware.streaming


def test_a_reboot_takes_a_new_boot_id_and_counts_from_zero_while_the_patient_goes_on():
    r = rig()
    boot = r.device.firmware.boot_id
    r.device.inject("reboot", ms=100)
    while r.device.plugged:
        r.turn(0.001)
        r.drain()
    r.turn(1.0)
    assert r.device.plugged
    assert r.device.firmware.boot_id != boot
    assert r.device.firmware.sample == 0
    assert r.device.state()["patient_sample"] > 1000


def test_what_was_on_the_cable_when_it_was_pulled_is_cut_at_that_byte():
    r = rig()
    r.turn()
    r.device.inject("unplug", after_bytes=100)
    r.turn()
    assert not r.device.plugged
    assert len(r.device.last_gasp) == 100
    assert r.device.wait_s(r.now_s) is None  # it stays away until somebody plugs it in
    r.device.inject("replug", serial="SIM-0042")
    assert r.device.plugged
    assert r.device.firmware.descriptors.serial == "SIM-0042"


def test_a_scenario_scripts_faults_by_sample():
    scenario = parse("""
        [scenario]
        name = "cable"
        [[event]]
        kind = "device"
        fault = "drop"
        at_sample = 205
        count = 2
        [[event]]
        kind = "device"
        fault = "unplug"
        at_sample = 990
        [[event]]
        kind = "device"
        fault = "replug"
        at_sample = 5990
    """)
    r = rig(scenario=scenario)
    got = []
    while r.device.plugged:
        r.turn(0.001)
        got += r.drain()
    assert [h.seq for h in got][9:12] == [9, 12, 13]
    assert got[-1].first == 980
    r.turn(1.0)
    assert r.device.firmware.sample == 6000


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "kind, given, says",
    [
        ("earthquake", {}, "expected one of drop"),
        ("drop", {"n": 0}, "whole number 1"),
        ("drop", {"n": 2.5}, "whole number"),
        ("drop", {"n": True}, "whole number"),
        ("silent", {"ms": float("nan")}, "a number"),
        ("unplug", {"after": 3}, "no parameter 'after'"),
        ("wedge", {"at": -1}, "device sample"),
        ("unplug", {"serial": "x" * 65}, "64 characters"),
    ],
)
def test_a_fault_that_cannot_be_had_says_what_was_expected(kind, given, says):
    with pytest.raises(faults.FaultError, match=says):
        Rig().device.inject(kind, **given)


def test_a_fault_of_the_firmware_itself_is_passed_on():
    r = rig()
    r.device.inject("lie_state", on=True)
    with pytest.raises(ValueError, match="output"):
        r.device.inject("monitor_silent", output=99)
    with pytest.raises(faults.FaultError):
        r.device.inject("lie_state", colour="blue")
