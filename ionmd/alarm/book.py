"""Alarms as objects: opened, confirmed, acknowledged, cleared; nothing disappears without a state.

In: verdicts (patient) and conditions (equipment).  Out: the Alarm in its new state, to publish and journal, or None
when nothing changed.  Always: acknowledging silences that instance as it stands, it never closes the change, and a
change that spreads or rises is active again; the same condition opens a new instance after it was cleared; a
patient's alarm is cleared only by recovery that lasted or by a person with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ionmd.model import Alarm, Priority, Side


class AlarmBook:
    """All alarms of a case, oldest first; `key` is what makes two reports the same condition."""

    def __init__(self) -> None:
        self._alarms: dict[str, Alarm] = {}
        self._key_of: dict[str, str] = {}
        self._open: dict[str, str] = {}
        self._count = 0

    def all(self) -> list[Alarm]:
        return list(self._alarms.values())

    def open(self) -> list[Alarm]:
        return [self._alarms[i] for i in self._open.values()]

    def get(self, alarm_id: str) -> Alarm | None:
        return self._alarms.get(alarm_id)

    def find(self, key: str) -> Alarm | None:
        """The open instance of a condition."""
        alarm_id = self._open.get(key)
        return self._alarms[alarm_id] if alarm_id else None

    def restore(self, alarms: Iterable[Alarm]) -> None:
        """After a restart: instances of the journal, so that numbering goes on and latched ones stay."""
        for alarm in alarms:
            self._alarms[alarm.id] = alarm
            self._count = max(self._count, int(alarm.id.lstrip("A") or 0))

    def possible(self, key: str, sample: int, **fields: Any) -> Alarm:
        """A first crossing, shown at once; a no-op (same object) when it is already open."""
        return self.find(key) or self._new(key, "possible", sample, fields)

    def confirm(self, key: str, sample: int, rate_hz: float, **fields: Any) -> Alarm:
        """The next independent window agrees: possible -> active, with the time from change to alert."""
        current = self.find(key)
        if current is None:
            return self._new(key, "active", sample, fields)
        if current.state != "possible":
            return self.update(key, sample, **fields) or current
        change = fields.get("change_sample", current.change_sample)
        took = round((sample - change) / rate_hz, 2) if change is not None and rate_hz > 0 else None
        return self._set(current, state="active", sample=sample, time_to_alarm_s=took, **fields)

    def update(self, key: str, sample: int, **fields: Any) -> Alarm | None:
        """New cause, priority or evidence of an open alarm; None when nothing that is shown changed.

        Priority never falls through a cause: the caller passes the priority it wants, a lower one is kept out."""
        current = self.find(key)
        if current is None:
            return None
        if "priority" in fields and _rank(fields["priority"]) < _rank(current.priority):
            del fields["priority"]
        shown = {name: fields[name] for name in ("cause", "priority", "derivations") if name in fields}
        if all(getattr(current, name) == value for name, value in shown.items()):
            return None
        worse = _rank(fields.get("priority", current.priority)) > _rank(current.priority)
        if current.state == "acknowledged" and (worse or set(fields.get("derivations", ())) - set(current.derivations)):
            fields |= {"state": "active", "acknowledged_by": ""}  # nobody has acknowledged what it has become
        return self._set(current, sample=sample, **fields)

    def acknowledge(self, alarm_id: str, by: str, sample: int) -> Alarm | None:
        """Silence this instance; None when it is not waiting for that."""
        current = self._alarms.get(alarm_id)
        if current is None or current.state not in ("possible", "active"):
            return None
        return self._set(current, state="acknowledged", acknowledged_by=by, sample=sample)

    def clear(self, key: str, sample: int, by: str, sentence: str = "") -> Alarm | None:
        """The condition ended (`by` says how: not confirmed, recovered, contact restored, a person's name); `sentence`
        takes the place of the one that no longer holds."""
        current = self.find(key)
        if current is None:
            return None
        del self._open[key]
        return self._set(current, state="cleared", cleared_by=by, sample=sample, sentence=sentence or current.sentence)

    def technical(
        self, code: str, key: str, sample: int, sentence: str, priority: Priority, *,
        evidence: list[str] | None = None, test: str = "", derivations: list[str] | None = None, side: Side = "none",
    ) -> Alarm | None:
        """An equipment condition holds; None when this instance is already open."""
        key = f"{code}/{key}"
        if self.find(key) is not None:
            return None
        fields: dict[str, Any] = {
            "kind": "technical", "priority": priority, "cause": "technical", "sentence": sentence,
            "evidence": evidence or [], "test": test, "derivations": derivations or [], "code": code, "side": side,
        }
        return self._new(key, "active", sample, fields)

    def technical_over(self, code: str, key: str, sample: int, by: str) -> Alarm | None:
        return self.clear(f"{code}/{key}", sample, by)

    def clear_code(self, code: str, sample: int, by: str) -> list[Alarm]:
        """End every open instance of one technical code."""
        keys = [k for k in self._open if k.startswith(f"{code}/")]
        return [a for k in keys if (a := self.clear(k, sample, by)) is not None]

    def _new(self, key: str, state: str, sample: int, fields: dict[str, Any]) -> Alarm:
        self._count += 1
        base: dict[str, Any] = {
            "kind": "physiological", "priority": "medium", "cause": "unknown", "sentence": "", "evidence": [],
            "test": "", "derivations": [],
        }
        alarm = Alarm(**{**base, **fields, "id": f"A{self._count}", "state": state, "opened_sample": sample,
                         "sample": sample})
        self._alarms[alarm.id] = alarm
        self._key_of[alarm.id] = key
        self._open[key] = alarm.id
        return alarm

    def _set(self, alarm: Alarm, **changes: Any) -> Alarm:
        alarm = msgspec.structs.replace(alarm, **changes)
        self._alarms[alarm.id] = alarm
        return alarm


def _rank(priority: Priority) -> int:
    return ("low", "medium", "high").index(priority)


def sort_for_room(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Highest priority first, patient before equipment, then oldest."""
    return sorted(alarms, key=lambda a: (-_rank(a.priority), a.kind != "physiological", a.opened_sample))

