"""Is every stage alive: the proof that systemd's watchdog gets.

In: what each stage has to do and what it has done.  Out: the names of those that are stuck.  Always: a stage is stuck
when it has input and has consumed none of it for its patience; one that waits for the disk is not stuck, since a
restart would throw away what waits in memory: that is an alarm of the record.  Pure: seconds come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ionmd.timers import STAGE_STUCK_MS


@dataclass
class Stage:
    """`done` grows with everything that is consumed; `waiting` is true while there is input.  A stage that ticks with
    nothing to do is always waiting."""

    name: str
    waiting: Callable[[], bool]
    done: Callable[[], int]
    patience_s: float = STAGE_STUCK_MS / 1000.0


class Health:
    """Looked at now and then; more often than the shortest patience."""

    def __init__(self, stages: list[Stage]) -> None:
        self._stages = stages
        self._seen: dict[str, tuple[int, float]] = {}

    def stuck(self, now_s: float) -> list[str]:
        """Names of the stages that have been stuck since before `now_s` minus their patience, in their order."""
        found = []
        for stage in self._stages:
            done = stage.done()
            last, since = self._seen.get(stage.name, (-1, now_s))
            if done != last or not stage.waiting():
                self._seen[stage.name] = (done, now_s)
            elif not (now_s - since < stage.patience_s):
                found.append(stage.name)
        return found
