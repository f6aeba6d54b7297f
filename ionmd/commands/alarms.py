"""Alarms and baselines: what a person says about them."""

from __future__ import annotations

import msgspec

from ionmd.alarm.baseline import build
from ionmd.alarm.book import sort_for_room
from ionmd.commands.base import Desk
from ionmd.errors import INTERLOCK, Refused
from ionmd.events import ActiveBaseline, AlarmOnScreen, BaselineAccepted, BaselineActivated, BaselineReviewed, Review
from ionmd.service import results
from ionmd.service.backend import Caller
from ionmd.service.schema import (
    AlarmAck,
    AlarmList,
    AlarmPause,
    AlarmSeen,
    BaselineActivate,
    BaselineList,
    BaselineReview,
    BaselineSet,
)


def alarm_list(desk: Desk, p: AlarmList, caller: Caller) -> object:
    room = desk.room
    alarms = room.book.all() if p.all else room.book.open()
    paused = room.pause
    return results.Alarms(
        sort_for_room(alarms), paused.until if paused is not None else None, paused.reason if paused is not None else ""
    )


def ack(desk: Desk, p: AlarmAck, caller: Caller) -> object:
    """Silence this instance; telling the surgeon is an episode entry, not this."""
    room = desk.room
    room.need_case()
    if room.book.get(p.id) is None:
        raise Refused(f"alarm {p.id} is unknown", INTERLOCK)
    alarm = room.book.acknowledge(p.id, desk.person(caller, p.by), room.now)
    if alarm is None:
        raise Refused(f"alarm {p.id} is {room.book.get(p.id).state}, nothing waits for an acknowledgement", INTERLOCK)  # type: ignore[union-attr]
    room.changes.tell(alarm)
    return {"id": p.id}


def seen(desk: Desk, p: AlarmSeen, caller: Caller) -> object:
    room = desk.room
    if room.book.get(p.id) is None:
        raise Refused(f"alarm {p.id} is unknown", INTERLOCK)
    room.bus.emit("case", AlarmOnScreen(seen=p.id, person=desk.person(caller, p.by)), kind="seen")
    return {"id": p.id}


def pause(desk: Desk, p: AlarmPause, caller: Caller) -> object:
    """A timed state of the room (sound off at a surgeon's request); alarms keep being raised and recorded."""
    room = desk.room
    room.need_case()
    room.begin_pause(p.seconds, p.reason, desk.person(caller, p.by))
    return {"id": "pause"}


# ---------------------------------------------------------------- baselines


def baseline_set(desk: Desk, p: BaselineSet, caller: Caller) -> object:
    """Accept >= 2 replicating averages; under an open change it needs its reason and closes nothing."""
    room = desk.room
    room.need_case()
    state = room.test(p.test)
    chosen = [state.find_average(a) for a in p.averages] if p.averages else list(state.averages)[-2:]
    person = desk.person(caller, p.by)
    baseline_id = f"B{sum(len(s.baselines) for s in room.tests.values()) + 1}"
    baseline = build(baseline_id, chosen, p.kind, person, p.reason, room.now, not state.baselines)
    warnings = []
    alarm = room.book.find(f"change/{p.test}")
    if alarm is not None:
        warnings.append(f"{alarm.id} stays open: a new baseline closes no change")
    warnings += [f"{d}: not monitorable at baseline" for d, r in baseline.references.items() if not r.monitorable]
    state.baselines[baseline_id] = baseline
    state.first_baseline = state.first_baseline or baseline_id
    room.activate_baseline(state, baseline_id)
    room.bus.emit("case", BaselineAccepted(baseline=baseline.info), kind="baseline")
    return {"id": baseline_id, "warnings": warnings}


def baseline_list(desk: Desk, p: BaselineList, caller: Caller) -> object:
    states = [desk.room.test(p.test)] if p.test else list(desk.room.tests.values())
    return results.Baselines([
        msgspec.structs.replace(b.info, active=b.info.id == s.active_baseline)
        for s in states for b in s.baselines.values()
    ])


def baseline_activate(desk: Desk, p: BaselineActivate, caller: Caller) -> object:
    room = desk.room
    room.need_case()
    for state in room.tests.values():
        if p.baseline in state.baselines:
            room.activate_baseline(state, p.baseline)
            person = desk.person(caller, p.by)
            data = ActiveBaseline(active=p.baseline, test=state.id, reason=p.reason, person=person)
            room.bus.emit("case", BaselineActivated(baseline=data), kind="baseline")
            return {"id": p.baseline}
    raise Refused(f"baseline {p.baseline} is unknown", INTERLOCK)


def baseline_review(desk: Desk, p: BaselineReview, caller: Caller) -> object:
    room = desk.room
    room.need_case()
    if not any(p.baseline in s.baselines for s in room.tests.values()):
        raise Refused(f"baseline {p.baseline} is unknown", INTERLOCK)
    review = Review(baseline=p.baseline, verdict=p.verdict, text=p.text, person=desk.person(caller, p.by))
    room.bus.emit("case", BaselineReviewed(review=review), kind="review")
    return {"id": p.baseline}
