"""Who is here: sign-in, attendance, and the surgical step that every reading carries.

Technologist and physician attendance intervals are journalled; actions carry person and uid.
"""

from __future__ import annotations

import msgspec

from ionmd.errors import INTERLOCK, Refused
from ionmd.model import Attendance, Episode, EpisodeEntry, EventKind, Person, RoomEvent


class People:
    """Persons present, events, episodes and the current step."""

    def __init__(self) -> None:
        self._present: dict[str, Attendance] = {}
        self.events: list[RoomEvent] = []
        self.episodes: dict[str, Episode] = {}
        self.step = ""
        self.messages = 0  # since the daemon started

    def sign_in(self, person: Person, uid: int, sample: int) -> Attendance:
        if person.name in self._present:
            raise Refused(f"{person.name} is already signed in; sign out first", INTERLOCK)
        attendance = self._present[person.name] = Attendance(person, uid, sample)
        return attendance

    def sign_out(self, name: str, sample: int) -> Attendance:
        attendance = self._present.pop(name, None)
        if attendance is None:
            here = ", ".join(self._present) or "nobody"
            raise Refused(f"{name} is not signed in ({here} is)", INTERLOCK)
        return msgspec.structs.replace(attendance, until=sample)

    def present(self) -> list[Attendance]:
        return list(self._present.values())

    def who(self, uid: int, name: str | None = None) -> str:
        """The person an action of `uid` is booked on: the name given (must be signed in), else the one of that uid."""
        if name:
            if name not in self._present:
                raise Refused(f"{name} is not signed in; ionmd case ... after `person.sign_in`", INTERLOCK)
            return name
        mine = [a.person.name for a in self._present.values() if a.uid == uid]
        return mine[-1] if mine else f"uid {uid}"

    def add_event(self, kind: EventKind, text: str, at: int, entered_at: int, person: str) -> RoomEvent:
        event = RoomEvent(f"E{len(self.events) + 1}", kind, text, at, entered_at, person)
        self.events.append(event)
        if kind == "step":
            self.step = text
        return event

    def open_episode(self, alarm: str, sample: int) -> Episode:
        episode = Episode(f"P{len(self.episodes) + 1}", alarm, sample)
        self.episodes[episode.id] = episode
        return episode

    def add_entry(self, episode_id: str | None, entry: EpisodeEntry) -> Episode:
        """Append to the episode named, or to the newest one."""
        if not self.episodes:
            raise Refused("there is no episode: one opens with a change (alarm)", INTERLOCK)
        chosen = episode_id or next(reversed(self.episodes))
        episode = self.episodes.get(chosen)
        if episode is None:
            raise Refused(f"episode {chosen} is unknown; there are {', '.join(self.episodes)}", INTERLOCK)
        episode = self.episodes[chosen] = msgspec.structs.replace(episode, entries=[*episode.entries, entry])
        return episode

    def new_case(self) -> None:
        """A new case starts with the people present and nothing else."""
        self.events, self.episodes, self.step = [], {}, ""
