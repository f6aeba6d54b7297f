"""Starting, stopping and setting tests; hand corrections of their results."""

from __future__ import annotations

import msgspec

from ionmd.commands.base import Desk
from ionmd.errors import INTERLOCK, LIMIT, Refused
from ionmd.events import TestChanged
from ionmd.model import Marker, Reading
from ionmd.room.teststate import TestState, with_stimulus
from ionmd.service.backend import Caller
from ionmd.service.schema import (
    DerivationChange,
    MarkerClear,
    MarkerSet,
    ReadingReject,
    TestSet,
    TestStart,
    TestStop,
)

__test__ = False


def start(desk: Desk, p: TestStart, caller: Caller) -> object:
    """Run tests; those that stimulate need the lease.  All start or none."""
    room = desk.room
    room.need_case()
    room.need_streaming()
    states = [room.test(name) for name in dict.fromkeys(p.tests)]
    already = [s.id for s in states if s.running and not s.suspended]
    if already:
        raise Refused(f"already running: {', '.join(already)}", INTERLOCK)
    stimulating = [s for s in states if s.stimulates]
    if stimulating:
        room.stimulation.lease.present(p.lease, caller.uid)
        room.stimulation.need_device()
        if room.deliveries.latched:
            raise Refused(f"stimulation is latched off: {room.deliveries.latched}", INTERLOCK)
        for state in stimulating:
            room.stimulation.sequence(state)  # limits are checked before anything starts
    started: list[TestState] = []
    try:
        for state in states:
            room.start_test(state)
            started.append(state)
    except Exception:
        for state in started:
            room.stop_test(state)
        raise
    if any(s.continuous for s in states):
        room.stimulation.begin_cycle()
    for state in states:
        if state.continuous:
            room.stimulation.arm(state)
        room.bus.emit("case", TestChanged(test=state.info(None), state="running"), kind="test")
    room.technical.over("stimulation.stopped", "", "stimulation was started again")
    return {"warnings": [f"{s.id} {d}: {why}" for s in states for d, why in s.missing.items()]}


def stop(desk: Desk, p: TestStop, caller: Caller) -> object:
    """Stop tests (all without names); the cycle of the others goes on."""
    room = desk.room
    room.need_case()
    states = [room.test(n) for n in p.tests] if p.tests else [s for s in room.tests.values() if s.running]
    stopped = [s for s in states if s.running]
    for state in stopped:
        room.stop_test(state)
        room.bus.emit("case", TestChanged(test=state.info(None), state="stopped"), kind="test")
    if any(s.continuous for s in stopped):
        room.stimulation.begin_cycle()
    return {"id": ",".join(s.id for s in stopped)}


def set_test(desk: Desk, p: TestSet, caller: Caller) -> object:
    """Change settings; a running stimulating test is re-armed and its averages start afresh."""
    room = desk.room
    room.need_case()
    state = room.test(p.test)
    changes: dict[str, object] = {}
    if (amplitude := p.amplitude_ma if p.amplitude_ma is not None else p.amplitude_v) is not None:
        unit = "mA" if p.amplitude_ma is not None else "V"
        stimulus = state.definition.stimulus
        if stimulus is None or stimulus.unit != unit:
            raise Refused(f"{p.test} is not stimulated in {unit}", LIMIT)
        changes["amplitude"] = float(amplitude)
    for name in ("width_us", "polarity", "pulses", "interval_ms", "rate_hz"):
        if (value := getattr(p, name)) is not None:
            changes[name] = value
    average = {n: v for n in ("sweeps", "sub_sweeps", "reject_uv") if (v := getattr(p, n)) is not None}
    before = state.definition
    if changes and state.stimulates and state.running:
        room.stimulation.lease.present(p.lease, caller.uid)
    definition = with_stimulus(before, **changes) if changes else before
    if average:
        definition = msgspec.structs.replace(definition, average=msgspec.structs.replace(definition.average, **average))
    state.definition = definition
    try:
        if changes and state.stimulates:
            room.stimulation.sequence(state)
    except Refused:
        state.definition = before
        raise
    if state.running:
        excluded, stopped = dict(state.excluded), state.suspended
        room.deliveries.ledger.cancel(state.id)
        room.start_test(state)
        state.excluded = excluded
        if changes and state.continuous:
            room.stimulation.begin_cycle()
            room.stimulation.arm(state)
        elif stopped:  # another setting starts no stimulation
            state.suspended = stopped
            room.monitoring.block(state.id, "stimulation stopped", f"stimulation stopped: {stopped}", room.now)
    room.bus.emit("case", TestChanged(test=state.info(None), state="changed"), kind="test")
    return {"id": state.id}


# ---------------------------------------------------------------- by hand


