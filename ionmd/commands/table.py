"""Every method of the socket -> its handler, and how a request is executed.

In: a Call on the pipeline thread.  Out: the answer, given to `reply` once the request's journal line is on disk (reads
answer at once).  A refused request changes nothing and is journalled as audit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from ionmd.commands import alarms, case, people, status, stim, tests, threshold
from ionmd.commands.base import Desk, Later
from ionmd.errors import INTERLOCK, IonmdError, Refused
from ionmd.service.backend import Call
from ionmd.service.schema import METHODS

log = structlog.get_logger()
Reply = Callable[[object, Exception | None], None]
Handler = Callable[[Desk, Any, Any], object]

HANDLERS: dict[str, Handler] = {
    "status": status.status,
    "snapshot": status.snapshot,
    "person.sign_in": people.sign_in,
    "person.sign_out": people.sign_out,
    "case.open": case.case_open,
    "case.close": case.case_close,
    "case.list": case.case_list,
    "event.add": people.event_add,
    "episode.add": people.episode_add,
    "episode.list": people.episode_list,
    "test.start": tests.start,
    "test.stop": tests.stop,
    "test.set": tests.set_test,
    "test.list": status.test_list,
    "marker.set": tests.marker_set,
    "marker.clear": tests.marker_clear,
    "reading.reject": tests.reading_reject,
    "derivation.exclude": tests.exclude,
    "derivation.include": tests.include,
    "baseline.set": alarms.baseline_set,
    "baseline.list": alarms.baseline_list,
    "baseline.activate": alarms.baseline_activate,
    "baseline.review": alarms.baseline_review,
    "alarm.list": alarms.alarm_list,
    "alarm.ack": alarms.ack,
    "alarm.pause": alarms.pause,
    "alarm.seen": alarms.seen,
    "message.send": people.message_send,
    "impedance.measure": stim.impedance,
    "threshold.run": threshold.run,
    "stim.acquire": stim.acquire,
    "stim.keepalive": stim.keepalive,
    "stim.release": stim.release,
    "stim.arm": stim.arm,
    "stim.confirm": stim.confirm,
    "stim.fire": stim.fire,
    "stim.reset": stim.reset,
    "stim.status": status.stim_status,
}
# Never in the journal: an arm token or a lease is a key, not a fact of the case.
_SECRET = ("lease", "token")


def execute(desk: Desk, call: Call, reply: Reply) -> None:
    """Run one request now."""
    room = desk.room
    handler = HANDLERS.get(call.method)
    if handler is None:
        reply(None, Refused(f"method {call.method} is not offered", INTERLOCK))
        return
    changes = METHODS[call.method].changes
    sample = room.now
    try:
        answer = handler(desk, call.params, call.caller)
    except IonmdError as error:
        if changes:
            room.bus.journal("audit", _line(desk, call, sample, {"refused": str(error)}))
        reply(None, error)
        return
    except ValueError as error:
        reply(None, Refused(f"{call.method}: {error}", INTERLOCK))
        return
    except Exception as error:  # a fault of ours must not leave somebody waiting for an answer
        log.exception("request_crashed", method=call.method)
        reply(None, IonmdError(f"{call.method} failed inside the daemon ({type(error).__name__}); see its log"))
        return
    if not changes:
        if isinstance(answer, Later):
            answer.then(reply)
        else:
            reply(answer, None)
        return

    asked: dict[str, object] = {}

    def finish(value: object, error: IonmdError | None) -> None:
        if error is not None:
            room.bus.journal("audit", _line(desk, call, sample, {"refused": str(error), **asked}))
            reply(None, error)
            return
        result: dict[str, object] = {"n": 0, "sample": sample, **(value if isinstance(value, dict) else {})}

        def durable(n: int) -> None:
            result["n"] = n
            reply(result, None)

        room.bus.journal("request", _line(desk, call, sample, asked), durable)

    if isinstance(answer, Later):  # the journal has when it was asked and when the device had answered
        asked["asked"] = room.bus.journal("asked", _line(desk, call, sample, {}))
        answer.then(finish)
    else:
        finish(answer, None)


def _line(desk: Desk, call: Call, sample: int, more: dict[str, object]) -> dict[str, object]:
    params = msgspec.to_builtins(call.params)
    for name in _SECRET:
        params.pop(name, None)
    by = getattr(call.params, "by", "")
    try:
        person = desk.person(call.caller, by)
    except Refused:
        person = f"uid {call.caller.uid}"
    return {"method": call.method, "params": params, "person": person, "uid": call.caller.uid, "at": sample, **more}
