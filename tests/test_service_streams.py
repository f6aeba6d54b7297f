"""Sample connections: tokens, frames, gaps, and sound that is never late."""

from __future__ import annotations

import json

import pytest

from ionmd.service.backend import Limits, StreamSpec
from tests.service_rig import BOOT, Raw, Rig

RAW = StreamSpec("raw", ("C3", "C4"))
SOUND = StreamSpec("emg_audio", ("TA",))


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path) as running:
        yield running


def opened(rig: Rig, spec: StreamSpec = RAW) -> Raw:
    """A connection that has had its layout line."""
    asked = rig.raw().call("stream.open", kind=spec.kind, channels=list(spec.channels))["result"]
    stream = rig.raw()
    stream.send(json.dumps({"stream": asked["token"]}).encode() + b"\n")
    assert stream.line() == asked["layout"]
    return stream


def block(number: int, n: int = 50, channels: int = 2) -> bytes:
    return number.to_bytes(4, "little") * n * channels


def test_the_layout_line_names_rate_channels_and_unit(rig):
    asked = rig.raw().call("stream.open", kind="raw", channels=["C3", "C4"])["result"]
    assert asked["layout"] == {
        "kind": "raw", "rate_hz": 10_000.0, "names": ["C3", "C4"], "unit": "uV", "dtype": "<i4",
        "lsb_uv": [0.0286, 0.0286], "boot_id": BOOT, "step": 1, "filter": "",
    }
    assert asked["expires_s"] == 10.0


def test_frames_carry_header_and_payload_as_pushed(rig):
    stream = opened(rig)
    source = rig.backend.sources[RAW]
    source.sink.push(1000, block(7), 50, 16)
    header, payload = stream.frame()
    assert payload == block(7)
    assert header == {
        "magic": b"IONS", "version": 1, "type": 1, "flags": 16, "seq": 0, "first": 1000, "n": 50, "channels": 2,
        "dtype": 1, "cause": 0, "size": 400, "zero": 0,
    }
    source.sink.gap(1050, 30, 2)
    header, payload = stream.frame()
    assert (header["type"], header["first"], header["n"], header["cause"], payload) == (2, 1050, 30, 2, b"")


def test_equal_specs_share_one_source_and_each_reader_gets_every_frame(rig):
    one, two = opened(rig), opened(rig)
    rig.backend.sources[RAW].sink.push(0, block(1), 50)
    assert one.frame() == two.frame()


def test_a_source_is_closed_when_its_last_reader_has_gone(rig):
    stream = opened(rig)
    stream.sock.close()
    assert rig.backend.sources[RAW].closed.wait(5)


def test_a_token_that_nobody_uses_expires_and_closes_its_source(rig):
    token = rig.raw().call("stream.open", kind="raw", channels=["C3", "C4"])["result"]["token"]
    rig.advance(10.1)
    assert rig.backend.sources[RAW].closed.wait(5)
    late = rig.raw()
    late.send(json.dumps({"stream": token}).encode() + b"\n")
    assert late.line()["error"]["code"] == -32600


def test_a_token_is_good_once_and_only_on_a_fresh_connection(rig):
    token = rig.raw().call("stream.open", kind="raw", channels=["C3", "C4"])["result"]["token"]
    busy = rig.raw()
    busy.call("subscribe", topics=["alarm"])
    busy.send(json.dumps({"stream": token}).encode() + b"\n")
    assert "in use" in busy.line()["error"]["message"]
    for expected in ("rate_hz", "error"):
        stream = rig.raw()
        stream.send(json.dumps({"stream": token}).encode() + b"\n")
        assert expected in stream.line()


def test_an_unknown_channel_is_refused_with_what_there_is(rig):
    error = rig.raw().call("stream.open", kind="raw", channels=["no-such-input"])["error"]
    assert "C3, C4" in error["message"]


def test_a_reader_who_is_too_slow_loses_whole_blocks_and_its_samples_still_add_up(tmp_path):
    with Rig(tmp_path, Limits(stream_bytes=50_000, requests_per_s=1e9, burst=10**9)) as rig:
        stream = opened(rig)
        sink = rig.backend.sources[RAW].sink
        for number in range(5000):
            sink.push(number * 50, block(number), 50)
        rig.sync()
        at, gaps = 0, 0
        while at < 250_000:
            header, payload = stream.frame()
            assert header["first"] == at
            if header["type"] == 2:
                assert header["cause"] == 4
                gaps += 1
            else:
                assert payload == block(at // 50)
            at += header["n"]
        assert gaps >= 1
        assert rig.server.stats().stream_dropped_samples > 0


def test_a_reader_of_samples_who_stands_still_for_half_a_minute_is_cut(rig):
    stream = opened(rig)
    sink = rig.backend.sources[RAW].sink
    for number in range(5000):
        sink.push(number * 50, block(number), 50)
    rig.sync()
    rig.advance(30.1)
    rig.advance(2.1)
    while stream.frame() is not None:
        pass
    assert rig.server.stats().cut == 1


def test_sound_that_was_not_read_is_dropped_not_played_late(rig):
    stream = opened(rig, SOUND)
    sink = rig.backend.sources[SOUND].sink
    for number in range(2000):  # ten seconds of 5 ms
        sink.push(number * 50, block(number, channels=1), 50)
    rig.sync()
    frames = []
    while not frames or frames[-1]["first"] + frames[-1]["n"] < 100_000:
        frames.append(stream.frame()[0])
    last = max(i for i, f in enumerate(frames) if f["type"] == 2)
    assert all(f["cause"] == 4 for f in frames if f["type"] == 2)
    assert sum(f["n"] for f in frames[last + 1 :]) <= 1000  # 100 ms
    old = [f["n"] for f in frames[:last] if f["type"] == 1]
    assert sum(old) <= 1000  # what the kernel held: no more than that is ever played late


def test_the_end_of_a_layout_is_a_frame_and_then_the_end_of_the_connection(rig):
    stream = opened(rig)
    rig.backend.sources[RAW].sink.push(0, block(1), 50)
    rig.backend.sources[RAW].sink.end(5)
    stream.frame()
    header, _ = stream.frame()
    assert (header["type"], header["first"], header["cause"]) == (3, 50, 5)
    assert stream.frame() is None


def test_a_token_that_is_used_after_the_end_gets_the_end(rig):
    asker = rig.raw()
    token = asker.call("stream.open", kind="raw", channels=["C3", "C4"])["result"]["token"]
    opened(rig)
    rig.backend.sources[RAW].sink.end(7)
    rig.sync()
    late = rig.raw()
    late.send(json.dumps({"stream": token}).encode() + b"\n")
    late.line()
    header, _ = late.frame()
    assert (header["type"], header["cause"]) == (3, 7)
    assert late.frame() is None
    assert "token" in asker.call("stream.open", kind="raw", channels=["C3", "C4"])["result"]  # a new source


def test_stopping_the_daemon_ends_streams_with_their_cause(tmp_path):
    with Rig(tmp_path) as rig:
        token = rig.raw().call("stream.open", kind="raw")["result"]["token"]
        stream = Raw(rig.path)
        stream.send(json.dumps({"stream": token}).encode() + b"\n")
        stream.line()
    header, _ = stream.frame()
    assert (header["type"], header["cause"]) == (3, 6)
    stream.sock.close()
