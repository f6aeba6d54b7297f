"""What is going on: status, snapshot, lists.  Reads only."""

from __future__ import annotations

import msgspec

from ionmd.alarm.book import sort_for_room
from ionmd.commands.base import Desk
from ionmd.model import Reading
from ionmd.room.teststate import TestState
from ionmd.service import results
from ionmd.service.backend import Caller


def test_state(desk: Desk, state: TestState) -> results.TestState:
    room = desk.room
    rate = room.rate_hz or 1.0
    derivations = []
    for m in room.monitoring.states(room.now, rate):
        if m.test == state.id:
            role = next((d.role for d in state.definition.derivations if d.label == m.derivation), "alert")
            derivations.append(results.DerivationState(m.derivation, role, m.monitored, m.why))
    alert = [d for d in derivations if d.role == "alert"]
    last = room.monitoring.last_valid(state.id, state.alert_labels)
    monitored = state.running and last is not None and any(d.monitored for d in alert)
    otherwise = "no valid reading yet" if state.running else "test not running"
    why = "" if monitored else next((d.reason for d in alert if d.reason), otherwise)
    run, stimulus = state.run, state.definition.stimulus
    settings = None if stimulus is None else results.TestSettings(
        stimulus.output, stimulus.amplitude, stimulus.unit, stimulus.width_us, stimulus.polarity, stimulus.pulses,
        round(state.own_rate_hz, 4) if state.own_rate_hz else stimulus.rate_hz,
    )
    newest = state.readings[-1] if state.readings else None
    return results.TestState(
        state.id, "running" if state.running else "idle", monitored, why, newest.sweeps if newest else 0,
        sum(run.rejected.values()) if run is not None else 0, last,
        None if last is None else round((room.now - last) / rate, 1), derivations, settings,
        state.active_baseline or None, newest.filter_id if newest else "",
    )


def stim_status(desk: Desk, p: object, caller: Caller) -> results.StimStatus:
    room = desk.room
    holder = room.stimulation.lease.holder
    outputs = []
    for o in room.template.output if room.template else []:
        running = [s for s in room.tests.values() if s.running and s.output is o]
        manual = room.stimulation.by_hand.armed
        armed = manual is not None and manual.output is o
        failed = room.deliveries.failing(o.jack)
        state = "not delivered" if failed else "armed" if armed else "off"
        if state == "off" and running:
            cycling = room.stimulation.schedule.cycle.period > 0
            state = "ready" if holder is not None else "stopped"  # on demand: ready to be armed and fired
            if any(s.continuous for s in running):
                state = "stimulating" if cycling and any(not s.suspended for s in running) else "stopped"
        outputs.append(results.OutputState(o.name, o.kind, o.site, state, failed))
    mine = holder is not None and holder.uid == caller.uid
    return results.StimStatus(
        desk.device().stim_state, outputs, room.stimulation.lease.id if mine else None, holder.uid if holder else None,
        holder.person if holder else "", "cautery" if room.technical.cautery else "", room.deliveries.latched,
    )


def status(desk: Desk, p: object, caller: Caller) -> results.DaemonStatus:
    room = desk.room
    paused = []
    if room.pause is not None:
        paused.append(results.Pause("alarms", room.pause.reason, room.pause.until))
    if room.technical.cautery:
        paused.append(results.Pause("averaging and stimulation", "cautery"))
    recording = msgspec.convert(desk.recording(), results.Recording)
    return results.DaemonStatus(
        f"ionmd {desk.version}", room.source, room.case.id if room.case else None, room.now, room.rate_hz,
        desk.device(), stim_status(desk, p, caller), [test_state(desk, s) for s in room.tests.values()],
        sort_for_room(room.book.open()), [a.person for a in room.people.present()], room.people.step,
        recording, recording.journal_lines - recording.journal_pending if room.case else 0, paused, desk.speed,
    )


def snapshot(desk: Desk, p: object, caller: Caller) -> results.Snapshot:
    room = desk.room
    latest: dict[tuple[str, str], Reading] = {}
    for state in room.tests.values():
        for reading in state.readings:
            latest[state.id, reading.derivation] = reading
    baselines = [b.info for s in room.tests.values() for b in s.baselines.values()]
    return results.Snapshot(
        status(desk, p, caller), list(room.electrodes.values()), list(latest.values()), baselines,
        list(room.people.episodes.values()),
    )


def test_list(desk: Desk, p: object, caller: Caller) -> object:
    return results.TestList([test_state(desk, s) for s in desk.room.tests.values()])
