"""The client library against servers that behave, misbehave, leave, and are newer than it."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ionmd.client import Client
from ionmd.errors import DaemonUnreachable, Refused
from tests.service_rig import Rig

HELLO: dict[str, Any] = {
    "jsonrpc": "2.0", "method": "hello",
    "params": {"protocol": [1, 0], "server": "ionmd 9", "boot_id": "b", "source": "device", "case_id": None,
               "device": {"state": "streaming"}, "roles": ["view"]},
}  # fmt: skip


class Says:
    """A server that says its lines to whoever connects, one more batch after each request, and then hangs up."""

    def __init__(self, path: Path, *batches: list[Any]) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._thread = threading.Thread(target=self._serve, args=(batches,), daemon=True)
        self._thread.start()

    def _serve(self, batches: tuple[list[Any], ...]) -> None:
        sock, _ = self._listener.accept()
        with sock, sock.makefile("rb") as wire:
            for number, batch in enumerate(batches):
                if number and not wire.readline():
                    return
                for line in batch:
                    sock.sendall(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    def __enter__(self) -> Says:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(10)


def event(seq: int, **more: Any) -> dict[str, Any]:
    params = {"topic": "alarm", "seq": seq, "n": 1, "boot_id": "b", "sample": 5, "t_utc": "x", "data": {}} | more
    return {"jsonrpc": "2.0", "method": "event", "params": params}


def result(id: int, value: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": value}


def test_events_that_come_while_a_request_waits_are_kept_in_order(tmp_path):
    with (
        Says(tmp_path / "s", [HELLO], [event(1), event(2), result(1, {"ok": True}), event(3)]) as server,
        Client(server.path) as client,
    ):
        assert client.call("status") == {"ok": True}
        assert [e.seq for _, e in zip(range(3), client.events(), strict=False)] == [1, 2, 3]


def test_what_a_newer_server_adds_is_ignored(tmp_path):
    newer = json.loads(json.dumps(HELLO))
    newer["params"] |= {"protocol": [1, 9], "mood": "good"}
    odd = {"jsonrpc": "2.0", "method": "weather", "params": {"sky": "blue"}}
    with (
        Says(tmp_path / "s", [newer], [odd, event(1, mood="good"), result(1, 7) | {"mood": "good"}]) as server,
        Client(server.path) as client,
    ):
        assert client.call("status") == 7
        assert next(client.events()).seq == 1


def test_another_major_protocol_is_refused_with_what_to_do(tmp_path):
    other = json.loads(json.dumps(HELLO))
    other["params"]["protocol"] = [2, 0]
    with Says(tmp_path / "s", [other]) as server, pytest.raises(DaemonUnreachable, match=r"protocol \[2, 0\]"):
        Client(server.path)


@pytest.mark.parametrize("line", [b"SSH-2.0-OpenSSH\n", b"{}\n", b'{"method":"hello","params":{"protocol":[1,0]}}\n'])
def test_who_speaks_something_else_is_named(tmp_path, line):
    with Says(tmp_path / "s", [line]) as server, pytest.raises(DaemonUnreachable, match="not the ionmd protocol"):
        Client(server.path)


def test_a_goodbye_instead_of_hello_is_the_reason(tmp_path):
    bye = {"jsonrpc": "2.0", "method": "goodbye", "params": {"reason": "32 connections are open"}}
    with Says(tmp_path / "s", [bye]) as server, pytest.raises(DaemonUnreachable, match="32 connections are open"):
        Client(server.path)


def test_a_cut_while_listening_ends_with_its_reason_after_the_last_event(tmp_path):
    bye = {"jsonrpc": "2.0", "method": "goodbye", "params": {"reason": "more than 2 MiB were not read"}}
    with Says(tmp_path / "s", [HELLO, event(1), bye]) as server, Client(server.path) as client:
        heard = client.events()
        assert next(heard).seq == 1
        with pytest.raises(DaemonUnreachable, match="2 MiB were not read"):
            next(heard)


def test_a_line_cut_short_is_no_answer(tmp_path):
    with (
        Says(tmp_path / "s", [HELLO], [b'{"jsonrpc":"2.0","id":1,"resu']) as server,
        Client(server.path) as client,
        pytest.raises(DaemonUnreachable, match="closed the connection"),
    ):
        client.call("status")


def test_the_first_path_that_answers_is_taken_and_all_are_named_when_none_does(tmp_path):
    with Rig(tmp_path) as rig, Client([tmp_path / "nobody", rig.path]) as client:
        assert client.path == rig.path
    with pytest.raises(DaemonUnreachable) as nobody:
        Client([tmp_path / "a", tmp_path / "b"])
    assert str(tmp_path / "a") in str(nobody.value) and "ionmd run" in str(nobody.value)


def test_a_refusal_has_its_code_and_data(tmp_path):
    with Rig(tmp_path) as rig, Client(rig.path) as holder, Client(rig.path) as other:
        holder.call("stim.acquire")
        with pytest.raises(Refused) as refused:
            other.call("stim.acquire")
    assert refused.value.code == 1004 and refused.value.exit_code == 4
    assert "holder" in refused.value.data


def test_a_daemon_that_does_not_answer_in_time_is_unreachable(tmp_path):
    with Rig(tmp_path) as rig, Client(rig.path) as client:
        rig.backend.go.clear()
        with pytest.raises(DaemonUnreachable, match=r"did not answer status within 0\.05 s"):
            client.call("status", timeout_s=0.05)
        rig.backend.go.set()
        assert client.call("status")["sample"] == 200  # the late answer to the first is not taken for this one


def test_events_end_quietly_when_none_came_in_time(tmp_path):
    with Rig(tmp_path) as rig, Client(rig.path) as client:
        client.subscribe("alarm")
        assert list(client.events(timeout_s=0.0)) == []


def test_ten_thousand_events_behind_one_answer_are_all_there(tmp_path):
    with Rig(tmp_path) as rig, Client(rig.path) as client:
        for number in range(10_000):
            rig.server.publish("message", {"number": number}, number)
        client.subscribe("message", resume_from={"boot_id": client.hello.boot_id, "seq": {"message": 0}})
        client.call("status")
        assert client.pending == 10_000
        assert [e.data["number"] for _, e in zip(range(10_000), client.events(), strict=False)] == list(range(10_000))


def test_a_stream_gives_frames_until_its_end(tmp_path):
    with Rig(tmp_path) as rig, Client(rig.path) as client, client.open_stream("raw", ["C3"]) as stream:
        (source,) = rig.backend.sources.values()
        source.sink.push(0, bytes(40), 10)
        source.sink.gap(10, 5, 2)
        source.sink.end(5)
        assert [(f.kind, f.first, f.n, f.cause, len(f.payload)) for f in stream.frames()] == [
            (1, 0, 10, 0, 40), (2, 10, 5, 2, 0), (3, 15, 0, 5, 0)
        ]


def test_a_token_that_is_not_good_is_a_refusal(tmp_path):
    from ionmd.client import SampleStream

    with Rig(tmp_path) as rig, pytest.raises(Refused, match="no such token"):
        SampleStream(rig.path, "made up")
