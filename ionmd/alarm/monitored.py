"""Is a derivation monitored, or not monitored: why; and how old is its last valid reading.

Pure bookkeeping by sample.  Several reasons may hold at once; the most blocking one is shown, all are listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

# Most blocking first: what to mend first.
ORDER = (
    "no device", "no data", "stimulation stopped", "stimulus not delivered",
    "electrode", "cautery", "excluded", "all sweeps rejected", "no comparison",
    "not monitorable at baseline", "no baseline",
)


class MonitoredState(msgspec.Struct, frozen=True, omit_defaults=True):
    """`monitored` false comes with `why`; age_s is since the last valid reading, None before the first."""

    test: str
    derivation: str
    monitored: bool
    why: str = ""
    reasons: list[str] = []
    since_sample: int = 0
    age_s: float | None = None


@dataclass
class _Entry:
    reasons: dict[str, str] = field(default_factory=dict)  # key -> text
    since: int = 0
    started: int = 0
    last_valid: int | None = None


class Monitoring:
    """One entry per (test, derivation)."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._touched: dict[tuple[str, str], None] = {}

    def watch(self, test: str, derivation: str, sample: int) -> None:
        self._entries.setdefault((test, derivation), _Entry(since=sample, started=sample))
        self._touched[test, derivation] = None

    def forget(self, test: str) -> None:
        for key in [k for k in self._entries if k[0] == test]:
            del self._entries[key]
            self._touched[key] = None

    def block(self, test: str, key: str, text: str, sample: int, derivation: str | None = None) -> bool:
        """A reason (its key is a word of ORDER) now holds; True if the state of any derivation changed."""
        changed = False
        for place, entry in self._match(test, derivation):
            if not entry.reasons:
                entry.since, changed = sample, True
            if entry.reasons.get(key) != text:
                entry.reasons[key] = text
                self._touched[place] = None
        return changed

    def unblock(self, test: str, key: str, sample: int, derivation: str | None = None) -> bool:
        changed = False
        for place, entry in self._match(test, derivation):
            if entry.reasons.pop(key, None) is None:
                continue
            self._touched[place] = None
            if not entry.reasons:
                entry.since, changed = sample, True
        return changed

    def valid_reading(self, test: str, derivation: str, sample: int) -> None:
        entry = self._entries.get((test, derivation))
        if entry is not None:
            entry.last_valid = sample

    def last_valid(self, test: str, derivations: Iterable[str]) -> int | None:
        """The newest valid reading of these derivations of a test: the headline is its age."""
        entries = (self._entries.get((test, d)) for d in derivations)
        return max((e.last_valid for e in entries if e is not None and e.last_valid is not None), default=None)

    def valid_since(self, test: str, derivations: Iterable[str]) -> int:
        """Sample of their newest valid reading, or of the test's start while there is none."""
        started = max((e.started for (t, _), e in self._entries.items() if t == test), default=0)
        return max(started, self.last_valid(test, derivations) or 0)

    def reasons(self, test: str, derivations: Iterable[str]) -> tuple[set[str], list[str]]:
        """What keeps all of these derivations from being monitored: keys and texts; empty when one of them is."""
        entries = [(d, e) for d in derivations if (e := self._entries.get((test, d))) is not None]
        if not entries or any(not e.reasons for _, e in entries):
            return set(), []
        keys = set().union(*(e.reasons for _, e in entries))
        return keys, [f"{d}: {text}" for d, e in entries for text in e.reasons.values()]

    def blocked(self, test: str, derivation: str) -> bool:
        entry = self._entries.get((test, derivation))
        return entry is None or bool(entry.reasons)

    def states(self, sample: int, rate_hz: float) -> list[MonitoredState]:
        """A snapshot of every derivation, in the order they were started."""
        found = []
        for (test, derivation), entry in self._entries.items():
            keys = sorted(entry.reasons, key=lambda k: ORDER.index(k) if k in ORDER else len(ORDER))
            texts = [entry.reasons[k] for k in keys]
            age = None if entry.last_valid is None else round((sample - entry.last_valid) / rate_hz, 1)
            found.append(
                MonitoredState(test, derivation, not texts, texts[0] if texts else "", texts, entry.since, age)
            )
        return found

    def drain(self, sample: int, rate_hz: float) -> list[MonitoredState]:
        """Derivations whose reasons changed since the last call; one that was stopped is not monitored either."""
        if not self._touched:
            return []
        touched, self._touched = self._touched, {}
        now = {(s.test, s.derivation): s for s in self.states(sample, rate_hz)}
        stopped = "test not running"
        return [now.get((t, d)) or MonitoredState(t, d, False, stopped, [stopped], sample) for t, d in touched]

    def _match(self, test: str, derivation: str | None) -> list[tuple[tuple[str, str], _Entry]]:
        return [
            ((t, d), e) for (t, d), e in self._entries.items()
            if (not test or t == test) and (derivation is None or d == derivation)
        ]
