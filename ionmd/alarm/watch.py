"""From judgements to the alarm of one test: possible at the first crossing, active when the next independent window
of sweeps agrees, cleared when it does not, or after a recovery that lasted.

In: one judgement per alert derivation for each window of sweeps (or single sweep), in time order, and what surrounds
it.  Out: alarms in their new state.  Always: an unjudgeable window neither confirms nor clears; nothing that crossed
is silent.  State is small and explicit, so a replay gives the same alarms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ionmd.alarm.book import AlarmBook
from ionmd.alarm.cause import Surroundings, call, sentence
from ionmd.alarm.criteria import Judged
from ionmd.model import Alarm, Criterion, Priority, Side

# A recovery must hold for this many judgeable windows, or single sweeps, and by this margin above the limit.
RECOVERY_WINDOWS, RECOVERY_SWEEPS = 2, 3
RECOVERY_MARGIN = 0.10
# All derivations together must have fallen by this many standard errors to be shown at the first crossing.
Z_POOLED = 3.5


@dataclass
class Observation:
    """One window of sweeps (or one sweep) of a test, judged.  `first_sample` is its first sweep's time zero."""

    sample: int
    first_sample: int
    judged: dict[str, Judged]
    surroundings: Surroundings
    drift_reason: str = ""  # set when an independent control shows the same fade
    pooled: tuple[float, float] | None = None  # share of all its derivations together, and its standard error


@dataclass
class _Streak:
    crossed: int = 0
    first_sample: int = 0
    recovered: int = 0


