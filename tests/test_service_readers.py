"""Clients that read slowly, late or never, that flood, and that send nonsense: each costs only itself."""

from __future__ import annotations

import json
import random

import pytest

from ionmd.service.backend import Limits
from tests.service_rig import BOOT, Rig

LARGE = "x" * 4000


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path) as running:
        yield running


def publish_alarms(rig: Rig, count: int, text: str = LARGE) -> None:
    for number in range(count):
        rig.server.publish("alarm", {"number": number, "text": text}, number)


def resume_all(client, since: int = 0) -> None:
    client.ask("subscribe", "resume", topics=["alarm"], resume_from={"boot_id": BOOT, "seq": {"alarm": since}})


# ---------------------------------------------------------------- resume


def test_ten_thousand_large_alarms_are_resumed_by_a_reader_who_reads(rig):
    publish_alarms(rig, 10_000)  # 40 MB: five times what may wait unread
    client = rig.raw()
    resume_all(client)
    assert client.line()["result"]["seq"] == {"alarm": 10_000}
    for seq in range(1, 10_001):
        event = client.line()["params"]
        assert event["seq"] == seq
        assert len(event["data"]["text"]) == len(LARGE)
    assert "result" in client.call("status")


def test_a_resume_that_nobody_reads_is_cut_with_the_reason(rig):
    publish_alarms(rig, 10_000)
    client = rig.raw()
    resume_all(client)
    rig.sync()
    rig.advance(4.9)
    rig.advance(0.3)
    *_, goodbye = client.lines_to_end()
    assert goodbye["method"] == "goodbye"
    assert "a resume were not read" in goodbye["params"]["reason"]


def test_a_resume_that_is_read_by_drops_is_cut_after_a_minute(rig):
    publish_alarms(rig, 10_000)
    client = rig.raw()
    resume_all(client)
    rig.advance(0.1)
    for _ in range(15):  # 256 KiB every four seconds: never idle, never done
        assert client.exactly(256 * 1024)
        rig.sync()
        rig.advance(4.0)
    rig.advance(0.1)
    found = client.buffer + b"".join(iter(lambda: client.sock.recv(65536), b""))
    assert b"60 s for all of them" in found.splitlines()[-1]


def test_what_happens_during_a_resume_comes_after_it_in_order(rig):
    publish_alarms(rig, 3000)
    client = rig.raw()
    resume_all(client)
    rig.sync()
    publish_alarms(rig, 5, "new")
    client.ask("status", "after")
    client.line()
    assert [client.line()["params"]["seq"] for _ in range(3005)] == list(range(1, 3006))
    assert client.line()["id"] == "after"


def test_unsubscribing_ends_a_resume(rig):
    publish_alarms(rig, 3000)
    client = rig.raw()
    resume_all(client)
    client.ask("unsubscribe", "stop", topics=["alarm"])
    seen = 0
    while client.line().get("id") != "stop":
        seen += 1
    assert seen < 3000
    publish_alarms(rig, 1)
    assert client.call("status")  # drops events before it; none may follow
    client.ask("status", "end")
    assert client.line()["id"] == "end"


def test_replies_that_wait_behind_a_resume_pause_the_client_as_ever(tmp_path):
    with Rig(tmp_path, Limits(requests_per_s=1e9, burst=10**9, reply_pause_bytes=100_000)) as rig:
        publish_alarms(rig, 3000)
        client = rig.raw()
        resume_all(client)
        for _ in range(20):
            client.ask("describe", "d")  # some 80 kB each
        rig.sync()
        assert rig.server.stats().requests < 6
        while client.line().get("id") != "d":
            pass
        assert [client.line()["id"] for _ in range(19)] == ["d"] * 19


# ---------------------------------------------------------------- never and slowly


def test_a_subscriber_who_never_reads_is_cut_and_nobody_else_notices(rig):
    never, other = rig.raw(), rig.raw()
    for client in (never, other):
        client.call("subscribe", topics=["alarm"])
    for number in range(4000):  # 16 MB
        rig.server.publish("alarm", {"text": LARGE}, number)
        assert other.line()["params"]["seq"] == number + 1
    *_, goodbye = never.lines_to_end()
    assert "bytes were not read" in goodbye["params"]["reason"]
    assert rig.server.stats().cut == 1
    assert "result" in other.call("status")


def test_a_subscriber_who_is_behind_for_five_seconds_is_cut(rig):
    behind = rig.raw()
    behind.call("subscribe", topics=["alarm"])
    publish_alarms(rig, 800)  # 3.2 MB: above the soft limit, below the hard one
    rig.sync()
    rig.advance(0.1)
    rig.advance(5.2)
    *_, goodbye = behind.lines_to_end()
    assert "5 s" in goodbye["params"]["reason"]


