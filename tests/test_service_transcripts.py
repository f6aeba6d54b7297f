"""Golden transcripts: the daemon says them word for word, and the client library understands every line of them."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ionmd.client import Client
from ionmd.errors import Refused
from ionmd.service.describe import describe
from tests import transcript
from tests.json_schema import problems

NAMES = transcript.names()


@pytest.mark.parametrize("name", NAMES)
def test_the_daemon_says_the_transcript_word_for_word(tmp_path, name):
    golden = transcript.load(name)
    said = transcript.play(golden, tmp_path)
    assert said == golden, "`python -m tests.transcript` rewrites them; read the difference first"


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_the_transcript_is_what_describe_says(name):
    root = json.loads(msgspec.json.encode(describe()))
    asked: dict[Any, str] = {}
    for line in transcript.load(name):
        if isinstance(line.get(">"), dict):
            asked[line[">"]["id"]] = line[">"]["method"]
        message = line.get("<")
        if message is None:
            continue
        if "result" in message:
            found = problems(message["result"], root["methods"][asked[message["id"]]]["result"], root)
        elif "error" in message:
            found = problems(message["error"], root["error"], root)
        elif message["method"] == "event":
            p = message["params"]
            found = problems(p, root["event"], root) + problems(p["data"], root["topics"][p["topic"]]["data"], root)
        else:
            found = problems(message["params"], root["hello"], root)
        assert found == [], message


class Prompter:
    """A server that knows one transcript: it answers each request with the lines that follow it."""

    def __init__(self, path: Path, lines: list[dict[str, Any]]) -> None:
        self._lines = lines
        self.trouble: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock, sock.makefile("rb") as wire:
            id = None
            for line in self._lines:
                if isinstance(line.get(">"), dict):
                    came = json.loads(wire.readline())
                    id = came.pop("id")
                    if came != {k: v for k, v in line[">"].items() if k != "id"}:
                        self.trouble.append(f"{came} came, {line['>']} was expected")
                elif "<" in line:
                    message = dict(line["<"])
                    if "id" in message:
                        message["id"] = id
                    sock.sendall(json.dumps(message).encode() + b"\n")
            wire.readline()  # until the client has gone

    def close(self) -> None:
        self._thread.join(10)
        self._listener.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_client_library_understands_the_transcript(tmp_path, name):
    lines = [x for x in transcript.load(name) if not _of_nonsense(x)]
    prompter = Prompter(tmp_path / "s", lines)
    with Client(tmp_path / "s") as client:
        answers = {x["<"]["id"]: x["<"] for x in lines if "id" in x.get("<", {})}
        for request in (x[">"] for x in lines if ">" in x):
            expected = answers[request["id"]]
            if "result" in expected:
                assert client.call(request["method"], **request["params"]) == expected["result"]
            else:
                with pytest.raises(Refused) as refused:
                    client.call(request["method"], **request["params"])
                error = expected["error"]
                assert (refused.value.code, str(refused.value)) == (error["code"], error["message"])
                assert refused.value.data == error.get("data", {})
        said = [x["<"]["params"] for x in lines if x.get("<", {}).get("method") == "event"]
        heard = [next(client.events()) for _ in said]
        for event, params in zip(heard, said, strict=True):
            assert (event.topic, event.seq, event.sample, event.data) == (
                params["topic"], params["seq"], params["sample"], params["data"]
            )
    prompter.close()
    assert prompter.trouble == []


def _of_nonsense(line: dict[str, Any]) -> bool:
    """A line that is no request, and its answer: the client cannot say such things."""
    return isinstance(line.get(">"), str) or line.get("<", {}).get("id", 0) is None


def test_a_line_that_differs_would_be_found(tmp_path):
    """The comparison itself: a golden line that was changed is not what the daemon says."""
    golden = transcript.load("resume.jsonl")
    at = next(i for i, x in enumerate(golden) if "result" in x.get("<", {}))
    golden[at]["<"]["result"]["sample"] += 1
    assert transcript.play(golden, tmp_path) != golden