def _reading(state: TestState, derivation: str, reading_id: str | None) -> Reading:
    found = [r for r in state.readings if r.derivation == derivation and (reading_id is None or r.id == reading_id)]
    if not found:
        raise Refused(f"{state.id} {derivation}: no such reading", INTERLOCK)
    return found[-1]


def marker_set(desk: Desk, p: MarkerSet, caller: Caller) -> object:
    """A person's marker; the automatic one stays beside it and the reading goes out again."""
    room = desk.room
    room.need_case()
    state = room.test(p.test)
    reading = _reading(state, p.derivation, p.reading)
    epoch = state.definition.epoch
    if epoch is not None and not (epoch.start_ms <= p.latency_ms <= epoch.stop_ms):
        raise Refused(f"latency {p.latency_ms:g} ms came, {epoch.start_ms:g} to {epoch.stop_ms:g} is the epoch", LIMIT)
    auto = next((m for m in reading.markers if m.label == p.label), None)
    rule = next((r for r in state.definition.marker if r.label == p.label), None)
    if auto is None and rule is None:
        labels = sorted({r.label for r in state.definition.marker})
        raise Refused(f"{p.test} has no marker {p.label} ({', '.join(labels)})", INTERLOCK)
    if auto is not None and auto.provenance != "auto":
        auto = auto.auto
    polarity = rule.polarity if rule is not None else (auto.polarity if auto is not None else "negative")
    manual = Marker(
        p.label, polarity, "present", p.latency_ms, None,
        p.amplitude_uv if p.amplitude_uv is not None else (auto.amplitude_uv if auto else None),
        None, "manual", auto, desk.person(caller, p.by), p.reason,
    )
    state.manual[p.derivation, p.label] = manual
    markers = [manual if m.label == p.label else m for m in reading.markers]
    if auto is None:
        markers.append(manual)
    return _again(desk, state, reading, msgspec.structs.replace(reading, markers=markers))


def marker_clear(desk: Desk, p: MarkerClear, caller: Caller) -> object:
    room = desk.room
    room.need_case()
    state = room.test(p.test)
    manual = state.manual.pop((p.derivation, p.label), None)
    if manual is None:
        raise Refused(f"{p.test} {p.derivation}: marker {p.label} was not set by hand", INTERLOCK)
    reading = _reading(state, p.derivation, p.reading)
    markers = [m.auto if m.label == p.label and m.auto is not None else m for m in reading.markers]
    return _again(desk, state, reading, msgspec.structs.replace(reading, markers=markers))


def _again(desk: Desk, state: TestState, old: Reading, new: Reading) -> object:
    state.readings = type(state.readings)(
        (new if r is old else r for r in state.readings), maxlen=state.readings.maxlen
    )
    desk.room.bus.emit("reading", new, key=f"{new.test}/{new.derivation}/{new.kind}")
    return {"id": new.id}


def reading_reject(desk: Desk, p: ReadingReject, caller: Caller) -> object:
    """The reading stays in the record, marked; it is no valid reading any more."""
    room = desk.room
    room.need_case()
    for state in room.tests.values():
        for reading in state.readings:
            if reading.id == p.reading:
                state.rejected_readings.add(p.reading)
                note = f"rejected by {desk.person(caller, p.by)}: {p.reason}"
                return _again(desk, state, reading, msgspec.structs.replace(reading, status="uncertain", note=note))
    raise Refused(f"reading {p.reading} is unknown (only the newest are kept in memory)", INTERLOCK)


def exclude(desk: Desk, p: DerivationChange, caller: Caller) -> object:
    """Stop judging a derivation; it is then *not monitored*, and says so."""
    room, state = desk.room, _derivation(desk, p)
    state.excluded[p.derivation] = p.reason
    if state.run is not None:
        state.run.excluded.add(p.derivation)
    why = f"excluded by {desk.person(caller, p.by)}: {p.reason}"
    room.monitoring.block(state.id, "excluded", why, room.now, p.derivation)
    return {"id": f"{state.id}/{p.derivation}"}


def include(desk: Desk, p: DerivationChange, caller: Caller) -> object:
    room, state = desk.room, _derivation(desk, p)
    state.excluded.pop(p.derivation, None)
    if state.run is not None:
        state.run.excluded.discard(p.derivation)
    room.monitoring.unblock(state.id, "excluded", room.now, p.derivation)
    return {"id": f"{state.id}/{p.derivation}"}


def _derivation(desk: Desk, p: DerivationChange) -> TestState:
    desk.room.need_case()
    state = desk.room.test(p.test)
    labels = [d.label for d in state.definition.derivations]
    if p.derivation not in labels:
        raise Refused(f"{p.test} has no derivation {p.derivation} ({', '.join(labels)})", INTERLOCK)
    return state
