"""The alarm of one test: shown at the first crossing, confirmed by the next window, ended only by what lasts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ionmd.alarm.book import AlarmBook
from ionmd.alarm.cause import Surroundings
from ionmd.alarm.criteria import Judged
from ionmd.alarm.watch import RECOVERY_WINDOWS, ChangeWatch, Observation
from ionmd.model import Criterion

RATE = 1000.0
SUB = 10_000  # samples between two sub-averages


def judged(ratio: float | None, limit: float = 0.5, *, se: float = 0.1, classical: bool = False) -> Judged:
    crossed = ratio is not None and ratio < limit
    rule = Criterion("drift-corrected", crossed, ratio, limit, "")
    fixed = [Criterion("amplitude", classical, 0.4 if classical else 0.9, limit, "")]
    return Judged(fixed, rule, crossed or classical, classical, ratio, se, ratio is not None, limit)


class Room:
    """One watch and its book; each call to `see` is the next whole window."""

    def __init__(self, confirm: int = 2) -> None:
        self.book, self.sample = AlarmBook(), 0
        self.watch = ChangeWatch("ssep", "Median nerve SSEP, right", "right", RATE, confirm)

    def see(self, around: Callable[[], Surroundings] = lambda: Surroundings(True), drift: str = "", **ratios):
        self.sample += SUB
        seen = {k: v if isinstance(v, Judged) else judged(v) for k, v in ratios.items()}
        return self.watch.observe(self.observation(seen, around(), drift), self.book)

    def glance(self, **ratios: float | None):
        self.sample += SUB // 9
        seen = {k: judged(v) for k, v in ratios.items()}
        return self.watch.glance(self.observation(seen, Surroundings(True)), self.book)

    def observation(self, seen: dict[str, Judged], around: Surroundings, drift: str = "") -> Observation:
        known = [j.ratio for j in seen.values() if j.ratio is not None]
        pooled = (sum(known) / len(known), 0.1 / len(known) ** 0.5) if known else None
        return Observation(self.sample, self.sample - SUB, seen, around, drift, pooled)

    def states(self) -> list[str]:
        return [a.state for a in self.book.all()]


def test_a_first_crossing_is_shown_at_once_and_the_next_one_confirms_it():
    room = Room()
    (possible,) = room.see(a=0.2)
    assert (possible.state, possible.priority, possible.side) == ("possible", "high", "right")
    (active,) = room.see(a=0.2)
    assert active.state == "active" and active.id == possible.id
    assert active.change_sample == 0
    assert active.time_to_alarm_s == pytest.approx(2 * SUB / RATE)


def test_a_crossing_that_the_next_sub_average_does_not_confirm_is_taken_back_in_words():
    room = Room()
    room.see(a=0.2)
    (over,) = room.see(a=0.9)
    assert over.state == "cleared" and over.sentence.startswith("Not confirmed")
    assert "down to" not in over.sentence


def test_a_sub_average_that_cannot_be_judged_neither_confirms_nor_clears():
    room = Room()
    room.see(a=0.2)
    assert room.see(a=None) == []
    assert room.states() == ["possible"]
    assert room.see(a=0.2)[0].state == "active"


def test_one_derivation_against_the_others_must_cross_twice_before_anything_is_shown():
    room = Room()
    assert room.see(a=0.45, b=1.0, c=1.0) == []
    assert [a.state for a in room.see(a=0.45, b=1.0, c=1.0)] == ["possible", "active"]


def test_derivations_that_agree_in_the_mean_are_shown_at_once():
    room = Room()
    assert room.see(a=0.3, b=0.4, c=0.55)[0].state == "possible"


def test_between_whole_windows_a_crossing_of_all_is_shown_and_the_next_whole_window_decides():
    room = Room()
    assert room.glance(a=0.6, b=0.6) == []
    (possible,) = room.glance(a=0.3, b=0.3)
    assert possible.state == "possible"
    assert room.glance(a=0.1, b=0.1) == [] and room.states() == ["possible"]  # its sweeps were partly seen before
    assert room.see(a=0.2, b=0.2)[0].state == "active"


def test_between_whole_windows_one_derivation_alone_is_no_news():
    room = Room()
    for _ in range(20):
        assert room.glance(a=0.3, b=1.0) == []
    assert room.see(a=0.3, b=1.0) == []
    assert [a.state for a in room.see(a=0.3, b=1.0)] == ["possible", "active"]


def test_the_sentence_gives_the_number_of_the_rule_that_crossed():
    room = Room()
    (alarm,) = room.see(a=judged(0.87, classical=True))  # the average still holds old sweeps, the newest are back
    assert "is down to 40 % of baseline" in alarm.sentence


def test_recovery_must_last_and_exceed_the_limit_by_a_margin():
    room = Room()
    room.see(a=0.2)
    room.see(a=0.2)
    for _ in range(5):
        assert room.see(a=0.55) == []  # above the limit, within the margin
    for _ in range(RECOVERY_WINDOWS - 1):
        assert room.see(a=0.9) == []
    (over,) = room.see(a=0.92)
    assert over.state == "cleared" and over.cleared_by == "recovered"
    assert over.sentence == "Recovered: Median nerve SSEP, right is back at 92 % of baseline."


def test_a_relapse_during_recovery_starts_the_count_anew():
    room = Room()
    room.see(a=0.2)
    room.see(a=0.2)
    for _ in range(RECOVERY_WINDOWS - 1):
        room.see(a=0.9)
    room.see(a=0.2)
    for _ in range(RECOVERY_WINDOWS - 1):
        assert room.see(a=0.9) == []
    assert room.states() == ["active"]


def test_after_it_was_cleared_the_same_change_is_a_new_alarm():
    room = Room()
    room.see(a=0.2)
    room.see(a=0.2)
    for _ in range(RECOVERY_WINDOWS):
        room.see(a=1.0)
    room.see(a=0.2)
    assert room.states() == ["cleared", "possible"]


def test_an_acknowledged_alarm_stays_open_and_a_spreading_change_is_told_again():
    room = Room()
    room.see(a=0.2, b=0.9)
    room.see(a=0.2, b=0.9)
    acknowledged = room.book.acknowledge("A1", "Kim", room.sample)
    assert acknowledged is not None and acknowledged.state == "acknowledged"
    told = room.see(a=0.2, b=0.2)
    assert told[0].derivations == ["a", "b"] and told[0].state == "active"


def test_drift_of_an_independent_control_moves_a_fixed_rule_crossing_to_medium_and_never_to_nothing():
    room = Room()
    drifting = judged(0.8, classical=True)
    (alarm,) = room.see(drift="independent controls are at 60 % of baseline as well", a=drifting)
    assert alarm.priority == "medium" and "independent controls are at 60 % of baseline as well" in alarm.evidence
    assert room.see(drift="still", a=drifting)[0].state == "active"


def test_a_crossing_beyond_what_drift_explains_stays_high():
    room = Room()
    (alarm,) = room.see(drift="independent controls are at 60 % of baseline as well", a=judged(0.2, classical=True))
    assert alarm.priority == "high"


def test_priority_of_an_open_alarm_never_falls():
    room = Room()
    room.see(a=0.2)
    room.see(a=0.2)
    room.see(drift="controls fade", a=judged(0.8, classical=True))
    assert room.book.get("A1").priority == "high"


def test_a_stimulus_that_was_not_delivered_raises_no_change_of_the_patient():
    room = Room()
    assert room.see(lambda: Surroundings(False, "delivered less than set"), a=0.0) == []
    assert room.book.all() == []


def test_equipment_trouble_does_not_close_a_change_that_is_open():
    room = Room()
    room.see(a=0.2)
    room.see(a=0.2)
    room.see(lambda: Surroundings(False, "delivered less than set"), a=0.0)
    assert room.book.get("A1").state == "active"


def test_after_a_reset_a_crossing_must_be_seen_afresh_but_open_alarms_stay():
    room = Room()
    room.see(a=0.2)
    room.see(a=0.2)
    room.watch.reset()
    assert room.states() == ["active"]
    for _ in range(RECOVERY_WINDOWS):
        room.see(a=1.0)
    assert room.states() == ["cleared"]


def test_a_single_train_confirms_where_the_profile_says_one():
    room = Room(confirm=1)
    assert [a.state for a in room.see(a=0.1)] == ["possible", "active"]
