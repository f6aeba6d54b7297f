"""The control thread: requests in order, and an `off` that nothing survives, whenever it comes."""

from __future__ import annotations

import threading

import pytest

from ionmd.drivers.base import ArmToken, Pulse, Sequence, Stimulator
from ionmd.errors import DeviceRefused, Refused
from ionmd.stim.control import Control, Trouble

ONE = Sequence(0, (Pulse(0, 20_000, 200),))


class Unit(Stimulator):
    """Says what it was asked; `during` is called inside the request of that name, as another thread would be."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.during: dict[str, object] = {}

    def _do(self, what: str) -> None:
        self.asked.append(what)
        action = self.during.pop(what, None)
        if action is not None:
            action()

    def load(self, slot, sequence):
        self._do("load")

    def arm(self, slot, ttl_ms):
        self._do("arm")
        return ArmToken(slot, 7, 1000)

    def fire(self, token, nonce, at_sample):
        self._do(f"fire {nonce}")

    def heartbeat(self, counter, processed_sample, progress):
        self._do(f"beat {counter}")

    def off(self):
        self.asked.append("off")

    def abort(self, output):
        self._do("abort")

    def reset(self, reason):
        self._do("reset")

    def impedance(self, inputs):
        self._do("impedance")


class Running:
    def __init__(self) -> None:
        self.troubles: list[Trouble] = []
        self.control = Control(self.troubles.append)
        self.unit = Unit()
        self.control.attach(self.unit)
        self.control.start()

    def drain(self) -> list[str]:
        """Every job asked for so far is done; what the unit was asked."""
        done = threading.Event()
        self.control.reset(0, lambda error: done.set())
        assert done.wait(10)
        return [a for a in self.unit.asked if a != "reset"]


@pytest.fixture
def running():
    r = Running()
    yield r
    r.control.stop()


def test_jobs_reach_the_unit_in_the_order_in_which_they_were_asked(running):
    running.control.load_and_arm(0, ONE, 10_000)
    running.control.fire(0, 1, 500)
    running.control.heartbeat(1, 0, 0)
    running.control.fire(0, 2, 900)
    assert running.drain() == ["load", "arm", "fire 1", "beat 1", "fire 2"]
    assert running.troubles == []


@pytest.mark.parametrize("moment", ["load", "arm"])
def test_an_off_that_comes_while_the_unit_is_being_armed_leaves_it_off(running, moment):
    answers = []
    running.unit.during[moment] = running.control.off
    running.control.load_and_arm(0, ONE, 10_000, lambda token, error: answers.append((token, error)))
    running.control.fire(0, 1, 500)  # asked for by nobody who knew of the off: it was queued before
    asked = running.drain()
    assert asked[-1] == "off" and "fire 1" not in asked
    assert [token for token, _ in answers] == [None] and isinstance(answers[0][1], Refused)
    running.control.fire(0, 2, 900)  # nor does a later fire find a token
    assert "fire 2" not in running.drain()


def test_what_was_queued_before_an_off_never_reaches_the_unit_but_heartbeats_do(running):
    hold, held = threading.Event(), threading.Event()

    def wait() -> None:
        held.set()
        hold.wait(10)

    running.unit.during["beat 1"] = wait
    running.control.heartbeat(1, 0, 0)
    assert held.wait(10)
    running.control.load_and_arm(0, ONE, 10_000)
    running.control.fire(0, 1, 500)
    running.control.heartbeat(2, 0, 0)
    running.control.off()  # overtakes all of it
    assert running.unit.asked == ["beat 1", "off"]
    hold.set()
    assert running.drain() == ["beat 1", "off", "beat 2"]
    assert [t.what for t in running.troubles] == ["arm", "fire"]


def test_a_failure_that_nobody_foresaw_switches_the_unit_off(running):
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    running.unit.during["arm"] = broken
    running.control.load_and_arm(0, ONE, 10_000)
    assert running.drain() == ["load", "arm", "off"]
    assert "ZeroDivisionError" in running.troubles[0].text


def test_a_refusal_carries_the_units_word_and_leaves_no_token(running):
    def refuse() -> None:
        raise DeviceRefused("too much", "LIMIT")

    running.unit.during["load"] = refuse
    running.control.load_and_arm(3, ONE, 10_000)
    running.control.fire(3, 1, 500)
    assert running.drain() == ["load"]
    assert [(t.what, t.slot, t.reason) for t in running.troubles] == [("arm", 3, "LIMIT"), ("fire", 3, "TOKEN")]


def test_after_the_unit_is_gone_every_job_is_refused_and_off_is_harmless(running):
    running.control.attach(None)
    running.control.off()
    running.control.load_and_arm(0, ONE, 10_000)
    running.control.heartbeat(1, 0, 0)
    done = []
    running.control.reset(16, done.append)
    running.control.stop()
    assert running.unit.asked == []
    assert len(running.troubles) == 2 and isinstance(done[0], Refused)
