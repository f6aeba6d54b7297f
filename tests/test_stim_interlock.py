"""The interlock as people meet it: lease, arm, confirm, fire, off and reset over the socket, against the simulated
unit (design 7; faults 1.5, F09, F12, F17)."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interlock_rig import RATE, StimRoom, refusal

from ionmd.client import Client
from ionmd.errors import Refused

FORBIDDEN, INTERLOCK, LIMIT, LEASE_HELD, NO_CASE, INVALID, PARSE_ERROR = 1001, 1002, 1003, 1004, 1006, -32602, -32700
ARM = {"output": "median_left", "site": "wrist", "amplitude_ma": 15.0, "width_us": 200}
TES = {"output": "tes", "site": "C3/C4", "amplitude_v": 300.0, "width_us": 75, "count": 5, "interval_ms": 2.0}
SAFE, CONFIGURED, ARMED, FIRING, TRIPPED = range(5)
OFF, FIRE = 0x50, 0x55


@pytest.fixture
def room(tmp_path, monkeypatch):
    with StimRoom(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[tuple[StimRoom, Client, str]]:
    """One room for all tests of limits; nothing in them fires."""
    with pytest.MonkeyPatch.context() as patch, StimRoom(tmp_path_factory.mktemp("shared"), patch) as running:
        yield running, *running.technologist()


def armed(room: StimRoom, what: dict[str, Any] = ARM) -> tuple[Client, str, str]:
    client, lease = room.technologist()
    return client, lease, client.call("stim.arm", lease=lease, **what)["token"]


# ---------------------------------------------------------------- the way it should go


def test_arm_echoes_what_the_device_holds_and_fire_gives_one_delivery_at_its_sample(room):
    client, lease = room.technologist()
    answer = client.call("stim.arm", lease=lease, **ARM)
    assert answer["echo"] == {"output": "median_left", "jack": 0, "unit": "uA", "pulses": [[0, 15_000, 200, False]]}
    assert room.stim_state() == ARMED and room.pulses() == 0
    fired = client.call("stim.fire", token=answer["token"])
    room.wait(lambda: room.daemon.room.now > fired["at_sample"] + 1000)
    assert room.pulses() == 1
    assert room.daemon.room.deliveries.last_delivered(0) == pytest.approx(15_000, rel=0.1)


def test_one_fire_is_one_delivery_and_each_has_a_nonce_of_its_own(room):
    client, _, token = armed(room)
    for _ in range(3):
        at = client.call("stim.fire", token=token)["at_sample"]
        room.wait(lambda at=at: room.daemon.room.now > at + 300)
    nonces = [int.from_bytes(data[4:8], "little") for request, _, data in room.requests if request == FIRE]
    assert room.pulses() == 3 and nonces == sorted(set(nonces)) and len(nonces) == 3


# ---------------------------------------------------------------- who may


def test_without_a_case_nothing_is_armed(room):
    client = room.client()
    client.call("person.sign_in", name="Kim")
    lease = client.call("stim.acquire")["lease"]
    assert refusal(lambda: client.call("stim.arm", lease=lease, **ARM))[0] == NO_CASE


def test_without_a_lease_or_with_another_ones_id_nothing_is_armed(room):
    client, lease = room.technologist()
    assert refusal(lambda: client.call("stim.arm", **ARM))[0] == INVALID
    for wrong in ("0" * 16, lease[:-1], lease.upper() + "x"):
        code, words = refusal(lambda wrong=wrong: client.call("stim.arm", lease=wrong, **ARM))
        assert code == LEASE_HELD and "Kim" in words
    client.call("stim.release", lease=lease)
    code, words = refusal(lambda: client.call("stim.arm", lease=lease, **ARM))
    assert code == LEASE_HELD and "acquire" in words
    assert room.loaded() == []


@pytest.mark.parametrize("roles", [set(), {"view"}, {"view", "operate"}, {"view", "oversee"}, {"view", "admin"}])
def test_without_the_role_stim_no_request_of_stimulation_is_heard_but_off(room, roles):
    client, lease, token = armed(room)
    other = room.client(roles)
    for method, params in [("stim.acquire", {}), ("stim.acquire", {"take": True}), ("stim.keepalive", {"lease": lease}),
                           ("stim.release", {"lease": lease}), ("stim.arm", {**ARM, "lease": lease}),
                           ("stim.confirm", {"token": token, "amplitude": 15.0}), ("stim.fire", {"token": token}),
                           ("stim.reset", {"lease": lease, "reason": "x"})]:  # fmt: skip
        assert refusal(lambda m=method, p=params: other.call(m, **p))[0] == FORBIDDEN
    assert room.stim_state() == ARMED and room.pulses() == 0
    assert other.call("stim.off") == {"off": True}
    assert room.stim_state() == SAFE
    assert refusal(lambda: client.call("stim.fire", token=token))[0] == INTERLOCK


def test_a_second_person_is_told_who_holds_the_lease_and_takes_it_only_on_purpose(room):
    client, lease, token = armed(room)
    other = room.client()
    code, words = refusal(lambda: other.call("stim.acquire"))
    assert code == LEASE_HELD and "Kim" in words
    new = other.call("stim.acquire", take=True)["lease"]
    assert new != lease
    assert refusal(lambda: client.call("stim.arm", lease=lease, **ARM))[0] == LEASE_HELD
    assert refusal(lambda: client.call("stim.keepalive", lease=lease))[0] == LEASE_HELD
    # what waited for the old holder's fire does not wait for anybody's
    assert refusal(lambda: client.call("stim.fire", token=token))[0] == INTERLOCK
    room.settle()
    assert room.pulses() == 0 and room.stim_state() != ARMED


def test_another_connection_of_the_same_uid_may_present_the_lease_and_one_of_another_uid_may_not(room):
    _, lease = room.technologist()
    mine, foreign = room.client(), room.client(uid=4711)
    assert refusal(lambda: foreign.call("stim.arm", lease=lease, **ARM))[0] == LEASE_HELD
    token = mine.call("stim.arm", lease=lease, **ARM)["token"]
    assert refusal(lambda: foreign.call("stim.fire", token=token))[0] == INTERLOCK
    assert refusal(lambda: mine.call("stim.keepalive", lease=lease))[0] == LEASE_HELD  # the holder keeps it alive
    assert mine.call("stim.fire", token=token)["at_sample"] > 0


# ---------------------------------------------------------------- how it ends


def running(room: StimRoom) -> tuple[Client, str]:
    """A continuous test that has stimulated."""
    client, lease = room.technologist()
    client.call("test.start", tests=["ssep_median_left"], lease=lease)
    room.wait(lambda: room.pulses() >= 2)
    return client, lease


def test_a_closed_connection_takes_its_lease_along_and_everything_is_off(room):
    client, _ = running(room)
    client.close()
    (alarm,) = room.wait(lambda: room.alarms("stimulation.stopped"))
    assert alarm.priority == "high" and "Not monitored: stimulation stopped" in alarm.sentence
    assert alarm.derivations
    room.wait(lambda: room.stim_state() == SAFE)
    before = room.pulses()
    room.settle(5000)
    assert room.pulses() == before


def test_a_holder_who_is_silent_for_two_keepalives_loses_the_lease(room):
    client, lease = running(room)
    for _ in range(4):
        room.lease_clock_s += 1.9
        client.call("stim.keepalive", lease=lease)
    room.lease_clock_s += 2.1
    (alarm,) = room.wait(lambda: room.alarms("stimulation.stopped"))
    assert "silent" in alarm.sentence and alarm.priority == "high"
    room.wait(lambda: room.stim_state() == SAFE)
    assert refusal(lambda: client.call("stim.keepalive", lease=lease))[0] == LEASE_HELD


def test_a_release_stops_what_runs_and_says_so(room):
    client, lease = running(room)
    client.call("stim.release", lease=lease)
    assert room.wait(lambda: room.alarms("stimulation.stopped"))
    room.wait(lambda: room.stim_state() == SAFE)


@pytest.mark.parametrize("params", [{}, {"nonsense": 1}, [], "x", None])
def test_stim_off_works_at_once_whatever_comes_with_it(room, params):
    _, _, token = armed(room)
    room.client({"view"})  # the next connection has its rights too
    request = {"jsonrpc": "2.0", "id": 1, "method": "stim.off", "params": params}
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(room.path))
    raw.sendall(json.dumps(request).encode() + b"\n")
    room.wait(lambda: room.stim_state() == SAFE)
    raw.close()
    assert refusal(lambda: room.client().call("stim.fire", token=token))[0] == INTERLOCK


def test_stim_off_ends_a_repeating_delivery(room):
    client, lease = room.technologist()
    token = client.call("stim.arm", lease=lease, rate_hz=20.0, **ARM)["token"]
    client.call("stim.fire", token=token)
    room.wait(lambda: room.pulses() >= 3)
    code, words = refusal(lambda: client.call("stim.fire", token=token))
    assert code == INTERLOCK and "20" in words
    client.call("stim.off")
    before = room.pulses()
    room.settle(5000)
    assert room.pulses() == before and room.stim_state() == SAFE


# ---------------------------------------------------------------- tokens


def test_a_wrong_replaced_or_switched_off_token_fires_nothing(room):
    client, lease, first = armed(room)
    second = client.call("stim.arm", lease=lease, **ARM)["token"]
    for wrong in ("x", first, second[:-1], "0" * 12):
        code, words = refusal(lambda wrong=wrong: client.call("stim.fire", token=wrong))
        assert code == INTERLOCK and "arm again" in words
    client.call("stim.off")
    assert refusal(lambda: client.call("stim.fire", token=second))[0] == INTERLOCK
    room.settle()
    assert room.pulses() == 0


def test_a_token_expires_after_ten_idle_seconds_of_the_device(room):
    client, _, token = armed(room)
    room.demo.rush = room.daemon.room.now + 10 * RATE + 500
    room.wait(lambda: room.stim_state() == CONFIGURED)
    room.wait(lambda: room.daemon.room.now > room.demo.rush)
    code, words = refusal(lambda: client.call("stim.fire", token=token))
    assert code == INTERLOCK and "expired" in words
    room.settle()
    assert room.pulses() == 0


def test_a_large_step_wants_the_number_again_and_another_number_destroys_the_token(room):
    client, lease, token = armed(room, TES)
    client.call("stim.fire", token=token)
    room.wait(lambda: room.pulses() == 5)
    big = {**TES, "amplitude_v": 590.0}
    for repeated in (590.5, 59.0):
        answer = client.call("stim.arm", lease=lease, **big)
        assert answer["confirm"] is True and answer["warnings"]
        assert refusal(lambda a=answer: client.call("stim.fire", token=a["token"]))[0] == INTERLOCK
        code, words = refusal(lambda a=answer, r=repeated: client.call("stim.confirm", token=a["token"], amplitude=r))
        assert code == INTERLOCK and "destroyed" in words
        assert refusal(lambda a=answer: client.call("stim.fire", token=a["token"]))[0] == INTERLOCK
    assert room.pulses() == 5


def test_a_confirmed_step_fires(room):
    client, lease = room.technologist()
    answer = client.call("stim.arm", lease=lease, **{**TES, "amplitude_v": 590.0})
    assert answer["confirm"] is True
    client.call("stim.confirm", token=answer["token"], amplitude=590.0)
    client.call("stim.fire", token=answer["token"])
    room.wait(lambda: room.pulses() == 5)


@pytest.mark.parametrize(("what", "wrong"), [(TES, 310.0), (ARM, 16.0)], ids=["another output", "the cycle's output"])
def test_a_wrong_repetition_takes_back_what_is_under_way_and_nothing_else(room, what, wrong):
    client, lease = room.technologist()
    client.call("test.start", tests=["ssep_median_left"], lease=lease)
    room.wait(lambda: room.pulses() >= 2)
    token = client.call("stim.arm", lease=lease, **what)["token"]
    client.call("stim.fire", token=token)
    with pytest.raises(Refused, match="destroyed"):
        client.call("stim.confirm", token=token, amplitude=wrong)
    before = room.pulses()
    room.settle(12_000)
    assert before < room.pulses() <= before + 5  # the cycle goes on at some 2.5 Hz; a train would be five more
    assert room.stim_state() == ARMED and not [d for t, d in room.events if t == "alarm"]
    again = client.call("stim.arm", lease=lease, **what)["token"]
    client.call("stim.fire", token=again)  # nothing was delivered, so no gap has to pass


def test_impedances_wait_for_what_may_stimulate_and_for_nothing_else(room):
    client, lease = room.technologist()
    client.call("test.start", tests=["ssep_median_left"], lease=lease)
    with pytest.raises(Refused, match="ssep_median_left may stimulate"):
        client.call("impedance.measure")
    client.call("stim.off")  # the test still runs, but its output stays off until it is started again
    client.call("stim.arm", lease=lease, **ARM)
    with pytest.raises(Refused, match="a delivery is armed"):
        client.call("impedance.measure")
    room.demo.rush = room.daemon.room.now + 10 * RATE + 500
    room.wait(lambda: room.daemon.room.now > room.demo.rush)
    assert client.call("impedance.measure")["electrodes"]


# ---------------------------------------------------------------- trips


def test_a_stray_pulse_latches_everything_and_only_the_holder_of_the_lease_resets_it(room):
    client, lease, token = armed(room)
    room.demo.inject("stray_pulse", output=1)
    room.wait(lambda: room.alarms("stimulus.stray") and room.alarms("stimulus.tripped"))
    assert room.stim_state() == TRIPPED
    for method, params in (("stim.fire", {"token": token}), ("stim.arm", {**ARM, "lease": lease}),
                           ("test.start", {"tests": ["ssep_median_left"], "lease": lease})):  # fmt: skip
        assert refusal(lambda m=method, p=params: client.call(m, **p))[0] == INTERLOCK
    other = room.client(uid=4711)
    for wrong in (lease, "nonsense"):
        assert refusal(lambda w=wrong: other.call("stim.reset", lease=w, reason="cable"))[0] == LEASE_HELD
    assert refusal(lambda: client.call("stim.reset", lease=lease, reason=""))[0] == INVALID
    assert room.stim_state() == TRIPPED
    client.call("stim.reset", lease=lease, reason="a cable was broken; it was changed")
    assert room.stim_state() == SAFE and "tripped_reason" not in client.call("stim.status")
    assert all(a.state == "cleared" for a in (room.alarms("stimulus.stray")[-1], room.alarms("stimulus.tripped")[-1]))
    again = client.call("stim.arm", lease=lease, **ARM)["token"]
    client.call("stim.fire", token=again)
    room.wait(lambda: room.pulses() >= 1 and room.daemon.room.deliveries.last_delivered(0))


def test_a_device_that_says_safe_while_a_pulse_nobody_asked_for_leaves_is_not_believed(room):
    client, lease, _ = armed(room)
    room.demo.inject("lie_state")
    room.demo.inject("stray_pulse", output=2)
    (alarm,) = room.wait(lambda: room.alarms("stimulus.stray"))
    assert alarm.priority == "high" and "output 2" in alarm.sentence
    assert OFF in [r for r, _, _ in room.requests]
    assert client.call("stim.status")["tripped_reason"]
    assert refusal(lambda: client.call("stim.arm", lease=lease, **ARM))[0] == INTERLOCK


def test_the_stop_button_stops_everything_and_forbids_arming_while_it_is_held(room):
    client, lease = running(room)
    room.demo.inject("aux", line=4, level=True)
    (alarm,) = room.wait(lambda: room.alarms("stimulation.stopped"))
    assert "stop button" in alarm.sentence and room.stim_state() == SAFE
    code, words = refusal(lambda: client.call("stim.arm", lease=lease, **{**ARM, "output": "median_right"}))
    assert code == INTERLOCK and "STOP_BUTTON" in words
    room.demo.inject("aux", line=4, level=False)
    room.settle()
    assert room.stim_state() != ARMED  # nothing comes back by itself
    assert client.call("stim.arm", lease=lease, **{**ARM, "output": "median_right"})["token"]


def test_cautery_pauses_fires_by_hand_with_the_reason_and_the_token_lives_on(room):
    client, _, token = armed(room)
    room.demo.inject("aux", line=0, level=True)
    room.wait(lambda: room.daemon.room.technical.cautery)
    code, words = refusal(lambda: client.call("stim.fire", token=token))
    assert code == INTERLOCK and "cautery" in words
    room.demo.inject("aux", line=0, level=False)
    room.wait(lambda: not room.daemon.room.technical.cautery)
    client.call("stim.fire", token=token)
    room.wait(lambda: room.pulses() == 1)


def test_impedances_and_stimulation_exclude_each_other(room):
    client, lease, _ = armed(room)
    code, words = refusal(lambda: client.call("impedance.measure", inputs=[0, 1]))
    assert code == INTERLOCK and "armed" in words
    client.call("stim.off")
    room.wait(lambda: room.daemon.room.stimulation.by_hand.manual is None)
    assert len(client.call("impedance.measure", inputs=[0, 1])["electrodes"]) == 2
    assert client.call("stim.arm", lease=lease, **ARM)["token"]


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("changes,field", [
    ({"amplitude_ma": 60.001}, "amplitude"), ({"amplitude_ma": 1e-9}, "amplitude"),
    ({"amplitude_ma": 1e308}, "amplitude"),
    ({"width_us": 49}, "width"), ({"width_us": 1001}, "width"), ({"width_us": 2**63}, "width"),
    ({"count": 5, "interval_ms": 4.0}, "pulses"), ({"count": 2**62, "interval_ms": 4.0}, "pulses"),
    ({"count": 2, "interval_ms": 1.999}, "interval"), ({"count": 2, "interval_ms": 1e300}, "interval"),
    ({"rate_hz": 50.1}, "rate"), ({"rate_hz": 1e-300}, "rate"), ({"rate_hz": 1e300}, "rate"),
    ({"output": "nowhere"}, "output"), ({"output": "tes"}, "amplitude_v"),
    ({"output": "probe", "amplitude_ma": 30.001}, "amplitude"), ({"output": "probe", "width_us": 301}, "width"),
])  # fmt: skip
def test_a_value_beyond_its_limit_is_refused_by_its_name_and_reaches_no_wire(shared, changes, field):
    room, client, lease = shared
    before = len(room.loaded())
    code, words = refusal(lambda: client.call("stim.arm", lease=lease, **{**ARM, **changes}))
    assert code == LIMIT and field in words
    assert len(room.loaded()) == before


def test_what_is_allowed_at_the_edge_is_armed(shared):
    _, client, lease = shared
    for changes in ({"amplitude_ma": 60.0}, {"amplitude_ma": 0.001}, {"width_us": 50}, {"width_us": 1000},
                    {"count": 4, "interval_ms": 2.0}, {"rate_hz": 50.0}, {"polarity": "biphasic"}):  # fmt: skip
        assert client.call("stim.arm", lease=lease, **{**ARM, **changes})["token"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "true", '"15"', "[15]", "-1", "0", "15.5.1"])
@pytest.mark.parametrize("field", ["amplitude_ma", "width_us", "count", "interval_ms", "rate_hz"])
def test_what_is_no_number_above_zero_is_refused_in_every_field(shared, field, text):
    room, client, lease = shared
    before = len(room.loaded())
    params = json.dumps({**ARM, "lease": lease, "count": 2, "interval_ms": 4.0, "rate_hz": 5.0, field: "HERE"})
    line = '{"jsonrpc":"2.0","id":1,"method":"stim.arm","params":HERE}'
    reply = ask_raw(client, line.replace("HERE", params.replace('"HERE"', text)))
    assert reply["error"]["code"] in (INVALID, PARSE_ERROR)
    assert field in reply["error"]["message"] or reply["error"]["code"] == PARSE_ERROR
    assert len(room.loaded()) == before


@pytest.mark.parametrize("missing", ["output", "site", "lease", "width_us", "amplitude_ma"])
def test_a_missing_field_or_one_nobody_knows_is_refused_by_its_name(shared, missing):
    room, client, lease = shared
    before = len(room.loaded())
    whole = {**ARM, "lease": lease}
    code, words = refusal(lambda: client.call("stim.arm", **{k: v for k, v in whole.items() if k != missing}))
    assert code == INVALID and missing in words
    code, words = refusal(lambda: client.call("stim.arm", **{**whole, missing + "_": 1}))
    assert code == INVALID and missing + "_" in words
    assert len(room.loaded()) == before


def ask_raw(client: Client, line: str) -> dict[str, Any]:
    """The reply to a line that the client's own encoder would never write."""
    client._wire.send(line.encode() + b"\n", 10.0)
    return dict(json.loads(client._wire.line(None) or b"{}"))


ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**65), st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 100), st.integers(0, 2000), st.text(max_size=20), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip
FIELDS = ["output", "site", "lease", "width_us", "amplitude_ma", "amplitude_v", "polarity", "count", "interval_ms",
          "rate_hz", "by"]  # fmt: skip
