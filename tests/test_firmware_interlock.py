"""The rule of the interlock, against any order of requests: a pulse implies a token in force, a fire of its own nonce,
limits, a fresh heartbeat, and nothing that forbids it (faults F08 to F12, F16, F18).

Requests are lost, doubled, replayed and reordered; the model learns only from what the firmware accepted, and every
pulse that leaves an output is held against it.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

import pytest
from firmware_rig import NERVE, NERVE_2, OUTPUTS, PROBE, RATE, TES, WATCHDOG, Unit, sealed, setup, train
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from firmware_sim.core import FwPulse
from ionmd.drivers.base import DeviceConfig, Sequence
from ionmd.drivers.ep0 import pack_sequence
from ionmd.stim.limits import PROBE as PROBE_LIMITS
from ionmd.stim.limits import TRANSCRANIAL, TRANSCUTANEOUS, check_sequence, tolerance

LIMITS = {NERVE: TRANSCUTANEOUS, TES: TRANSCRANIAL, PROBE: PROBE_LIMITS, NERVE_2: TRANSCUTANEOUS}
SEQUENCES = [
    train(1, NERVE), train(4, NERVE, step_us=30_000), train(1, NERVE_2, gap_ms=60), train(5, TES, 300_000, 75, 2000),
    train(3, PROBE, 2000, 200, 50_000), train(2, NERVE_2, 90_000, 1000, 2000),
]  # fmt: skip
BY_BYTES = {pack_sequence(s): s for s in SEQUENCES}
SLOTS = st.integers(0, 2)
LOAD, ARM, FIRE, BEAT, OFF, ABORT = 0x51, 0x53, 0x55, 0x40, 0x50, 0x58


@dataclass
class Grant:
    """One accepted fire."""

    slot: int
    token: int
    at: int
    sequence: Sequence
    next: int = 0


class Interlock(RuleBasedStateMachine):
    @initialize()
    def power(self) -> None:
        self.unit = Unit(config=DeviceConfig(1, RATE, 500, OUTPUTS))
        self.beats_sent = self.unit.beats
        self.last_beat, self.processed, self.counter = 0, 0, self.unit.beats
        self.loaded: dict[int, Sequence] = {}
        self.tokens: dict[int, tuple[int, int, int]] = {}  # slot -> token, time to live, latest possible expiry
        self.waiting: dict[int, Grant] = {}
        self.running: Grant | None = None
        self.fired: set[int] = set()
        self.under: dict[int, int] = {}
        self.held: list[tuple[bytes, bytes]] = []
        self.sent: list[tuple[bytes, bytes]] = []
        self.nonces = 0
        self.lines = {0: False, 4: False}
        self.quiet = 0  # no other output before this sample
        self.tripped = False

    # ------------------------------------------------------------ what the model learns

    def kill(self, slot: int | None = None) -> None:
        for s in [slot] if slot is not None else list(self.loaded):
            self.tokens.pop(s, None)
            self.waiting = {n: g for n, g in self.waiting.items() if g.slot != s}
            if self.running is not None and self.running.slot == s:
                self.running = None

    def everything_off(self) -> None:
        self.kill()
        self.loaded.clear()

    def deliver(self, packet: bytes, data: bytes) -> None:
        """To the firmware; what it accepted changes the model."""
        self.sent.append((packet, data))
        if self.unit.send(packet, data):
            return
        request, slot, now = packet[1], packet[2], self.unit.fw.sample
        if request == LOAD:
            self.kill(slot)
            self.loaded[slot] = BY_BYTES[data]
        elif request == ARM:
            assert now - self.last_beat < WATCHDOG and not self.lines[4] and not self.tripped
            running = self.running
            self.kill(slot)
            self.running = running  # a train that runs was authorised by the old token
            self.under[self.loaded[slot].output] = 0
            ttl = struct.unpack("<II", data)[1] * RATE // 1000
            self.tokens[slot] = (self.unit.token(slot)[0], ttl, now + ttl)
        elif request == FIRE:
            token, nonce, at = struct.unpack("<IIQ", data)
            assert nonce not in self.fired, "a nonce was accepted twice"
            assert self.tokens[slot][0] == token and token
            self.fired.add(nonce)
            self.waiting[nonce] = Grant(slot, token, at or now, self.loaded[slot])
        elif request == BEAT:
            counter, _, processed, boot = struct.unpack_from("<IIQI", data)
            assert counter > self.counter, "a heartbeat was replayed"
            self.counter = counter
            assert boot == self.unit.fw.boot_id and processed <= now
            self.last_beat = now
            if processed > self.processed:
                for s in {g.slot for g in self.waiting.values()} & set(self.tokens):
                    self.renew(s, now)
            self.processed = processed
        elif request == OFF:
            self.everything_off()
        elif request == ABORT:
            self.abort(slot)

    def renew(self, slot: int, at: int) -> None:
        token, ttl, expires = self.tokens[slot]
        self.tokens[slot] = (token, ttl, max(expires, at + ttl))

    def abort(self, output: int) -> None:
        for slot, sequence in list(self.loaded.items()):
            if sequence.output == output:
                self.kill(slot)
        if self.running is not None and self.running.sequence.output == output:
            self.running = None

    # ------------------------------------------------------------ requests, as a bad cable carries them

    def post(self, packet: bytes, data: bytes, fate: str) -> None:
        if fate == "held":
            self.held.append((packet, data))
        elif fate != "lost":
            for _ in range(2 if fate == "doubled" else 1):
                self.deliver(packet, data)

    FATES = st.sampled_from(["sent"] * 7 + ["doubled", "lost", "held"])

    @rule(slot=SLOTS, which=st.integers(0, len(SEQUENCES) - 1), fate=FATES)
    def load(self, slot: int, which: int, fate: str) -> None:
        data = pack_sequence(SEQUENCES[which])
        self.post(setup(0x41, LOAD, slot, 1, len(data)), data, fate)

    @rule(slot=SLOTS, which=st.integers(0, len(SEQUENCES) - 1), ttl_ms=st.sampled_from([2000, 2500, 10_000]),
          right=st.integers(0, 9), fate=FATES)  # fmt: skip
    def arm(self, slot: int, which: int, ttl_ms: int, right: int, fate: str) -> None:
        sequence = self.loaded.get(slot, SEQUENCES[which]) if right else SEQUENCES[which]
        crc = struct.unpack("<I", pack_sequence(sequence)[-4:])[0]
        self.post(setup(0x41, ARM, slot, 1, 8), struct.pack("<II", crc, ttl_ms), fate)

    @rule(slot=SLOTS, which=st.integers(0, len(SEQUENCES) - 1), ttl_ms=st.sampled_from([2000, 10_000]))
    def make_ready(self, slot: int, which: int, ttl_ms: int) -> None:
        """All that a fire needs, so that the machine does not spend its life in SAFE."""
        self.reset()
        self.press(4, False)
        self.heartbeat(0, 1, "sent")
        self.load(slot, which, "sent")
        self.arm(slot, which, ttl_ms, 0, "sent")

    @rule(slot=SLOTS, ahead=st.sampled_from([0, 1, 3, 40, 200, 700, 1100, 3900, 4100]), old=st.integers(0, 9),
          guess=st.integers(0, 9), fate=FATES)  # fmt: skip
    def fire(self, slot: int, ahead: int, old: int, guess: int, fate: str) -> None:
        if slot not in self.tokens and self.tokens:
            slot = sorted(self.tokens)[slot % len(self.tokens)]
        token = self.tokens.get(slot, (guess, 0, 0))[0] if guess else 1 + guess
        if old or not self.nonces:
            self.nonces += 1
        at = self.unit.fw.sample + ahead if ahead else 0
        self.post(setup(0x41, FIRE, slot, 1, 16), struct.pack("<IIQ", token, self.nonces, at), fate)

    @rule(back=st.sampled_from([0, 0, 0, 500, 20_000]), stale=st.integers(0, 9), fate=FATES)
    def heartbeat(self, back: int, stale: int, fate: str) -> None:
        self.beats_sent += bool(stale)
        processed = max(0, self.unit.fw.sample - back)
        data = sealed(struct.pack("<IIQI", self.beats_sent, 0, processed, self.unit.fw.boot_id))
        self.post(setup(0x41, BEAT, 0, 1, 24), data, fate)

    @rule(seldom=st.integers(0, 4), fate=FATES)
    def off(self, seldom: int, fate: str) -> None:
        if not seldom:
            self.post(setup(0x40, OFF), b"", fate)

    @rule(seldom=st.integers(0, 4), output=st.sampled_from([NERVE, TES, PROBE, NERVE_2]))
    def abort_output(self, seldom: int, output: int) -> None:
        if not seldom:
            self.post(setup(0x41, ABORT, output, 1, 0), b"", "sent")

    @rule(i=st.integers(0, 10_000))
    def replay_an_earlier_request(self, i: int) -> None:
        if self.sent:
            self.deliver(*self.sent[i % len(self.sent)])

    @rule(order=st.randoms(use_true_random=False))
    def release_what_was_held_in_another_order(self, order) -> None:
        held, self.held = self.held, []
        order.shuffle(held)
        for packet, data in held:
            self.deliver(packet, data)

    # ------------------------------------------------------------ the world

    @rule(line=st.sampled_from([0, 4]), level=st.booleans())
    def press(self, line: int, level: bool) -> None:
        if level == self.lines[line]:
            return
        self.unit.fw.set_aux(line, level)
        self.lines[line] = level
        if line == 4 and level:
            self.everything_off()

    @rule(output=st.sampled_from([NERVE, TES, PROBE, NERVE_2]),
          gain=st.sampled_from([-1.0, 0.0, 0.0, 0.0, 0.05, 0.0, 0.3]))  # fmt: skip
    def outputs_change(self, output: int, gain: float) -> None:
        self.unit.fw.set_load(output, 1000.0, gain)

    @rule(seldom=st.integers(0, 9))
    def stray_pulse(self, seldom: int) -> None:
        if not seldom:
            self.unit.fw.inject("stray_pulse", output=NERVE)

    @rule()
    def reset(self) -> None:
        if self.unit.tell(0x41, 0x57, 0, bytes([self.unit.status.trip]), 1) == "":
            self.tripped = False

    @rule(how=st.integers(0, 9))
    def the_session_ends_and_another_begins(self, how: int) -> None:
        if how > 2:
            return  # seldom
        if how == 0:
            self.unit.fw.bus_reset()
        elif how == 1:
            self.unit.send(setup(0, 9, 1))
        else:
            self.unit.tell(0x41, 0x10, 0)
        self.everything_off()
        self.unit.send(setup(0, 9, 1))
        self.unit.send(setup(1, 11, 1))
        self.unit.stream(9)

    @rule(samples=st.sampled_from([1, 2, 11, 39, 200, 900, 1001, 3000]))
    def time_passes_with_a_host_that_lives(self, samples: int) -> None:
        self.heartbeat(0, 1, "sent")
        self.time_passes(samples)

    @rule(samples=st.sampled_from([1, 2, 11, 39, 200, 900, 1001, 3000, 4000, 4001, 9000]))
    def time_passes(self, samples: int) -> None:
        for pulse in self.unit.run(samples, beats=False):
            self.check(pulse)
        now = self.unit.fw.sample
        if now - self.last_beat > WATCHDOG and self.tokens:
            self.everything_off()
        for slot, (_, _, expires) in list(self.tokens.items()):
            if now > expires and not (self.running and self.running.slot == slot):
                self.kill(slot)

    # ------------------------------------------------------------ the rule

    def check(self, p: FwPulse) -> None:
        if p.stray:
            self.tripped = True
            self.everything_off()
            return
        assert not self.tripped and not self.lines[4]
        assert p.sample - self.last_beat < WATCHDOG, "a pulse without a fresh heartbeat"
        if p.pulse == 0:
            grant = self.waiting.pop(p.nonce)  # KeyError: nobody asked, or it was called back
            token, _, expires = self.tokens[grant.slot]
            assert token == grant.token and p.sample < expires
            assert p.sample == grant.at, "a pulse at another sample than was asked for"
            assert not self.lines[0], "a pulse during cautery"
            assert p.sample >= self.quiet
            assert self.running is None or self.running.next == len(self.running.sequence.pulses)
            self.running = grant
        grant = self.running
        assert grant is not None and p.nonce in self.fired and p.slot == grant.slot
        wanted = grant.sequence.pulses[p.pulse]
        assert p.pulse == grant.next
        assert p.sample == grant.at + (wanted.t_us * RATE + 500_000) // 1_000_000
        assert (p.output, p.set, p.width_us) == (grant.sequence.output, abs(wanted.amplitude), wanted.width_us)
        check_sequence(grant.sequence, LIMITS[p.output])
        grant.next += 1
        self.quiet = p.sample + 10 + -(-p.width_us * RATE // 1_000_000)
        if grant.slot in self.tokens:
            self.renew(grant.slot, p.sample)
        self.measured(p)

    def measured(self, p: FwPulse) -> None:
        miss = p.delivered - p.set
        if miss > tolerance(p.set, p.volts):
            self.tripped = True
            self.everything_off()
        elif -miss > tolerance(p.set, p.volts) and p.output != PROBE:
            self.under[p.output] = self.under.get(p.output, 0) + 1
            if self.under[p.output] == 2:
                self.under[p.output] = 0
                self.abort(p.output)
        else:
            self.under[p.output] = 0

    @invariant()
    def a_trip_is_a_trip(self) -> None:
        if getattr(self, "tripped", False):
            assert self.unit.status.state == 4

    @invariant()
    def a_dead_token_is_none(self) -> None:
        for slot in range(3):
            token = self.unit.token(slot)[0]
            assert token == 0 or token == self.tokens[slot][0]


Interlock.TestCase.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
TestAnyOrderOfRequestsKeepsTheInterlock = Interlock.TestCase


@pytest.mark.parametrize("seed", range(8))
def test_a_long_life_of_pulses_with_a_bad_cable_keeps_the_interlock(seed):
    """The same machine, driven densely: hundreds of pulses between all that goes wrong."""
    r, m = random.Random(seed), Interlock()
    m.power()
    outputs, which = (NERVE, TES, PROBE, NERVE_2), range(len(SEQUENCES))
    fates = ["sent"] * 16 + ["doubled", "doubled", "lost", "held"]
    steps = [
        (12, lambda: m.make_ready(r.randrange(3), r.choice(which), r.choice([2000, 10_000]))),
        (40, lambda: m.fire(r.randrange(3), r.choice([0, 1, 3, 40, 200, 700, 1100, 3900]), r.randrange(20),
                            r.randrange(20), r.choice(fates))),
        (40, lambda: m.time_passes_with_a_host_that_lives(r.choice([1, 2, 11, 39, 200, 900, 1001, 3000]))),
        (3, lambda: m.time_passes(r.choice([200, 2000, 3999, 4000, 4001, 9000]))),
        (6, lambda: m.heartbeat(r.choice([0, 0, 500]), r.randrange(5), r.choice(fates))),
        (6, lambda: m.replay_an_earlier_request(r.randrange(10_000))),
        (3, lambda: m.release_what_was_held_in_another_order(r)),
        (2, lambda: m.press(0, r.random() < 0.3)), (1, lambda: m.press(4, r.random() < 0.5)),
        (2, lambda: m.outputs_change(r.choice(outputs), r.choice([-1.0, 0.0, 0.0, 0.0, 0.05, 0.3]))),
        (2, lambda: m.load(r.randrange(3), r.choice(which), r.choice(fates))),
        (2, lambda: m.arm(r.randrange(3), r.choice(which), 2500, r.randrange(4), r.choice(fates))),
        (1, lambda: m.stray_pulse(r.randrange(4))), (1, lambda: m.the_session_ends_and_another_begins(r.randrange(4))),
        (1, lambda: m.off(0, r.choice(fates))), (1, lambda: m.abort_output(0, r.choice(outputs))),
    ]  # fmt: skip
    chosen = r.choices([do for _, do in steps], [weight for weight, _ in steps], k=3000)
    for do in chosen:
        do()
        m.a_trip_is_a_trip()
        m.a_dead_token_is_none()
    deliveries = sum(p.pulse == 0 and not p.stray for p in m.unit.pulses)
    assert deliveries >= 100 and len(m.unit.pulses) >= 130