@dataclass
class ChangeWatch:
    """The alarm logic of one test."""

    test: str
    title: str
    side: Side
    rate_hz: float
    confirm: int = 2
    separate: bool = False  # every derivation is a pathway of its own (muscles of one train), judged sweep by sweep
    sides: dict[str, Side] = field(default_factory=dict)  # of separate derivations
    _streaks: dict[str, _Streak] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"change/{self.test}"

    def reset(self) -> None:
        """Averages restarted (a gap, a new baseline): crossings must be seen afresh; open alarms stay."""
        self._streaks.clear()

    def observe(self, seen: Observation, book: AlarmBook) -> list[Alarm]:
        """Advance; the alarms whose state or content changed, in order."""
        for label, judged in seen.judged.items():
            streak = self._streaks.setdefault(label, _Streak())
            if judged.crossed:
                if streak.crossed == 0:
                    streak.first_sample = seen.first_sample
                streak.crossed, streak.recovered = streak.crossed + 1, 0
            elif judged.judgeable:
                good = judged.ratio is not None and judged.ratio >= judged.corrected_limit + RECOVERY_MARGIN
                streak.crossed, streak.recovered = 0, streak.recovered + 1 if good else 0
        crossed = [label for label, judged in seen.judged.items() if judged.crossed]
        current = book.find(self.key)
        if crossed and current is None and not self.separate and not self._agreed(seen, crossed):
            return []  # kept as a streak: the next window decides
        if crossed:
            return self._crossing(seen, crossed, current, book)
        if current is None:
            return []
        judgeable = any(judged.judgeable for judged in seen.judged.values())
        if current.state == "possible" and judgeable:
            what = "train" if self.separate else "sweeps"
            text = f"Not confirmed: {self.title or self.test} crossed once and the next {what} did not."
            cleared = book.clear(self.key, seen.sample, f"not confirmed by the next {what}", text)
            return [cleared] if cleared else []
        names = [d for d in current.derivations if d in self._streaks]
        lasting = RECOVERY_SWEEPS if self.separate else RECOVERY_WINDOWS
        if names and all(self._streaks[d].recovered >= lasting for d in names):
            left = [r for d in names if d in seen.judged and (r := seen.judged[d].ratio) is not None]
            back = f" at {100 * min(left):.0f} % of baseline" if left else ""
            text = f"Recovered: {self.title or self.test} is back{back}."
            cleared = book.clear(self.key, seen.sample, "recovered", text)
            return [cleared] if cleared else []
        return []

    def glance(self, seen: Observation, book: AlarmBook) -> list[Alarm]:
        """Between whole windows, whose sweeps overlap: can raise a first crossing, and nothing else."""
        crossed = [label for label, judged in seen.judged.items() if judged.crossed]
        if not crossed or book.find(self.key) is not None or not self._together(seen, crossed):
            return []
        for label in crossed:
            self._streaks[label] = _Streak(1, seen.first_sample)
        return self._crossing(seen, crossed, None, book)

    def _agreed(self, seen: Observation, crossed: list[str]) -> bool:
        """A first crossing is shown at once when the derivations of the test agree; one derivation against the others
        must cross twice in a row first.  Without this, chance in four derivations would raise a false `possible` every
        few minutes (docs/sources.md#change-rule)."""
        if len(seen.judged) == 1 or any(self._streaks[d].crossed >= 2 for d in crossed):
            return True
        return self._together(seen, crossed)

    def _together(self, seen: Observation, crossed: list[str]) -> bool:
        """Is the pooled share below the limit, and by more than chance?"""
        if seen.pooled is None:
            return True
        ratio, se = seen.pooled
        return not (ratio >= seen.judged[crossed[0]].corrected_limit) and (1.0 - ratio) > Z_POOLED * se

    def _named(self, crossed: list[str]) -> tuple[str, Side]:
        """What a sentence calls the response, and its side: that of the muscles when the test itself has none."""
        if not self.separate:
            return self.title, self.side
        sides = {self.sides.get(d, "none") for d in crossed}
        names = " and ".join([", ".join(crossed[:-1]), crossed[-1]] if len(crossed) > 1 else crossed)
        return f"{self.title.partition(',')[0]} of {names}", sides.pop() if len(sides) == 1 else self.side

    def _crossing(
        self, seen: Observation, crossed: list[str], current: Alarm | None, book: AlarmBook
    ) -> list[Alarm]:
        left = [r for d in crossed if (r := _left(seen.judged[d])) is not None]
        seen.surroundings.changed = min(left) if left else None
        cause = call(seen.surroundings)
        if cause.cause == "technical" and current is None:
            return []  # the equipment's own alarm says so, and the derivation is "not monitored"
        criteria = _criteria(seen, crossed)
        confirmed = any(self._streaks[d].crossed >= self.confirm for d in crossed)
        priority: Priority = cause.priority
        evidence = list(cause.evidence)
        if seen.drift_reason and not any(seen.judged[d].corrected.crossed for d in crossed):
            priority = "medium"  # design 9: from high to medium with its reason, never to nothing
            evidence.append(seen.drift_reason)
        state = "active" if confirmed or (current is not None and current.state != "possible") else "possible"
        if self.separate and state == "possible":
            evidence.append("repeat the train now: the next one confirms or clears this")
        latency = next((c.value for c in criteria if c.rule == "latency" and c.crossed), None)
        title, side = self._named(crossed)
        fields: dict[str, Any] = {
            "kind": "physiological", "priority": priority, "cause": cause.cause, "evidence": evidence,
            "test": self.test, "derivations": crossed, "criterion": criteria, "side": side,
            "change_sample": min(self._streaks[d].first_sample for d in crossed),
            "sentence": sentence(title, side, state, min(left, default=None), latency, cause.cause),
        }
        if current is None:
            alarm = book.possible(self.key, seen.sample, **fields)
            return [alarm] if not confirmed else [alarm, book.confirm(self.key, seen.sample, self.rate_hz, **fields)]
        if current.state == "possible" and confirmed:
            fields["change_sample"] = current.change_sample
            return [book.confirm(self.key, seen.sample, self.rate_hz, **fields)]
        fields["derivations"] = sorted({*current.derivations, *crossed})
        fields.pop("change_sample")
        if current.state == "possible":
            fields.pop("sentence")
        updated = book.update(self.key, seen.sample, **fields)
        return [updated] if updated else []


def _left(judged: Judged) -> float | None:
    """Share of the baseline that is left by the rule that crossed: the sentence must not give another one's number."""
    if judged.corrected.crossed and judged.ratio is not None:
        return judged.ratio
    sizes = [c.value for c in judged.classical if c.crossed and c.rule in ("amplitude", "loss") and c.value is not None]
    return min(sizes, default=None)


def _criteria(seen: Observation, crossed: list[str]) -> list[Criterion]:
    """Both rules of every derivation that crossed, named."""
    found = []
    for label in crossed:
        judged = seen.judged[label]
        for c in [*judged.classical, judged.corrected]:
            found.append(Criterion(c.rule, c.crossed, c.value, c.limit, f"{label}: {c.text}"))
    return found