NEEDED = {"output", "site", "lease", "width_us"}


@settings(max_examples=500, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])  # fmt: skip
@given(changes=st.dictionaries(st.sampled_from([*FIELDS, "nonsense", "token"]), ANY, max_size=3),
       missing=st.sets(st.sampled_from([*ARM, "lease"]), max_size=1))  # fmt: skip
def test_nothing_but_a_delivery_within_all_limits_ever_reaches_the_wire(shared, changes, missing):
    """What was loaded is decoded from the bytes on the wire and held against the limits of its output."""
    room, client, lease = shared
    params = {k: v for k, v in {**ARM, "lease": lease, **changes}.items() if k not in missing}
    before = len(room.loaded())
    reply = ask_raw(client, json.dumps({"jsonrpc": "2.0", "id": 9, "method": "stim.arm", "params": params}))
    loaded = room.loaded()[before:]
    if "error" in reply:
        assert reply["error"]["code"] in (PARSE_ERROR, INVALID, INTERLOCK, LIMIT, LEASE_HELD)
        assert reply["error"]["message"] and not loaded
        return
    assert set(params) <= set(FIELDS) and not missing & NEEDED and len(loaded) == 1
    output, unit, n = struct.unpack_from("<2xBBB", loaded[0])
    assert (output, unit) == (0, 0) and 1 <= n <= 4
    for i in range(n):
        _, amplitude, width = struct.unpack_from("<IiH", loaded[0], 8 + 12 * i)
        assert 1 <= abs(amplitude) <= 60_000 and 50 <= width <= 1000
    assert room.pulses() == 0
