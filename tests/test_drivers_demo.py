"""The simulated unit without USB: same bytes, same decoder, virtual time, one seed one result."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest

from ionmd.drivers.base import DeviceConfig, OutputConfig, Pulse, Sequence
from ionmd.drivers.demo import Demo
from ionmd.errors import DeviceGone, DeviceRefused
from ionmd.model import Block, Gap, Mark, MarkKind

CONFIG = DeviceConfig(8, 10_000, 20, (OutputConfig(1),))


class Run:
    """Drives a Demo with heartbeats and keeps what came."""

    def __init__(self, amp: Demo) -> None:
        self.amp, self.block = amp, Block(50, CONFIG.inputs, float(CONFIG.rate_hz))
        self.digest, self.marks, self.blocks = hashlib.sha256(), [], []
        self.next = self.beats = 0

    def to(self, sample: int) -> Run:
        while self.next < sample:
            b = self.block
            if not self.amp.read_into(b):
                self.beats += 1
                self.amp.stimulator().heartbeat(self.beats, self.next, 0)
                continue
            self.digest.update(b.counts[: b.n, : b.inputs].tobytes())
            self.marks += b.marks
            self.blocks.append((b.first, b.n, b.lost, b.gap, b.session))
            self.next = b.first + b.n
            b.clear()
        return self


def opened(seed: int = 3) -> Run:
    amp = Demo(CONFIG, "quiet", seed)
    amp.open()
    amp.start()
    run = Run(amp)
    run.beats = 1
    amp.stimulator().heartbeat(1, 0, 0)
    return run


def pulses(marks: list[Mark]) -> list[tuple[int, int, float]]:
    return [(m.sample, m.nonce, m.delivered) for m in marks if m.kind == MarkKind.PULSE]


def stimulated(seed: int) -> tuple[str, list[tuple[int, int, float]]]:
    run = opened(seed).to(2000)
    stim = run.amp.stimulator()
    stim.load(0, Sequence(0, (Pulse(0, 15_000, 200),)))
    token = stim.arm(0, 10_000)
    for k in range(4):
        stim.fire(token, k + 1, 6000 + 1000 * k)
    run.to(12_000)
    assert run.amp.stats().lost_samples == 0
    return run.digest.hexdigest(), pulses(run.marks)


def test_pulses_leave_at_the_samples_asked_for_and_one_seed_gives_one_result():
    a, b, c = stimulated(3), stimulated(3), stimulated(4)
    assert a == b and a[0] != c[0]
    assert [(s, n) for s, n, _ in a[1]] == [(6000 + 1000 * k, k + 1) for k in range(4)]


def test_a_pulled_cable_ends_the_stream_after_the_last_sample_and_a_reopen_goes_on_in_a_new_session():
    run = opened().to(2000)
    run.amp.device.inject("unplug", replug_ms=250)
    with pytest.raises(DeviceGone, match="cable"):
        run.to(50_000)
    assert run.block.n == 0
    before, sessions = run.next, {run.blocks[-1][4]}
    run.amp.close()
    run.amp.open("SIM-0001")
    run.amp.start()
    run.to(before + 4000)
    first, _, lost, gap, session = next(b for b in run.blocks if b[0] >= before)
    assert gap == Gap.SESSION | Gap.LOST and first - before == lost >= 2500 and session not in sessions


def test_a_refusal_carries_the_firmwares_word_and_another_unit_is_not_taken():
    run = opened().to(1000)
    with pytest.raises(DeviceRefused) as refused:
        run.amp.stimulator().load(0, Sequence(0, (Pulse(0, 150_000, 200),)))
    assert refused.value.reason == "LIMIT"
    with pytest.raises(DeviceGone, match="SIM-9999 was expected, SIM-0001"):
        Demo(CONFIG, "quiet", 1).open("SIM-9999")


def test_at_a_pace_it_follows_the_clock_and_a_cable_comes_back_when_its_time_has_come(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ionmd.drivers.demo.time", SimpleNamespace(monotonic=lambda: now[0]))
    amp, block = Demo(CONFIG, "quiet", 1), Block(5000, CONFIG.inputs, float(CONFIG.rate_hz))
    amp.pace(2.0)
    amp.open()
    amp.start()

    def read() -> int:
        """Rows so far, when everything that is there by now has been read."""
        for _ in range(10):
            assert not amp.read_into(block)
        return block.n

    assert read() == 0
    for step in range(1, 11):
        now[0] += 0.01
        assert 200 * step - 60 <= read() <= 200 * step  # whole blocks of whole batches
    amp.inject("unplug", replug_ms=1000.0)
    assert amp.read_into(block)
    block.clear()
    with pytest.raises(DeviceGone):
        amp.read_into(block)
    amp.close()
    now[0] += 0.4
    with pytest.raises(DeviceGone, match="cable is out"):
        amp.open()
    now[0] += 0.2
    amp.open()
    amp.start()


def test_64_inputs_at_40_khz_lose_nothing_however_late_they_are_read():
    config = DeviceConfig(64, 40_000, 80)
    amp = Demo(config, "quiet", 1)
    amp.open()
    amp.start()
    block, samples, beats = Block(200, 64, 40_000.0), 0, 0
    while samples < 20_000:
        if not amp.read_into(block):
            beats += 1
            amp.stimulator().heartbeat(beats, block.first + block.n, 0)
            continue
        samples += block.n
        last = block.first + block.n
        block.clear()
        block.first = last
    assert amp.stats().lost_samples == 0 and amp.stats().errors == {}
