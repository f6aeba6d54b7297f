"""The socket as a client meets it."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ionmd.service.backend import Limits
from ionmd.service.schema import METHODS, TOPICS
from tests.service_rig import BOOT, EASY, Raw, Rig


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path) as running:
        yield running


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_the_server_speaks_first_and_says_who_it_is(rig):
    hello = rig.raw().hello
    assert hello["method"] == "hello"
    assert hello["params"]["protocol"] == [1, 0]
    assert hello["params"]["boot_id"] == BOOT
    assert hello["params"]["source"] == "simulated"
    assert hello["params"]["case_id"] is None
    assert hello["params"]["device"] == {"state": "absent"}


def test_hello_names_the_case_and_device_of_now(rig):
    rig.server.announce(case_id="case-7", device_state="streaming")
    hello = rig.raw().hello["params"]
    assert (hello["case_id"], hello["device"]) == ("case-7", {"state": "streaming"})


def test_a_changing_request_is_answered_only_when_the_backend_has_finished_it(rig):
    client = rig.raw()
    rig.backend.go.clear()
    client.ask("case.open", case_id="a")
    rig.sync()
    client.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.sock.recv(1)
    client.sock.settimeout(10)
    rig.backend.go.set()
    assert client.line()["result"] == {"n": 1, "sample": 100, "case_id": "a"}


def test_stim_off_overtakes_a_backend_that_is_stuck(rig):
    client = rig.raw()
    rig.backend.go.clear()
    client.ask("case.open", id=1)
    client.ask("stim.off", id=2)
    assert client.line() == {"jsonrpc": "2.0", "id": 2, "result": {"off": True}}
    assert len(rig.backend.offs) == 1
    rig.backend.go.set()
    assert client.line()["id"] == 1


def test_stim_off_is_done_even_with_params_that_are_wrong(rig):
    assert rig.raw().call("stim.off", really=True)["result"] == {"off": True}
    assert len(rig.backend.offs) == 1


def test_stim_off_overtakes_requests_that_wait_for_their_rate(tmp_path):
    with Rig(tmp_path, Limits(requests_per_s=1.0, burst=2)) as rig:
        client = rig.raw()
        for id in range(5):
            client.ask("status", id=id)
        assert [client.line()["id"] for _ in range(2)] == [0, 1]
        client.ask("stim.off", id="off")
        assert client.line()["id"] == "off"
        rig.advance(3.0)
        assert [client.line()["id"] for _ in range(2)] == [2, 3]


def test_events_come_only_after_subscribe_and_carry_their_place(rig):
    client = rig.raw()
    rig.server.publish("alarm", {"id": "before"}, 5)
    reply = client.call("subscribe", topics=["alarm"])
    assert reply["result"] == {"boot_id": BOOT, "topics": ["alarm"], "seq": {"alarm": 1}}
    rig.server.publish("alarm", {"id": "after"}, 582_784, n=812)
    assert client.line() == {
        "jsonrpc": "2.0",
        "method": "event",
        "params": {
            "topic": "alarm",
            "seq": 2,
            "n": 812,
            "boot_id": BOOT,
            "sample": 582_784,
            "t_utc": "2026-09-21T14:13:20.123456Z",
            "data": {"id": "after"},
        },
    }


def test_after_the_unsubscribe_reply_nothing_of_the_topic_comes(rig):
    client = rig.raw()
    client.call("subscribe", topics=["alarm", "case"])
    rig.server.publish("alarm", {"id": "a"}, 1)
    assert client.line()["params"]["data"] == {"id": "a"}
    assert client.call("unsubscribe", topics=["alarm"])["result"]["topics"] == ["case"]
    rig.server.publish("alarm", {"id": "b"}, 2)
    rig.server.publish("case", {"kind": "x"}, 3)
    assert client.line()["params"]["topic"] == "case"


def test_a_reply_comes_after_the_events_of_its_own_request(rig):
    client = rig.raw()
    client.call("subscribe", topics=["case"])
    client.ask("case.open", case_id="a")
    assert client.line()["params"]["data"] == {"kind": "opened", "case_id": "a"}
    assert client.line()["params"]["data"] == {"committed": 1}
    assert client.line()["result"]["case_id"] == "a"


def test_resume_sends_exactly_what_was_missed(rig):
    for number in range(20):
        rig.server.publish("alarm", {"number": number}, number)
    client = rig.raw()
    client.ask("subscribe", topics=["alarm"], resume_from={"boot_id": BOOT, "seq": {"alarm": 12}})
    assert client.line()["result"]["seq"] == {"alarm": 20}
    assert [client.line()["params"]["seq"] for _ in range(8)] == list(range(13, 21))


def test_resume_within_ten_thousand_works_and_beyond_gets_an_error_with_a_snapshot(rig):
    for number in range(10_001):
        rig.server.publish("message", {"number": number}, number)
    client = rig.raw()
    client.ask("subscribe", topics=["message"], resume_from={"boot_id": BOOT, "seq": {"message": 1}})
    assert client.line()["result"]["seq"] == {"message": 10_001}
    seqs = [client.line()["params"]["seq"] for _ in range(10_000)]
    assert seqs == list(range(2, 10_002))
    late = rig.raw()
    late.ask("subscribe", topics=["message"], resume_from={"boot_id": BOOT, "seq": {"message": 0}})
    error = late.line()["error"]
    assert error["code"] == -32001
    assert error["data"]["oldest"]["message"] == 1
    assert error["data"]["snapshot"]["case_id"] is None
    again = {"boot_id": error["data"]["boot_id"], "seq": {"message": error["data"]["seq"]["message"]}}
    assert "result" in late.call("subscribe", topics=["message"], resume_from=again)


def test_resume_from_another_boot_gets_an_error_with_a_snapshot(rig):
    client = rig.raw()
    reply = client.call("subscribe", topics=["alarm"], resume_from={"boot_id": "other", "seq": {"alarm": 0}})
    assert reply["error"]["code"] == -32001
    assert reply["error"]["data"]["boot_id"] == BOOT


def test_resume_over_commits_that_were_not_kept_still_adds_up(rig):
    rig.server.publish("case", {"kind": "event"}, 1)  # seq 1
    for n in range(5):
        rig.server.committed(n, 2)  # 2..6, only the last is kept
    rig.server.publish("case", {"kind": "event"}, 3)  # 7
    client = rig.raw()
    client.ask("subscribe", topics=["case"], resume_from={"boot_id": BOOT, "seq": {"case": 0}})
    client.line()
    events = [client.line()["params"] for _ in range(3)]
    assert [(e["seq"], e.get("skipped", 0)) for e in events] == [(1, 0), (6, 4), (7, 0)]


def test_the_snapshot_says_which_events_it_contains(rig):
    rig.server.publish("alarm", {"id": "a"}, 1)
    result = rig.raw().call("snapshot")["result"]
    assert result["boot_id"] == BOOT
    assert result["seq"]["alarm"] == 1
    assert result["case_id"] is None


def test_a_refusal_of_the_backend_arrives_with_its_code(rig):
    client = rig.raw()
    error = client.call("event.add", kind="step", text="incision")["error"]
    assert error["code"] == 1006
    assert "case.open" in error["message"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"status"', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"status","id":2}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"alarm.pause","params":{"seconds":NaN,"reason":"x"}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"alarm.pause","params":{"seconds":1e999,"reason":"x"}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"alarm.pause","params":{"seconds":-Infinity,"reason":"x"}}', -32700),
        (b'{"jsonrpc":"2.0","id":18446744073709551616,"method":"status"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"st\xff"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"st\\u0000"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"st\\ud800"}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"st\x00"}', -32700),
        (b"[" * 60_000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"params":' + b'{"a":' * 16 + b"1" + b"}" * 17, -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"status"}]', -32600),
        (b"17", -32600),
        (b'{"id":1,"method":"status"}', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"status"}', -32600),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"status"}', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"status"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"no.such"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"status","params":[]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"status","params":{"verbose":true}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"alarm.pause","params":{"seconds":true,"reason":"x"}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"alarm.pause","params":{"seconds":121,"reason":"x"}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"alarm.pause","params":{"seconds":0,"reason":"x"}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"topics":["weather"]}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"event.add","params":{"kind":"step","text":"x","at_sample":-1}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"event.add","params":{"kind":"step","text":"x","at_sample":1.0}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"person.sign_in","params":{"name":"a\\u001b[2J"}}', -32602),
    ],
    ids=lambda value: value[:70].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_a_wrong_line_gets_its_error_and_the_connection_goes_on(rig, line, code):
    client = rig.raw()
    client.send(line + b"\n")
    assert client.line()["error"]["code"] == code
    assert "result" in client.call("status")
    assert [method for method, _ in rig.backend.executed] == ["status"]


def test_unknown_envelope_members_are_ignored(rig):
    client = rig.raw()
    client.send(b'{"jsonrpc":"2.0","id":1,"method":"status","trace":{"a":[1]},"params":{}}\r\n')
    assert client.line()["id"] == 1


def test_a_notification_is_carried_out_and_not_answered(rig):
    client = rig.raw()
    client.send(b'{"jsonrpc":"2.0","method":"stim.off"}\n{"jsonrpc":"2.0","method":"nonsense"}\n')
    client.ask("status", id="next")
    assert client.line()["id"] == "next"
    assert len(rig.backend.offs) == 1


def test_a_line_of_one_byte_at_a_time_is_understood(rig):
    client = rig.raw()
    for byte in b'{"jsonrpc":"2.0","id":1,"method":"status"}\n':
        client.send(bytes([byte]))
    assert client.line()["id"] == 1


def test_a_line_that_is_never_finished_is_cut_after_five_seconds(rig):
    client = rig.raw()
    client.send(b'{"jsonrpc"')
    rig.sync()
    rig.advance(4.9)
    client.send(b":")
    rig.sync()
    rig.advance(0.2)
    [goodbye] = client.lines_to_end()
    assert goodbye["method"] == "goodbye"
    assert "5 s" in goodbye["params"]["reason"]


@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_a_line_over_64_kib_is_cut_with_the_reason(rig, tail):
    client = rig.raw()
    client.send(b'"' + b"x" * 65_535 + tail)
    goodbye = client.line()
    assert goodbye["method"] == "goodbye"
    assert "65536" in goodbye["params"]["reason"]


def test_a_line_of_exactly_64_kib_is_taken(rig):
    client = rig.raw()
    head = b'{"jsonrpc":"2.0","id":1,"method":"status","pad":"'
    client.send(head + b"x" * (65_536 - len(head) - 3) + b'"}\n')
    assert client.line()["id"] == 1


def test_half_a_line_and_a_hang_up_leave_nothing_behind(rig):
    before = open_descriptors()
    for _ in range(20):
        client = rig.raw()
        client.send(b'{"jsonrpc":"2.0","id":1,"meth')
        client.sock.close()
    rig.raw().call("status")
    rig.sync()
    assert rig.server.stats().connections == 1
    assert open_descriptors() <= before + 2


def test_requests_before_a_half_close_are_answered_and_then_it_ends(rig):
    client = rig.raw()
    client.ask("case.open", id=1)
    client.ask("status", id=2)
    client.sock.shutdown(socket.SHUT_WR)
    assert [message["id"] for message in client.lines_to_end()] == [1, 2]


def test_passed_descriptors_are_not_kept(rig):
    client = rig.raw()
    rig.sync()
    before = open_descriptors()
    socket.send_fds(client.sock, [b'{"jsonrpc":"2.0","id":1,"method":"status"}\n'], [0, 0, 0])
    assert client.line()["id"] == 1
    assert open_descriptors() == before


def test_a_lease_dies_with_the_connection_that_acquired_it(rig):
    holder, other = rig.raw(), rig.raw()
    assert holder.call("stim.acquire")["result"]["lease"] == "lease-1"
    refused = other.call("stim.acquire")["error"]
    assert refused["code"] == 1004
    assert "holder" in refused["data"]
    holder.sock.close()
    assert rig.backend.lost_one.wait(5)
    assert other.call("stim.acquire")["result"]["lease"]


def test_a_lease_ends_when_its_holder_stops_sending(rig):
    holder = rig.raw()
    holder.call("stim.acquire")
    holder.sock.shutdown(socket.SHUT_WR)
    assert rig.backend.lost_one.wait(5)


def test_a_lease_granted_after_its_asker_has_gone_is_given_back(rig):
    rig.backend.go.clear()
    asker = rig.raw()
    asker.ask("stim.acquire")
    rig.sync()
    asker.sock.close()
    assert rig.backend.lost_one.wait(5)
    rig.sync()
    rig.backend.lost_one.clear()
    rig.backend.go.set()
    assert rig.backend.lost_one.wait(5)
    assert rig.backend.lease is None


def test_the_33rd_connection_and_the_9th_of_a_user_are_told_why(tmp_path):
    with Rig(tmp_path, Limits(connections=3, per_uid=2)) as rig:
        rig.raw()
        rig.raw()
        third = rig.raw()
        assert third.hello["method"] == "goodbye"
        assert "2 connections" in third.hello["params"]["reason"]
        assert third.line() == {}
        assert rig.server.stats().refused == 1


def test_a_flood_is_slowed_and_nobody_else_notices(tmp_path):
    with Rig(tmp_path, Limits(requests_per_s=50.0, burst=100)) as rig:
        flooder, other = rig.raw(), rig.raw()
        for id in range(150):
            flooder.ask("status", id=id)
        assert [flooder.line()["id"] for _ in range(100)] == list(range(100))
        assert "result" in other.call("status")
        rig.advance(0.5)
        assert [flooder.line()["id"] for _ in range(25)] == list(range(100, 125))
        rig.advance(0.5)
        assert [flooder.line()["id"] for _ in range(25)] == list(range(125, 150))


def test_arm_and_fire_are_limited_for_the_whole_daemon(tmp_path):
    with Rig(tmp_path, replace(EASY, stim_per_s=2.0)) as rig:
        params = {"token": "t"}
        replies = [rig.raw().call("stim.fire", **params) for _ in range(3)]
        assert ["result" in reply for reply in replies] == [True, True, False]
        assert replies[2]["error"]["code"] == 1003


def test_thirty_two_clients_get_every_event_in_order_and_their_own_replies(rig):
    clients = [rig.raw() for _ in range(32)]
    for client in clients:
        client.ask("subscribe", id="s", topics=["alarm", "case"])
        assert client.line()["id"] == "s"
    for number in range(50):
        rig.server.publish("alarm", {"number": number}, number)
    for place, client in enumerate(clients):
        client.ask("case.open", id=place, case_id=f"case-{place}")
    for place, client in enumerate(clients):
        seqs, answered = [], None
        while len(seqs) < 50 or answered is None:
            message = client.line()
            if "result" in message:
                answered = message
            elif message["params"]["topic"] == "alarm":
                seqs.append(message["params"]["seq"])
        assert seqs == list(range(1, 51))
        assert answered["id"] == place
        assert answered["result"]["case_id"] == f"case-{place}"
    assert len(rig.backend.executed) == 32


def test_stopping_sends_the_last_event_and_says_goodbye(tmp_path):
    with Rig(tmp_path) as rig:
        client = Raw(rig.path)
        client.call("subscribe", topics=["alarm"])
        rig.server.publish("alarm", {"id": "last"}, 9)
    last, goodbye = client.lines_to_end()
    client.sock.close()
    assert last["params"]["data"] == {"id": "last"}
    assert goodbye["params"]["reason"] == "the daemon is stopping"


def test_describe_covers_every_method_and_topic_and_its_references_resolve(rig):
    result = rig.raw().call("describe")["result"]
    assert set(result["methods"]) == set(METHODS)
    assert set(result["topics"]) == set(TOPICS)
    names = set(result["$defs"])
    text = json.dumps(result)
    used = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}
    assert used <= names
    assert result["$defs"]["StimArm"]["additionalProperties"] is False
