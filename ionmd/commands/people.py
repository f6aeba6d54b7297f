"""Persons, events, episodes, messages."""

from __future__ import annotations

from ionmd.commands.base import Desk
from ionmd.errors import INTERLOCK, Refused
from ionmd.events import Attended, Message, Noted, Told
from ionmd.model import EpisodeEntry, Person
from ionmd.service.backend import Caller
from ionmd.service.schema import EpisodeAdd, EventAdd, MessageSend, SignIn, SignOut


def sign_in(desk: Desk, p: SignIn, caller: Caller) -> object:
    room = desk.room
    attendance = room.people.sign_in(Person(p.name, p.credential, p.function), caller.uid, room.now)
    room.bus.emit("case", Attended(attendance=attendance), kind="attendance")
    return {"id": p.name}


def sign_out(desk: Desk, p: SignOut, caller: Caller) -> object:
    room = desk.room
    attendance = room.people.sign_out(p.name, room.now)
    holder = room.stimulation.lease.holder
    if holder is not None and holder.person == p.name:
        room.stimulation.lost(f"{p.name} signed out")
    room.bus.emit("case", Attended(attendance=attendance), kind="attendance")
    return {"id": p.name}


def event_add(desk: Desk, p: EventAdd, caller: Caller) -> object:
    room = desk.room
    room.need_case()
    at = room.now if p.at_sample is None else p.at_sample
    event = room.people.add_event(p.kind, p.text, at, room.now, desk.person(caller, p.by))
    room.bus.emit("case", Noted(event=event), kind="event")
    return {"id": event.id}


def episode_add(desk: Desk, p: EpisodeAdd, caller: Caller) -> object:
    room = desk.room
    room.need_case()
    if p.alarm is not None and p.episode is None:
        if room.book.get(p.alarm) is None:
            raise Refused(f"alarm {p.alarm} is unknown", INTERLOCK)
        known = [e.id for e in room.people.episodes.values() if e.alarm == p.alarm]
        episode_id = known[0] if known else room.people.open_episode(p.alarm, room.now).id
    else:
        episode_id = p.episode or ""
    entry = EpisodeEntry(
        room.now, desk.person(caller, p.by), list(p.informed), p.words, p.reply, p.action, p.outcome
    )
    episode = room.people.add_entry(episode_id or None, entry)
    room.bus.emit("case", Told(episode=episode), kind="episode")
    return {"id": episode.id}


def episode_list(desk: Desk, p: object, caller: Caller) -> object:
    return {"episodes": list(desk.room.people.episodes.values())}


def message_send(desk: Desk, p: MessageSend, caller: Caller) -> object:
    room = desk.room
    room.people.messages += 1
    message = Message(id=f"M{room.people.messages}", text=p.text, to=p.to, person=desk.person(caller, p.by))
    room.bus.emit("message", message)
    return {"id": message["id"]}
