"""docs/socket.md cannot rot: its examples fit the schema, its tables are those of the code, its clients run."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from ionmd import errors
from ionmd.model import decode_curve
from ionmd.service.backend import Limits
from ionmd.service.describe import TOPIC_DATA, describe
from ionmd.service.frames import HEADER, Cause, FrameFlag
from ionmd.service.schema import METHODS, TOPICS
from tests.daemon_rig import DaemonRig
from tests.json_schema import problems

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "socket.md").read_text(encoding="utf-8")
ROOT: dict[str, Any] = json.loads(msgspec.json.encode(describe()))


def examples() -> list[dict[str, Any]]:
    """Every JSON value of every json block, in order."""
    found = []
    for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL):
        at, decoder = 0, json.JSONDecoder()
        while at < len(block.rstrip()):
            value, at = decoder.raw_decode(block, at)
            at += len(block[at:]) - len(block[at:].lstrip())
            found.append(value)
    return found


EXAMPLES = examples()
REQUESTS = {e["id"]: e for e in EXAMPLES if "id" in e and "method" in e}


def wrong(example: dict[str, Any]) -> list[str]:
    """What is wrong with one example."""
    if "method" in example and "id" in example:
        return problems(example.get("params", {}), ROOT["methods"][example["method"]]["params"], ROOT)
    if "result" in example:
        return problems(example["result"], ROOT["methods"][REQUESTS[example["id"]]["method"]]["result"], ROOT)
    if "error" in example:
        found = problems(example["error"], ROOT["error"], ROOT)
        if example["error"]["code"] == errors.RESUME_LOST:
            found += problems(example["error"]["data"], ROOT["resume_lost"], ROOT)
        return found
    if example.get("method") == "event":
        params = example["params"]
        return problems(params, ROOT["event"], ROOT) + problems(
            params["data"], ROOT["topics"][params["topic"]]["data"], ROOT
        )
    if example.get("method") in ("hello", "goodbye"):
        return problems(example["params"], ROOT[example["method"]], ROOT)
    if "rate_hz" in example:
        return problems(example, ROOT["stream_layout"], ROOT)
    if "shape" in example:
        return problems(example, {"$ref": "#/$defs/Curve"}, ROOT)
    return [] if set(example) == {"stream"} else ["an example of nothing we know"]


def test_every_example_fits_the_schema():
    assert len(EXAMPLES) > 100
    assert [(e, found) for e in EXAMPLES if (found := wrong(e))] == []


def test_every_method_has_a_request_and_its_answer():
    answered = {REQUESTS[e["id"]]["method"] for e in EXAMPLES if "result" in e}
    assert answered == set(METHODS)


@pytest.mark.parametrize("topic", TOPICS)
def test_every_shape_of_every_topic_has_its_example(topic):
    seen = [e["params"]["data"] for e in EXAMPLES if e.get("method") == "event" and e["params"]["topic"] == topic]
    for kind in TOPIC_DATA[topic]:
        schema = {"$ref": f"#/$defs/{kind.__name__}"}
        assert any(not problems(data, schema, ROOT) for data in seen), kind.__name__


def test_the_table_of_methods_is_that_of_the_code():
    table = PAGE.split("\n## Methods\n")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z, ]+) \| (.+) \|$", table, re.MULTILINE)
    told = {name: (who, doc) for name, who, doc in rows}
    assert told == {name: (", ".join(sorted(m.roles)) or "everybody", m.doc) for name, m in METHODS.items()}


def test_every_error_code_is_explained():
    codes = {v for k, v in vars(errors).items() if k.isupper() and isinstance(v, int)}
    assert {int(c) for c in re.findall(r"^\| (-?\d{4,5}) \|", PAGE, re.MULTILINE)} == codes


def test_the_offsets_of_the_frame_header_are_those_of_the_code():
    size = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
    rows = re.findall(r"^\| (\d+) \| (u\d+) \|", PAGE, re.MULTILINE)
    at = 0
    for offset, kind in rows:
        assert int(offset) == at
        at += size[kind]
    assert at == HEADER.size
    letters = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}
    assert "<" + "".join(letters[kind] for _, kind in rows) == HEADER.format


def test_every_flag_and_every_cause_of_a_frame_is_named():
    flags = re.search(r"^\| 6 \| u16 \| flags: (.+) \|$", PAGE, re.MULTILINE)[1]
    assert [int(n) for n in re.findall(r"(?:^|, )(\d+) ", flags)] == [int(f) for f in FrameFlag if f]
    causes = re.search(r"^\| 31 \| u8 \| cause of a gap or end: (.+) \|$", PAGE, re.MULTILINE)[1]
    assert [int(n) for n in re.findall(r"(?:^|, )(\d+) ", causes)] == [int(c) for c in Cause if c]


def test_the_limits_are_those_of_the_code():
    told = dict(re.findall(r"^\| ([a-z][^|]+|`stim[^|]+) \| (\d[^|]+) \|$", PAGE, re.MULTILINE))
    limits = Limits()
    assert told["connections"].startswith(f"{limits.connections}, at most {limits.per_uid} of one user")
    assert told["requests"].startswith(f"{limits.requests_per_s:g}/s a connection, bursts of {limits.burst}")
    assert told["requests without an answer"].startswith(f"{limits.in_flight} ")
    assert told["`stim.arm` and `stim.fire`"].startswith(f"{limits.stim_per_s:g}/s")
    assert told["unread answers"].startswith(f"{limits.reply_pause_bytes >> 10} KiB")
    assert told["unread events that may not be dropped"] == (
        f"{limits.soft_bytes >> 20} MiB for {limits.soft_s:g} s, {limits.hard_bytes >> 20} MiB at once"
    )
    assert told["events kept for a resume"] == f"{limits.history:,} a topic"
    assert told["a resume"] == f"{limits.resume_s:g} s, {limits.soft_s:g} s without reading"
    assert told["unread samples"].startswith(f"{limits.stream_bytes >> 20} MiB")


def test_the_curve_of_the_page_is_what_the_page_says():
    curve = next(e for e in EXAMPLES if "shape" in e)
    assert decode_curve(curve).tolist() == [[0, 0, 1, 2, 2, 1, 0, 0]]


def test_seq_of_the_examples_adds_up():
    last: dict[str, int] = {}
    for params in (e["params"] for e in EXAMPLES if e.get("method") == "event"):
        assert params["seq"] == last.get(params["topic"], 0) + 1 + params.get("skipped", 0)
        last[params["topic"]] = params["seq"]


# ---------------------------------------------------------------- the clients of the page


def example_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rig(tmp_path):
    with DaemonRig(tmp_path, "transcript") as running:
        yield running


def lead_off(rig: DaemonRig) -> None:
    """A case in which the left lead has fallen off."""
    with rig.client() as room:
        room.call("case.open")
        lease = room.call("stim.acquire")["lease"]
        rig.to(20_000)
        room.call("test.start", tests=["ssep_median_left"], lease=lease)
        rig.to(60_000)


def wait_until(true) -> None:
    """For what another process or thread does."""
    pause = threading.Event()
    while not true():
        pause.wait(0.005)


def test_the_example_client_follows_alarms_and_misses_none_when_it_comes_back(rig):
    client = example_module("client")
    seen = {"boot_id": rig.daemon.boot_id, "seq": {"alarm": 0}}
    with rig.client() as room:
        room.call("person.sign_in", name="Kim")
        lead_off(rig)
        listening = client.follow(str(rig.path), seen)
        alarm = next(listening)["data"]
        assert (alarm["code"], alarm["state"]) == ("stimulus.not-delivered", "active")
        listening.close()
        room.call("alarm.ack", id=alarm["id"], by="Kim")  # while nobody listens
        missed = []
        for event in client.follow(str(rig.path), seen):
            missed.append((event["data"]["id"], event["data"]["state"]))
            if missed[-1] == (alarm["id"], "acknowledged"):
                break
    assert seen["seq"]["alarm"] == 1 + len(missed)


def test_the_example_client_goes_on_after_a_restart_of_the_daemon(rig, capsys):
    client = example_module("client")
    lead_off(rig)
    seen, heard = {"boot_id": "of yesterday", "seq": {"alarm": 7}}, []
    with rig.client() as room:
        room.call("person.sign_in", name="Kim")
        before = rig.daemon.server.stats().requests
        listener = threading.Thread(target=lambda: heard.append(next(client.follow(str(rig.path), seen))))
        listener.start()
        wait_until(lambda: rig.daemon.server.stats().requests == before + 2)  # refused, subscribed again
        room.call("alarm.ack", id="A1", by="Kim")
        listener.join(30)
    assert heard[0]["data"]["state"] == "acknowledged"
    assert seen["boot_id"] == rig.daemon.boot_id
    assert "missed some; open now: [{'id': 'A1'" in capsys.readouterr().err


def test_the_example_of_samples_reads_what_the_device_gave(rig):
    samples = example_module("samples")
    with rig.client() as room:
        room.call("case.open")
    stream = samples.frames(str(rig.path), "raw", ["Fpz"])
    layout = next(stream)
    assert layout["dtype"] == "<i4" and layout["rate_hz"] == 10_000
    rig.to(1000)
    at = None
    for type, _flags, first, n, _cause, payload in stream:
        assert type == 1 and len(payload) == 4 * n and at in (None, first)
        at = first + n
        if at >= 1000:
            break


def test_the_requests_of_the_shell_example_are_answered(rig):
    """Without socat: its lines, sent as they are."""
    script = (DOCS / "examples" / "watch.sh").read_text(encoding="utf-8")
    lines = re.findall(r"echo '(\{.*\})'", script)
    assert len(lines) == 2
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(rig.path))
        with sock.makefile("rwb") as wire:
            wire.readline()
            wire.write("".join(f"{line}\n" for line in lines).encode())
            wire.flush()
            assert [sorted(json.loads(wire.readline()))[2] for _ in lines] == ["result", "result"]


def test_the_example_client_runs_as_a_program(rig):
    program = subprocess.Popen(
        [sys.executable, "-I", str(DOCS / "examples" / "client.py"), str(rig.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        # it has subscribed, or is gone
        wait_until(lambda: rig.daemon.server.stats().requests == 1 or program.poll() is not None)
        lead_off(rig)
        line = program.stdout.readline()
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    assert "high active Stimulus not delivered on median_left" in line
