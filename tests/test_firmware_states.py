"""The stimulator's states, tokens, nonces, watchdog: what leads where, and that every doubt leads to SAFE
(docs/wire/ionm1.md 7)."""

from __future__ import annotations

import struct

import pytest
from firmware_rig import (
    ARMED,
    AUX,
    CONFIGURED,
    END,
    FIRING,
    NERVE,
    NERVE_2,
    PROBE,
    RATE,
    REFUSED,
    SAFE,
    TRIPPED,
    WATCHDOG,
    Unit,
    setup,
    states,
    train,
)

from ionmd.drivers.ep0 import pack_sequence

CAUTERY, STOP_BUTTON = 0, 4


def in_state(state: int) -> Unit:
    """A unit brought into `state` by the shortest way."""
    unit = Unit()
    if state == TRIPPED:
        unit.fw.inject("stray_pulse")
        unit.run(10)
    elif state == CONFIGURED:
        assert unit.load(train()) == ""
    elif state != SAFE:
        token = unit.armed(train(4, step_us=100_000))
        if state == FIRING:
            assert unit.fire(token) == ""
            unit.run(100)
    assert unit.status.state == unit.stim.state == state
    return unit


# ---------------------------------------------------------------- transitions


@pytest.mark.parametrize("state", range(5))
def test_stim_off_leads_to_safe_from_every_state_but_tripped(state):
    unit = in_state(state)
    assert unit.off() == ""
    assert unit.status.state == (TRIPPED if state == TRIPPED else SAFE)
    assert unit.token()[0] == 0 and unit.stim.armed == 0
    assert unit.run(6000) == []


@pytest.mark.parametrize("state", range(5))
@pytest.mark.parametrize("how", ["bus reset", "set configuration", "set configuration 0", "set interface", "disconnect",
                                 "stream off"])  # fmt: skip
def test_whatever_ends_the_session_leads_to_safe_and_nothing_fires_after_it(state, how):
    unit = in_state(state)
    if how == "bus reset":
        unit.fw.bus_reset()
    elif how == "disconnect":
        unit.fw.disconnect()
    elif how == "stream off":
        assert unit.tell(0x41, 0x10, 0) == ""
    else:
        packet = {"set configuration": setup(0, 9, 1), "set configuration 0": setup(0, 9, 0),
                  "set interface": setup(1, 11, 0)}[how]  # fmt: skip
        assert unit.send(packet) == ""
    assert unit.status.state == (TRIPPED if state == TRIPPED else SAFE)
    assert not unit.fw.streaming and unit.fw.skip(6000) == []
    if how != "stream off":
        unit.send(setup(0, 9, 1))
        unit.send(setup(1, 11, 1))
    assert unit.tell(0x41, 0x10, 1, b"\2\0\0\0") == ""
    assert unit.run(6000) == [] and unit.token() == (0, 0, 0)
    assert unit.status.boot_id == unit.fw.boot_id and unit.status.state == (TRIPPED if state == TRIPPED else SAFE)


@pytest.mark.parametrize("state", range(5))
def test_a_lost_heartbeat_leads_to_safe_wherever_a_pulse_could_come_from(state):
    unit = in_state(state)
    unit.run(WATCHDOG + 1, beats=False)
    expected = {SAFE: SAFE, CONFIGURED: CONFIGURED, TRIPPED: TRIPPED}.get(state, SAFE)
    assert unit.status.state == expected
    if state in (ARMED, FIRING):
        assert unit.token() == (0, 0, 0)
        assert unit.run(5000) == []  # a heartbeat that comes back re-arms nothing
        unit.flush()
        assert states(unit.marks)[-1] == (SAFE, "WATCHDOG")


@pytest.mark.parametrize("state", range(5))
def test_power_off_and_on_is_another_life_that_begins_safe(state):
    unit = in_state(state)
    boot = unit.fw.boot_id
    unit.fw.reboot()
    assert unit.status.state == SAFE and unit.status.sample == 0 and unit.fw.boot_id not in (0, boot)
    assert (unit.status.trip, unit.status.nonce, unit.status.beat) == (0, 0, 0)


def test_the_life_of_a_train_goes_through_every_state_and_the_headers_say_so():
    unit = Unit()
    token = unit.armed(train(2))
    unit.fire(token, 1000)
    unit.run(1200)
    by_sample = [(b.first, b.state) for b in unit.blocks]
    assert dict(by_sample)[980] == ARMED and dict(by_sample)[1000] == dict(by_sample)[1020] == FIRING
    assert dict(by_sample)[1040] == ARMED
    assert states(unit.marks) == [(CONFIGURED, "NONE"), (ARMED, "NONE")]  # pulses and their end tell the rest
    assert [(m.kind, m.sample) for m in unit.of(END)] == [(END, 1040)]