def test_a_slow_reader_of_readings_loses_the_old_ones_and_always_gets_the_last(rig):
    slow = rig.raw()
    slow.call("subscribe", topics=["reading"])
    for number in range(3000):
        for name in ("a", "b"):
            rig.server.publish("reading", {"number": number, "text": LARGE}, number, key=name)
    rig.sync()
    slow.ask("status", "end")
    last, newest = 0, []
    while "id" not in (message := slow.line()):
        event = message["params"]
        assert event["seq"] == last + 1 + event.get("skipped", 0)
        last = event["seq"]
        newest.append(event["data"]["number"])
    while last < 6000:
        event = slow.line()["params"]
        assert event["seq"] == last + 1 + event.get("skipped", 0)
        last = event["seq"]
        newest.append(event["data"]["number"])
    assert newest[-2:] == [2999, 2999]
    assert len(newest) < 3000


def test_a_client_who_asks_and_never_reads_is_paused_then_cut(rig):
    client, other = rig.raw(), rig.raw()
    for number in range(200):
        client.ask("describe", number)
    rig.sync()
    assert "result" in other.call("status")
    rig.advance(5.2)
    *_, goodbye = client.lines_to_end()
    assert "replies were not read" in goodbye["params"]["reason"]


def test_the_lease_of_a_cut_holder_is_lost(rig):
    holder = rig.raw()
    holder.call("stim.acquire")
    holder.call("subscribe", topics=["alarm"])
    publish_alarms(rig, 4000)
    rig.sync()
    assert rig.backend.lost_one.wait(5)
    assert rig.backend.lease is None


def test_a_flood_of_one_client_does_not_delay_the_request_of_another(rig):
    flooder, other = rig.raw(), rig.raw()
    rig.backend.go.clear()
    line = b'{"jsonrpc":"2.0","id":1,"method":"status"}\n'
    flooder.send(line * 1000)
    rig.sync()
    other.ask("status")
    rig.sync()
    rig.backend.go.set()
    assert other.line()["id"] == 1
    askers = [connection for _, connection in rig.backend.executed]
    waited = next(i for i, connection in enumerate(askers) if connection != askers[0])
    assert waited <= rig.server.limits.in_flight
    assert [flooder.line()["id"] for _ in range(1000)] == [1] * 1000


# ---------------------------------------------------------------- nonsense

WORDS = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\\u0000", b"\\ud800", b"null", b"true", b"NaN", b"-0", b"1e999",
    b"0x1", b'"id"', b'"jsonrpc"', b'"2.0"', b'"method"', b'"params"', b'"stream"', b'"status"', b"\xff", b"\x00",
    b"\xc0\xaf", b" ", b"\r", b"9" * 40,
]  # fmt: skip
VALID = b'{"jsonrpc":"2.0","id":7,"method":"event.add","params":{"kind":"step","text":"incision","at_sample":5}}'


def nonsense(seed: int) -> bytes:
    """A valid request, bent: bytes changed, cut out, doubled, or words of the grammar thrown in."""
    dice = random.Random(seed)
    line = bytearray(VALID if dice.random() < 0.8 else b"".join(dice.choices(WORDS, k=dice.randint(1, 40))))
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(line) + 1)
        kind = dice.randrange(4)
        if kind == 0 and at < len(line):
            line[at] = dice.randrange(256)
        elif kind == 1:
            del line[at : at + dice.randint(1, 12)]
        elif kind == 2:
            line[at:at] = line[at : at + dice.randint(1, 12)]
        else:
            line[at:at] = dice.choice(WORDS)
    return bytes(line).replace(b"\n", b"")


def test_two_thousand_lines_of_nonsense_each_get_at_most_one_proper_answer(rig):
    client = rig.raw()
    for seed in range(2000):
        line = nonsense(seed)
        client.send(line + b"\n")
        client.ask("status", f"end-{seed}")
        answers = []
        while (message := client.line()).get("id") != f"end-{seed}":
            answers.append(message)
        assert message.get("result"), line
        assert len(answers) <= 1, line
        for answer in answers:
            assert ("error" in answer) != ("result" in answer)
            if "error" in answer:
                assert answer["error"]["code"] in (-32700, -32600, -32601, -32602, 1006)
                assert len(answer["error"]["message"]) < 600
    assert {method for method, _ in rig.backend.executed} <= {"status", "event.add"}


def test_nonsense_before_a_stream_token_ends_nothing_but_itself(rig):
    client = rig.raw()
    for value in ({"stream": 7}, {"stream": None}, {"stream": ["x"]}, {"stream": "x" * 500}):
        client.send(json.dumps(value).encode() + b"\n")
        assert client.line()["error"]["code"] == -32600
    assert "result" in client.call("status")
