"""The three kinds of stream of a running daemon, read over the socket and held against each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import sosfilt, sosfilt_zi

from ionmd.client import CAUTERY, END, GAP, MUTED, RESTARTED, SAMPLES, STIMULUS, SampleStream
from ionmd.errors import Refused
from ionmd.runner.stream import design
from ionmd.streams.audio import BAND, step_of
from tests.daemon_rig import RATE, DaemonRig

TEST = "ssep_median_left"


@pytest.fixture
def rig(tmp_path):
    with DaemonRig(tmp_path) as running:
        yield running


def frames_to(stream: SampleStream, stop: int) -> list:
    """Frames up to case sample `stop`."""
    found = []
    for frame in stream.frames(timeout_s=30.0):
        found.append(frame)
        if frame.kind == END or frame.first + frame.n * stream.layout.step >= stop:
            return found
    raise AssertionError(f"the stream stopped before sample {stop}")


def listen(rig: DaemonRig, stream: SampleStream, stop: int) -> list:
    """Sound is not kept for a late reader: 20 ms of virtual time, then read."""
    found = []
    while rig.sample < stop:
        rig.to(min(rig.sample + 200, stop))
        found += frames_to(stream, rig.sample)
    return found


def rows(stream: SampleStream, frames: list) -> np.ndarray:
    """[sample, channel]; a gap would not add up."""
    assert all(f.kind == SAMPLES for f in frames)
    payload = b"".join(f.payload for f in frames)
    return np.frombuffer(payload, stream.layout.dtype).reshape(-1, len(stream.layout.names))


def started(rig: DaemonRig, *tests: str):
    """A client with a case in which `tests` run."""
    client = rig.client()
    client.call("case.open", case_id="case-1")
    lease = client.call("stim.acquire")["lease"]
    client.call("test.start", tests=list(tests), lease=lease)
    return client


def test_filtered_is_the_montage_held_at_stimuli_and_filtered_as_the_test_says(rig):
    rig.to(20_000)
    client = started(rig, TEST)
    raw, filtered = client.open_stream("raw", ["CP4", "Fpz"]), client.open_stream("filtered", ["CP4-Fpz"])
    assert (filtered.layout.unit, filtered.layout.dtype, filtered.layout.step) == ("uV", "<f4", 1)
    rig.to(40_000)
    plain, seen = frames_to(raw, 40_000), frames_to(filtered, 40_000)
    assert seen[0].flags & RESTARTED and not any(f.flags & RESTARTED for f in seen[1:])
    assert any(f.flags & STIMULUS for f in seen) and not all(f.flags & STIMULUS for f in seen)
    lsb = np.array(raw.layout.lsb_uv, np.float32)
    uv = rows(raw, plain) * lsb
    first = plain[0].first
    derived = (uv[:, 0] - uv[:, 1]).astype(np.float64)
    test = rig.daemon.room.tests[TEST].definition
    for pulse in pulses(rig):
        a = pulse - first
        if a >= 0:
            derived[a : a + round(test.blank.stop_ms * RATE / 1000.0)] = derived[a - 1]
    sos = design(test.causal or test.filter, RATE)
    expected, _ = sosfilt(sos, derived, zi=sosfilt_zi(sos) * derived[0])
    assert seen[0].first == first
    np.testing.assert_allclose(rows(filtered, seen)[:, 0], expected, atol=2e-3)


def pulses(rig: DaemonRig) -> list[int]:
    from ionmd.case.journal import JOURNAL, read_lines

    rig.daemon.recorder.drain(10.0)
    lines = read_lines(rig.daemon.recorder.state_dir / "cases" / "case-1" / JOURNAL)
    return [p[0] for line in lines if line.kind == "delivery" for p in line.data["pulses"]]


def test_a_derivation_of_two_running_tests_is_named_with_its_test(rig):
    client = started(rig, "ssep_median_left", "ssep_median_right")
    labels = set(client.open_stream("filtered").layout.names)
    twice = next(name for name in labels if "/" in name)
    bare = twice.split("/")[1]
    with pytest.raises(Refused, match=r"several running tests; name one of ssep_median_left/.*ssep_median_right/"):
        client.open_stream("filtered", [bare])
    assert client.open_stream("filtered", [twice]).layout.names == [twice]


def test_filtered_without_a_running_test_and_an_unknown_derivation_are_refused_with_what_there_is(rig):
    client = rig.client()
    with pytest.raises(Refused, match="no test is running") as refused:
        client.open_stream("filtered")
    assert refused.value.code == 1007
    started(rig, TEST)
    with pytest.raises(Refused, match=r"derivation X is in no running test; there are ssep_median_left/"):
        client.open_stream("filtered", ["X"])


def test_filtered_ends_with_its_cause_when_its_test_stops_and_goes_on_when_it_is_set(rig):
    client = started(rig, "emg_free")
    rig.to(6000)
    stream = client.open_stream("filtered", ["DELT-L"])
    rig.to(7000)
    client.call("test.set", test="emg_free", reject_uv=500.0)
    rig.to(8000)
    seen = frames_to(stream, 8000)
    assert [f.first for f in seen if f.flags & RESTARTED] == [6000, 7000]
    client.call("test.stop", tests=["emg_free"])
    rig.to(8500)
    last = frames_to(stream, 8500)[-1]
    assert (last.kind, last.cause) == (END, 7)


def test_sound_needs_a_case_but_no_running_test(rig):
    client = rig.client()
    with pytest.raises(Refused) as refused:
        client.open_stream("emg_audio")
    assert refused.value.code == 1006
    client.call("case.open")
    stream = client.open_stream("emg_audio", ["DELT-L"])
    assert rows(stream, listen(rig, stream, 5000)).std() > 0.1


def test_sound_is_silence_while_cautery_is_sensed_and_says_so(rig):
    client = rig.client()
    client.call("case.open")
    stream = client.open_stream("emg_audio", ["DELT-L"])
    seen = listen(rig, stream, 30_000)  # a drop at 0.5 s, cautery from 1.0 to 1.5 s
    assert [f.n for f in seen if f.kind == GAP] == [40]
    during = [f for f in seen if 10_050 <= f.first < 14_900]
    assert all(f.flags & (MUTED | CAUTERY) == MUTED | CAUTERY for f in during)
    assert not any(np.frombuffer(f.payload, "<f4").any() for f in during)
    before = [f for f in seen if f.first < 9000 and f.kind == SAMPLES]
    after = [f for f in seen if f.first >= 25_000]
    for loud in (before, after):
        assert not any(f.flags & MUTED for f in loud)
        assert np.frombuffer(b"".join(f.payload for f in loud), "<f4").std() > 0.1


def test_sound_is_silence_in_stimulus_windows_only(rig):
    rig.to(20_000)
    client = started(rig, TEST)
    stream = client.open_stream("emg_audio", ["DELT-L"])
    seen = listen(rig, stream, 40_000)
    sound, first = rows(stream, seen)[:, 0], seen[0].first
    fired = [p for p in pulses(rig) if first <= p < 39_000]
    assert len(fired) >= 4
    stop = round(max(s.definition.blank.stop_ms for s in rig.daemon.room.tests.values() if s.run) * RATE / 1000.0)
    for pulse in fired:
        assert not sound[pulse - first : pulse - first + stop].any()
    share = np.count_nonzero(sound == 0.0) / len(sound)
    assert share < 1.2 * len(fired) * stop / len(sound)
    muted = [(f.first, f.first + f.n) for f in seen if f.flags & (MUTED | STIMULUS) == MUTED | STIMULUS]
    assert all(any(a <= p < b for a, b in muted) for p in fired)


@pytest.mark.parametrize(("rate_hz", "step"), [(40_000, 5), (32_000, 4), (20_000, 2), (10_000, 1), (5_000, 1)])
def test_the_audio_rate_is_the_lowest_of_at_least_8_khz(rate_hz, step):
    assert step_of(float(rate_hz)) == step


def test_what_folds_back_into_the_sound_is_under_minus_24_db():
    """The worst case is 8 kHz: 4 kHz and above folds."""
    for rate_hz in (40_000.0, 32_000.0, 16_000.0):
        sos = design(BAND, rate_hz)
        hz = np.arange(rate_hz / step_of(rate_hz) / 2, rate_hz / 2 - 1, 50.0)
        z = np.exp(-2j * np.pi * hz / rate_hz)
        response = np.prod([(s[0] + s[1] * z + s[2] * z**2) / (s[3] + s[4] * z + s[5] * z**2) for s in sos], axis=0)
        assert 20 * np.log10(np.abs(response).max()) < -24.0


def test_nothing_is_copied_and_nothing_is_kept_when_nobody_reads(rig):
    client = started(rig, TEST)
    stream = client.open_stream("raw")
    rig.to(3000)
    stream.close()
    client.call("status")
    rig.to(6000)
    streams = rig.daemon.streams
    assert streams._sources == () and streams._block is None
