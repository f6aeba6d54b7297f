"""Who gets which events, and what a client that was away has missed.

In: published events, `subscribe` and `unsubscribe`.  Out: encoded events into the outboxes of connections.
Always: nothing before `subscribe`; the reply to it says the seq from which on the client sees everything; a resume
sends exactly what was missed, or says that it cannot.
"""

from __future__ import annotations

import msgspec
import structlog

from ionmd.errors import INVALID_PARAMS
from ionmd.service.connection import Connection
from ionmd.service.queues import Outbox
from ionmd.service.rpc import RpcError
from ionmd.service.schema import LOSSLESS, TOPICS, Subscribe, Unsubscribe
from ionmd.service.topics import Published, Topics

log = structlog.get_logger("ionmd.service")


class ResumeLost(Exception):
    """Another boot_id, or more was missed than is kept."""


class Subscriptions:
    """Service thread only."""

    def __init__(self, boot_id: str, history: int) -> None:
        self._boot_id = boot_id
        self._topics = Topics(boot_id, history)
        self._readers: dict[str, list[Connection]] = {topic: [] for topic in TOPICS}

    @property
    def encoded(self) -> int:
        return self._topics.encoded

    def oldest(self) -> dict[str, int]:
        """Of each resumable topic the smallest seq that a client may resume from."""
        return {topic: ring.oldest for topic, ring in self._topics.rings.items()}

    def hand_on(self, item: Published) -> None:
        """One event to everybody who wants it."""
        readers = self._readers[item.topic]
        try:
            event = self._topics.take(item, bool(readers))
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            log.error("event_not_encoded", topic=item.topic, seq=item.seq, error=str(error))
            return
        if event is not None:
            lossless = item.topic in LOSSLESS
            for connection in readers:
                connection.send_event(event, lossless)

    def subscribe(self, connection: Connection, params: Subscribe, newest: dict[str, int]) -> dict[str, object]:
        """Follow these topics from `newest` on; the answer.  `catch_up` comes after it.

        Raises ResumeLost, and RpcError for a resume of topics that are not asked for."""
        resume = params.resume_from
        if resume is not None:
            if stray := set(resume.seq) - set(params.topics):
                raise RpcError(INVALID_PARAMS, f"resume_from names {min(stray)}, topics does not")
            if resume.boot_id != self._boot_id or not all(
                self._topics.resumable(topic, seq, newest[topic]) for topic, seq in resume.seq.items()
            ):
                raise ResumeLost
        return {
            "boot_id": self._boot_id,
            "topics": sorted(connection.subscribed | set(params.topics)),
            "seq": {topic: newest[topic] for topic in sorted(connection.subscribed | set(params.topics))},
        }

    def catch_up(self, connection: Connection, params: Subscribe, newest: dict[str, int]) -> None:
        """What was missed goes out first, then what comes.  A topic that is subscribed already goes on as it is."""
        if not isinstance(connection.outbox, Outbox):
            return
        for topic in dict.fromkeys(params.topics):
            if topic in connection.subscribed:
                continue
            connection.subscribed.add(topic)
            self._readers[topic].append(connection)
            after = newest[topic]
            if params.resume_from is not None:
                after = params.resume_from.seq.get(topic, after)
            connection.outbox.follow(topic, after)
            ring = self._topics.rings.get(topic)
            if ring is not None and after < newest[topic]:
                connection.resume(ring.after(after))

    def unsubscribe(self, connection: Connection, params: Unsubscribe) -> dict[str, object]:
        for topic in params.topics:
            if topic in connection.subscribed:
                connection.subscribed.discard(topic)
                self._readers[topic].remove(connection)
                if isinstance(connection.outbox, Outbox):
                    connection.outbox.forget(topic)
        return {"boot_id": self._boot_id, "topics": sorted(connection.subscribed)}

    def forget(self, connection: Connection) -> None:
        """It will be told nothing more.  Safe twice."""
        for topic in connection.subscribed:
            if connection in self._readers[topic]:
                self._readers[topic].remove(connection)
