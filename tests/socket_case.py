"""One short case in which every method is called and every topic speaks, as lines of the socket.

Virtual time stands while the client talks, so two runs give the same lines but for what `normalised` replaces.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ionmd.service.schema import TOPICS
from tests.daemon_rig import RATE, DaemonRig
from tests.service_rig import Raw

LEFT, RIGHT = "ssep_median_left", "ssep_median_right"
SILENT = "eeg"  # no test of this version publishes it


@dataclass
class Exchange:
    """One request and its reply; `events`: what came while it waited."""

    method: str
    params: dict[str, Any]
    reply: dict[str, Any]


@dataclass
class Case:
    """Everything that was said."""

    hello: dict[str, Any] = field(default_factory=dict)
    description: dict[str, Any] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    layouts: list[dict[str, Any]] = field(default_factory=list)

    def reply(self, method: str) -> dict[str, Any]:
        """The first result of a method."""
        return next(x.reply["result"] for x in self.exchanges if x.method == method and "result" in x.reply)

    def data(self, topic: str) -> list[dict[str, Any]]:
        return [e["params"]["data"] for e in self.events if e["params"]["topic"] == topic]


class Talk:
    """A client that keeps what it hears."""

    def __init__(self, rig: DaemonRig) -> None:
        self.rig, self.case = rig, Case()
        self.wire: Raw = rig.raw()
        self.case.hello = self.wire.hello
        self._id = 0

    def ask(self, method: str, **params: Any) -> None:
        self._id += 1
        request = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        self.wire.send(json.dumps(request).encode() + b"\n")

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The reply to the newest request; events before it are kept."""
        while "id" not in (message := self.wire.line()):
            assert message, "the connection ended before the reply"
            self.case.events.append(message)
        assert message["id"] == self._id
        self.case.exchanges.append(Exchange(method, params, message))
        return message

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.ask(method, **params)
        message = self.answer(method, params)
        assert "result" in message, f"{method}: {message}"
        return message["result"]

    def call_while(self, seconds: float, method: str, **params: Any) -> dict[str, Any]:
        """A request whose answer comes from the device: time must go on for it."""
        self.ask(method, **params)
        self.wire.ask("status", "barrier")  # answered at once, after the request before it has been carried out
        while (message := self.wire.line()).get("id") != "barrier":
            self.case.events.append(message)
        self.rig.seconds(seconds)
        message = self.answer(method, params)
        assert "result" in message, f"{method}: {message}"
        return message["result"]

    def refused(self, method: str, **params: Any) -> dict[str, Any]:
        self.ask(method, **params)
        return self.answer(method, params)["error"]

    def catch_up(self) -> None:
        """Events up to here are heard: a reply comes after them."""
        self.call("status")


def run(state_dir: Path) -> Case:
    with DaemonRig(state_dir) as rig:
        talk = Talk(rig)
        _opening(talk)
        _measuring(talk)
        _judging(talk)
        _by_hand(talk)
        _closing(talk)
        return talk.case


def _opening(talk: Talk) -> None:
    talk.case.description = talk.call("describe")
    assert talk.refused("event.add", kind="step", text="incision")["code"] == 1006
    talk.call("subscribe", topics=list(TOPICS))
    talk.call("person.sign_in", name="Kim", credential="CNIM")
    talk.call("case.list")
    talk.call("case.open", case_id="case-1", montage={"Fpz": 0})
    talk.call("status")
    talk.call_while(1.2, "impedance.measure", electrodes=["Fpz", "CP3"])
    talk.call("event.add", kind="step", text="exposure", by="Kim")
    talk.call("message.send", text="setting up", to="neurologist")