@pytest.mark.parametrize("request_,data", [(0x51, pack_sequence(train())), (0x53, bytes(8)), (0x55, bytes(16))])
def test_a_tripped_stimulator_refuses_everything_until_it_is_reset_with_the_right_reason(request_, data):
    unit = in_state(TRIPPED)
    assert unit.tell(0x41, request_, 0, data, 1) == "TRIPPED"
    for reason in set(range(256)) - {16}:
        assert unit.tell(0x41, 0x57, 0, bytes([reason]), 1) == "TRIPPED"
    assert unit.status.trip == 16 and unit.status.state == TRIPPED
    assert unit.tell(0x41, 0x57, 0, b"\x10", 1) == ""
    assert (unit.status.state, unit.status.trip) == (SAFE, 0)
    assert unit.tell(0x41, 0x57, 0, b"\x10", 1) == "STATE"


@pytest.mark.parametrize("how", ["bus reset", "off", "stream", "watchdog"])
def test_a_trip_outlives_everything_but_its_reset_and_the_power(how):
    unit = in_state(TRIPPED)
    if how == "bus reset":
        unit.fw.bus_reset()
    elif how == "off":
        unit.off()
    elif how == "stream":
        unit.tell(0x41, 0x10, 0)
        unit.stream(9)
    else:
        unit.run(2 * WATCHDOG, beats=False)
    assert (unit.status.state, unit.status.trip) == (TRIPPED, 16)


# ---------------------------------------------------------------- arming


def test_arming_needs_a_loaded_slot_a_fresh_heartbeat_and_no_impedance_mode():
    unit = Unit()
    assert unit.arm(train()) == "STATE"
    assert unit.load(train()) == ""
    unit.run(WATCHDOG, beats=False)
    assert unit.arm(train()) == "WATCHDOG"
    assert unit.beat() == "" and unit.arm(train()) == ""
    assert unit.tell(0x41, 0x30, 1, b"\1" + bytes(7)) == "STATE"  # armed: no test current
    assert unit.tell(0x41, 0x58, NERVE, b"", 1) == "" and unit.status.state == CONFIGURED
    assert unit.tell(0x41, 0x30, 1, b"\1" + bytes(7)) == ""
    assert unit.arm(train()) == "IMPEDANCE_MODE"
    unit.run(220)  # one input takes 20 ms
    assert unit.arm(train()) == "" and [m.output for m in unit.of(5)] == [0]


@pytest.mark.parametrize("ttl_ms,word", [(0, "RANGE"), (1999, "RANGE"), (2000, ""), (60_000, ""), (60_001, "RANGE"),
                                         (2**32 - 1, "RANGE")])  # fmt: skip