def _measuring(talk: Talk) -> None:
    lease = talk.call("stim.acquire", by="Kim")["lease"]
    talk.call("stim.keepalive", lease=lease)
    for test in (LEFT, RIGHT):
        talk.call("test.set", test=test, rate_hz=5.1, sweeps=30, sub_sweeps=15)
    talk.call("test.start", tests=[LEFT, RIGHT, "emg_free"], lease=lease)
    for kind in ("raw", "filtered", "emg_audio"):
        talk.case.layouts.append(talk.call("stream.open", kind=kind)["layout"])
    talk.rig.to(17 * RATE)
    for test in (LEFT, RIGHT):
        talk.call("baseline.set", test=test, kind="pre-position", reason="two averages agree")
    talk.call("baseline.set", test=LEFT, kind="other", reason="a second one")
    talk.call("baseline.list")
    talk.call("baseline.activate", baseline="B1", reason="the first was better")
    talk.call("baseline.review", baseline="B1", verdict="agree", text="clear N20")


def _judging(talk: Talk) -> None:
    talk.rig.to(26 * RATE)
    alarms = talk.call("alarm.list", all=True)["alarms"]
    change = next(a["id"] for a in alarms if a["kind"] == "physiological")
    talk.call("alarm.seen", id=change)
    talk.call("alarm.ack", id=change, by="Kim", reason="told the surgeon")
    talk.call("alarm.pause", seconds=0.5, reason="surgeon asked for quiet")
    talk.call("episode.add", informed=["surgeon"], words="the right side fell", alarm=change, reply="retractor off")
    talk.call("episode.list")
    readings = talk.call("snapshot")["readings"]
    reading = next(r for r in readings if r["test"] == LEFT and r["markers"])
    marker = reading["markers"][0]
    where = {"test": LEFT, "derivation": reading["derivation"], "label": marker["label"], "reason": "seen by eye"}
    talk.call("marker.set", latency_ms=20.5, **where)
    talk.call("marker.clear", **where)
    talk.call("reading.reject", reading=reading["id"], reason="movement")
    one = {"test": LEFT, "derivation": reading["derivation"], "reason": "electrode under the drape"}
    talk.call("derivation.exclude", **one)
    talk.call("derivation.include", **one)
    talk.call("test.list")


def _by_hand(talk: Talk) -> None:
    lease = next(x.reply["result"]["lease"] for x in talk.case.exchanges if x.method == "stim.acquire")
    talk.call("test.start", tests=["temg_probe"], lease=lease)
    talk.call_while(3.0, "threshold.run", test="temg_probe", lease=lease, start=1.0, stop=3.0, step=1.0)
    armed = talk.call("stim.arm", output="probe", site="C6 screw", amplitude_ma=25.0, width_us=200, lease=lease)
    assert armed["confirm"]
    talk.call("stim.confirm", token=armed["token"], amplitude=25.0)
    talk.call("stim.fire", token=armed["token"])
    talk.call("stim.status")
    talk.rig.to(37 * RATE)
    talk.call("test.stop", tests=["temg_probe"])
    talk.call("stim.reset", reason="output 1 was out of calibration", lease=lease)
    talk.call("stim.release", lease=lease)
    talk.call("stim.off")
    talk.call("test.stop")


def _closing(talk: Talk) -> None:
    talk.call("case.close", reason="end")
    talk.call("person.sign_out", name="Kim")
    talk.call("unsubscribe", topics=["metrics"])
    talk.catch_up()


# ---------------------------------------------------------------- what differs between two runs

VOLATILE = {"boot_id": "BOOT", "t_utc": "UTC", "token": "TOKEN", "lease": "LEASE", "path": "PATH", "server": "ionmd"}


def normalised(value: Any) -> Any:
    """Members of VOLATILE replaced by a word, wherever they are; everything else stays as it was said."""
    if isinstance(value, dict):
        return {k: VOLATILE[k] if k in VOLATILE and isinstance(v, str) else normalised(v) for k, v in value.items()}
    if isinstance(value, list):
        return [normalised(v) for v in value]
    return value


def as_line(value: Any) -> str:
    return json.dumps(normalised(value), ensure_ascii=False, separators=(",", ":"))