def test_the_time_to_live_has_both_its_edges(ttl_ms, word):
    unit = Unit()
    unit.load(train())
    assert unit.arm(train(), ttl_ms=ttl_ms) == word
    assert unit.token()[2] == (0 if word else ttl_ms * RATE // 1000)


def test_tokens_are_random_never_zero_and_never_the_one_before():
    unit = Unit()
    unit.load(train())
    seen = []
    for _ in range(1000):
        assert unit.arm(train()) == ""
        seen.append(unit.token()[0])
    assert 0 not in seen and len(set(seen)) == 1000


@pytest.mark.parametrize("what", ["load", "load another", "arm", "off", "abort"])
def test_whatever_touches_a_slot_kills_its_token_and_the_fires_that_wait(what):
    unit = Unit()
    token = unit.armed(train())
    assert unit.fire(token, 2000) == ""
    word = {
        "load": lambda: unit.load(train()), "load another": lambda: unit.load(train(2)),
        "arm": lambda: unit.arm(train()), "off": unit.off, "abort": lambda: unit.tell(0x41, 0x58, NERVE, b"", 1),
    }[what]()  # fmt: skip
    assert word == "" and unit.token()[0] != token
    assert unit.fire(token, 3000) == "TOKEN"
    assert unit.run(5000) == []
    reason = {"load": "SEQUENCE_CHANGED", "load another": "SEQUENCE_CHANGED", "arm": "TOKEN"}.get(what, "HOST_OFF")
    assert [(m.nonce, m.reason) for m in unit.of(REFUSED)] == [(1, reason)]


def test_slots_have_tokens_of_their_own_and_an_abort_takes_down_one_output_only():
    unit = Unit()
    tokens = [unit.armed(train(output=o), slot) for slot, o in enumerate((NERVE, NERVE, NERVE_2, PROBE))]
    assert unit.stim.armed == 0b1111 and len(set(tokens)) == 4
    for slot, token in enumerate(tokens):
        assert unit.fire(tokens[slot - 1], slot=slot) == "TOKEN"
        assert unit.fire(token, 2000 + 1000 * slot, slot=slot) == ""
    assert unit.tell(0x41, 0x58, NERVE, b"", 1) == ""
    assert unit.stim.armed == 0b1100 and unit.status.state == ARMED
    assert [p.output for p in unit.run(6000)] == [NERVE_2, PROBE]


# ---------------------------------------------------------------- firing


def test_a_nonce_is_good_for_one_fire_and_must_grow():
    unit = Unit()
    token = unit.armed(train())
    assert unit.fire(token, 1000, nonce=5) == ""
    for old in (5, 4, 1, 0):
        assert unit.fire(token, 2000, nonce=old) == "NONCE"
    assert unit.fire(token, 2000, nonce=2**32 - 1) == ""
    assert unit.fire(token, 3000, nonce=6) == "NONCE" and unit.status.nonce == 2**32 - 1
    assert [(p.sample, p.nonce) for p in unit.run(4000)] == [(1000, 5), (2000, 2**32 - 1)]


def test_a_nonce_is_remembered_over_reset_off_and_a_lost_cable():
    unit = Unit()
    token = unit.armed(train())
    assert unit.fire(token, 1000, nonce=40) == ""
    unit.off()
    unit.fw.disconnect()
    unit.open()
    unit.stream()
    unit.beat()
    token = unit.armed(train())
    assert unit.status.nonce == 40 and unit.fire(token, 1000, nonce=40) == "NONCE"
    assert unit.fire(token, 1000, nonce=41) == "" and unit.status.nonce == 41


@pytest.mark.parametrize("why", ["STATE", "WATCHDOG", "LATE", "FAR", "QUEUE_FULL"])
def test_a_nonce_that_came_with_a_good_token_is_spent_even_when_the_fire_is_refused(why):
    unit = Unit()
    unit.run(500)
    token = unit.armed(train())
    at = unit.fw.sample + 1000
    if why == "QUEUE_FULL":
        for k in range(32):
            assert unit.fire(token, at + 1000 * k) == ""
    elif why == "WATCHDOG":  # the next tick makes it SAFE
        unit.run(WATCHDOG, beats=False)
    elif why == "STATE":
        unit.tell(0x41, 0x10, 0)
        assert unit.status.state == SAFE
        unit.load(train())
        unit.arm(train())
        token = unit.token()[0]
    at = {"LATE": 400, "FAR": unit.fw.sample + 30 * RATE + 1}.get(why, at)
    assert unit.fire(token, at) == why
    assert unit.status.nonce == unit.nonce
    assert unit.fire(token, at, nonce=unit.nonce) == "NONCE"


def test_fires_wait_up_to_30_s_and_leave_in_the_order_of_their_samples():
    unit = Unit()
    token = unit.armed(train(), ttl_ms=60_000)
    now = unit.fw.sample
    wanted = [now + 30 * RATE, now + 5000, now + 20_000, now + 700]
    for at in wanted:
        assert unit.fire(token, at) == ""
    assert unit.fire(token, now + 30 * RATE + 1) == "FAR"
    assert [p.sample for p in unit.run(30 * RATE + 10)] == sorted(wanted)


def test_at_sample_zero_is_the_next_sample_and_the_present_one_is_not_late():
    unit = Unit()
    unit.run(777)
    token = unit.armed(train(gap_ms=20))
    assert unit.fire(token, 776) == "LATE" and unit.fire(token, 0) == ""
    assert [p.sample for p in unit.run(500)] == [777]
    assert unit.fire(token, 1277) == "" and [p.sample for p in unit.run(1)] == [1277]


@pytest.mark.parametrize("ttl_ms", [2000, 10_000])
def test_a_token_expires_to_the_sample_after_arming_or_after_the_last_pulse_of_its_slot(ttl_ms):
    ttl = ttl_ms * RATE // 1000
    unit = Unit()
    token = unit.armed(train(), ttl_ms=ttl_ms)
    unit.run(ttl - 1)
    assert unit.status.state == ARMED and unit.fire(token) == ""
    assert [p.sample for p in unit.run(10)] == [ttl - 1]
    assert unit.token()[2] == 2 * ttl - 1
    unit.run(ttl - 10)
    assert unit.status.state == ARMED
    unit.run(1)
    assert unit.status.state == CONFIGURED and unit.fire(token) == "TOKEN"
    unit.flush()
    assert states(unit.marks)[-1] == (CONFIGURED, "EXPIRED")


def test_a_heartbeat_renews_a_token_only_while_a_fire_waits_and_only_when_the_host_progressed():
    unit = Unit()
    token = unit.armed(train(), ttl_ms=2000)
    unit.run(5000)
    assert unit.token()[2] == 2 * RATE
    assert unit.fire(token, 3 * RATE) == ""
    unit.run(5000)
    assert unit.token()[2] == unit.fw.sample + 2 * RATE  # the heartbeat at the end of the run
    stuck = unit.fw.sample
    while unit.status.state == ARMED:
        unit.run(1000, beats=False)
        assert unit.beat(processed=stuck) == ""
    assert unit.fw.sample == stuck + 2 * RATE + 1000  # it expired in the last of these steps
    assert unit.pulses == []
    unit.flush()
    assert [m.reason for m in unit.of(REFUSED)] == ["EXPIRED"]


# ---------------------------------------------------------------- heartbeat


def test_a_heartbeat_must_grow_belong_to_this_boot_and_not_come_from_the_future():
    unit = Unit()
    unit.run(1000, beats=False)
    first = unit.stim.watchdog_left_ms
    assert unit.beat(counter=1) == "COUNTER" and unit.beat(counter=0) == "COUNTER"
    assert unit.beat(counter=2, boot_id=unit.fw.boot_id ^ 1) == "BOOT_ID"
    assert unit.beat(counter=2, processed=1001) == "RANGE"
    assert unit.stim.watchdog_left_ms == first == 300
    assert unit.beat(counter=2, processed=1000) == "" and unit.stim.watchdog_left_ms == 400
    assert (unit.status.beat, unit.status.processed) == (2, 1000)
    assert unit.beat(counter=2**32 - 1) == "" and unit.beat(counter=3) == "COUNTER"


def test_the_watchdog_barks_at_400_ms_of_samples_to_the_sample():
    unit = Unit()
    unit.armed(train())
    unit.run(WATCHDOG, beats=False)
    assert unit.status.state == ARMED
    unit.run(1, beats=False)
    assert unit.status.state == SAFE
    unit.flush()
    assert [m.sample for m in unit.of(4) if m.reason == "WATCHDOG"] == [WATCHDOG]


@pytest.mark.parametrize("step_us", [1000, 10_000, 100_000])
def test_the_watchdog_ends_a_running_train_at_once_and_its_end_is_marked(step_us):
    unit = Unit()
    token = unit.armed(train(4, output=PROBE, step_us=step_us, amplitude=1000))
    start = WATCHDOG - step_us // 100 - 5
    assert unit.fire(token, start) == ""
    pulses = unit.run(WATCHDOG + 5000, beats=False)
    assert [p.sample for p in pulses] == [start, start + step_us // 100]
    unit.flush()
    assert [(m.sample, m.reason, m.pulse, m.flags & 2) for m in unit.of(END)] == [(WATCHDOG, "WATCHDOG", 2, 2)]


@pytest.mark.parametrize("how", ["off", "abort", "bus reset", "load", "stop button"])
def test_an_abort_ends_a_running_train_before_its_next_pulse(how):
    unit = Unit()
    token = unit.armed(train(4, step_us=20_000))
    assert unit.fire(token, 1000) == ""
    unit.run(1201)  # the second pulse is out, the third is 20 ms away
    if how == "off":
        unit.off()
    elif how == "abort":
        unit.tell(0x41, 0x58, NERVE, b"", 1)
    elif how == "load":
        unit.load(train())
    elif how == "stop button":
        unit.fw.set_aux(STOP_BUTTON, True)
    else:
        unit.fw.bus_reset()
        assert unit.fw.skip(1000) == []
        return
    assert unit.run(1000) == [] and len(unit.pulses) == 2
    reason = {"load": "SEQUENCE_CHANGED", "stop button": "STOP_BUTTON"}.get(how, "HOST_OFF")
    assert [(m.sample, m.reason, m.pulse) for m in unit.of(END)] == [(1201, reason, 2)]


# ---------------------------------------------------------------- auxiliary lines


def test_cautery_refuses_the_fires_of_its_time_and_they_resume_by_themselves():
    unit = Unit()
    token = unit.armed(train())
    for k in range(6):
        assert unit.fire(token, 1000 + 1000 * k) == ""
    unit.fw.set_aux(CAUTERY, True, 2000)
    unit.fw.set_aux(CAUTERY, False, 4000)
    assert [p.sample for p in unit.run(8000)] == [1000, 4000, 5000, 6000]
    assert [(m.sample, m.reason) for m in unit.of(REFUSED)] == [(2000, "CAUTERY"), (3000, "CAUTERY")]
    assert unit.token()[0] == token and unit.status.state == ARMED
    assert [(m.sample, m.output, m.value, m.flags) for m in unit.of(AUX)] == [(2000, 0, 1, 32), (4000, 0, 0, 0)]


def test_cautery_does_not_cut_a_train_that_runs():
    unit = Unit()
    token = unit.armed(train(4, step_us=10_000))
    unit.fire(token, 1000)
    unit.fw.set_aux(CAUTERY, True, 1050)
    assert [p.sample for p in unit.run(2000)] == [1000, 1100, 1200, 1300]


def test_the_stop_button_makes_safe_at_once_and_forbids_arming_while_it_is_held():
    unit = Unit()
    token = unit.armed(train())
    unit.fire(token, 1000)
    unit.fw.set_aux(STOP_BUTTON, True, 500)
    assert unit.run(2000) == [] and unit.status.state == SAFE
    assert [(m.nonce, m.reason) for m in unit.of(REFUSED)] == [(1, "STOP_BUTTON")]
    assert states(unit.marks)[-1] == (SAFE, "STOP_BUTTON") and unit.blocks[-1].aux == 1 << STOP_BUTTON
    assert unit.load(train()) == "" and unit.arm(train()) == "STOP_BUTTON"
    unit.fw.set_aux(STOP_BUTTON, False)
    unit.run(100)
    assert unit.status.state == CONFIGURED  # released: nothing comes back by itself
    assert unit.arm(train()) == "" and unit.fire(unit.token()[0]) == "" and len(unit.run(100)) == 1


@pytest.mark.parametrize("line", range(5))
def test_every_line_gives_one_mark_for_an_edge_and_none_for_the_same_level_again(line):
    unit = Unit()
    for sample, level in ((100, True), (200, True), (300, False), (400, False)):
        unit.fw.set_aux(line, level, sample)
    unit.run(1000)
    assert [(m.sample, m.output, m.value) for m in unit.of(AUX)] == [(100, line, 1), (300, line, 0)]
    at = {b.first: b.aux for b in unit.blocks}
    assert (at[80], at[100], at[280], at[300]) == (0, 1 << line, 1 << line, 0)


# ---------------------------------------------------------------- impedances


def test_impedance_mode_is_flagged_measures_each_input_once_and_ends_by_itself():
    unit = Unit()
    unit.fw.set_impedance(1, 4321)
    unit.fw.set_impedance(3, float("inf"))
    assert unit.tell(0x41, 0x30, 1, struct.pack("<Q", 0b1011)) == ""
    assert unit.tell(0x41, 0x30, 1, struct.pack("<Q", 1)) == "IMPEDANCE_MODE"
    unit.run(1000)
    assert [(m.output, m.delivered, m.flags) for m in unit.of(5)] == [(0, 2000, 0), (1, 4321, 0), (3, 0x7FFFFFFF, 2)]
    assert [m.sample for m in unit.of(5)] == [200, 400, 600]
    flagged = [b.first for b in unit.blocks if b.flags & 8]
    assert flagged == list(range(0, 600, 20))


@pytest.mark.parametrize("state", [ARMED, FIRING, TRIPPED])
def test_impedance_mode_is_refused_unless_safe_or_configured(state):
    unit = in_state(state)
    assert unit.tell(0x41, 0x30, 1, struct.pack("<Q", 1)) == "STATE"


def test_impedance_mode_stops_on_request_and_with_the_session():
    for end in (lambda u: u.tell(0x41, 0x30, 0), lambda u: u.fw.bus_reset()):
        unit = Unit()
        unit.tell(0x41, 0x30, 1, struct.pack("<Q", 15))
        unit.run(100)
        assert unit.fw.impedance_input == 0
        end(unit)
        assert unit.fw.impedance_input is None
