"""What may be asked on the socket: one type per method's params, and the table of methods.

In: decoded JSON objects.  Out: checked structs.  Always: unknown keys, wrong types, booleans as numbers and
values outside their range are refused here, before anything clinical sees them; the same types give `describe`
its JSON Schema, so the published contract cannot drift from what is enforced.  Body-related limits (mA, V,
charge) are not here: they are checked in stim/limits.py and again by the firmware.
Imports nothing that needs numpy: the client loads this module on every command of the command line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

PROTOCOL = (1, 0)
MAX_LINE = 64 * 1024  # bytes of one request line, newline included
MAX_DEPTH = 16

Role = Literal["view", "operate", "stim", "oversee", "admin"]
Topic = Literal[
    "device", "stim", "sweep", "average", "reading", "alarm", "case", "emg", "eeg", "quality", "message", "metrics"
]
TOPICS: tuple[str, ...] = get_args(Topic)
LOSSLESS: frozenset[str] = frozenset({"alarm", "device", "case", "stim", "message"})  # never dropped, resumable

# No control characters in names: they reach logs, file names and terminals.
_PRINTABLE = r"^[^\x00-\x1f\x7f]*\Z"
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=_PRINTABLE)]
Short = Annotated[str, Meta(max_length=256, pattern=_PRINTABLE)]
Reason = Annotated[str, Meta(min_length=1, max_length=1024, pattern=_PRINTABLE)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Sample = Annotated[int, Meta(ge=0)]  # the parser holds integers to 64 bits
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Names = Annotated[list[Name], Meta(max_length=256)]
SomeNames = Annotated[list[Name], Meta(min_length=1, max_length=256)]
Polarity = Literal["monophasic", "biphasic", "anodal", "cathodal", "alternating"]
EventKind = Literal[
    "position", "step", "anaesthesia", "physiology", "relaxant", "clamp", "irrigation", "technical", "comment"
]
BaselineKind = Literal["pre-position", "post-position", "post-opening", "re-baseline", "other"]
Function = Literal["technologist", "physician", "surgeon", "anaesthesia", "observer"]


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Params of a method that changes nothing."""


class Change(Params, frozen=True, kw_only=True):
    """Params of a method that changes something: `at_sample` says when, `by` who (a person signed in)."""

    at_sample: Sample | None = None
    by: Short = ""


# ---------------------------------------------------------------- the daemon itself


class Empty(Params, frozen=True):
    pass


class ResumeFrom(Params, frozen=True):
    """The last event of each topic that the client has seen."""

    boot_id: Name
    seq: dict[Topic, Sample]


class Subscribe(Params, frozen=True):
    topics: Annotated[list[Topic], Meta(min_length=1, max_length=64)]
    resume_from: ResumeFrom | None = None


class Unsubscribe(Params, frozen=True):
    topics: Annotated[list[Topic], Meta(min_length=1, max_length=64)]


class StreamOpen(Params, frozen=True):
    """`channels`: raw: labels of inputs or electrodes; filtered: derivations of running tests, `test/derivation` where
    two tests have one of that name; emg_audio: muscle derivations of the case.  Empty: all."""

    kind: Literal["raw", "filtered", "emg_audio"]
    channels: Names = []


# ---------------------------------------------------------------- persons, case, notes


class SignIn(Change, frozen=True):
    name: Name
    credential: Short = ""
    function: Function = "technologist"


class SignOut(Change, frozen=True):
    name: Name


class CaseOpen(Change, frozen=True):
    """`resume` opens an existing case again; otherwise a new one is made, with `case_id` if given."""

    case_id: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")] | None = None
    template: Name | None = None
    resume: bool = False
    montage: dict[Name, Annotated[int, Meta(ge=0, le=1023)]] | None = None  # electrode label -> input

    def __post_init__(self) -> None:
        if self.resume and self.case_id is None:
            raise ValueError("resume needs the case_id of the case to open again")


class CaseClose(Change, frozen=True):
    reason: Short = ""


class EventAdd(Change, frozen=True):
    kind: EventKind
    text: Text


class EpisodeAdd(Change, frozen=True):
    """One entry: `episode` continues one, `alarm` opens one for that change."""

    informed: SomeNames
    words: Text
    episode: Name | None = None
    alarm: Name | None = None
    reply: Annotated[str, Meta(max_length=4096)] = ""
    action: Annotated[str, Meta(max_length=4096)] = ""
    outcome: Literal["improved", "unchanged", "resolved", "at closing", ""] = ""


# ---------------------------------------------------------------- tests and their results


class TestStart(Change, frozen=True):
    tests: SomeNames
    lease: Name | None = None


class TestStop(Change, frozen=True):
    tests: Names = []  # empty: all


class TestSet(Change, frozen=True):
    """Settings that may change while a test is defined; only the given ones change."""

    test: Name
    lease: Name | None = None
    amplitude_ma: Positive | None = None
    amplitude_v: Positive | None = None
    width_us: Count | None = None
    polarity: Polarity | None = None
    pulses: Count | None = None
    interval_ms: Positive | None = None
    rate_hz: Positive | None = None
    sweeps: Count | None = None
    sub_sweeps: Count | None = None
    reject_uv: Positive | None = None

    def __post_init__(self) -> None:
        if self.amplitude_ma is not None and self.amplitude_v is not None:
            raise ValueError("amplitude_ma and amplitude_v came together; a test has one of them")


class MarkerSet(Change, frozen=True):
    """A manual marker; without `reading` the latest reading of the derivation."""

    test: Name
    derivation: Name
    label: Name
    latency_ms: float
    reason: Reason
    amplitude_uv: float | None = None
    reading: Name | None = None


class MarkerClear(Change, frozen=True):
    """Back to the automatic marker."""

    test: Name
    derivation: Name
    label: Name
    reason: Reason
    reading: Name | None = None


class ReadingReject(Change, frozen=True):
    reading: Name
    reason: Reason


class DerivationChange(Change, frozen=True):
    test: Name
    derivation: Name
    reason: Reason


class BaselineSet(Change, frozen=True):
    """`averages`: ids of the averages to use; empty: the latest two."""

    test: Name
    kind: BaselineKind
    reason: Reason
    averages: Names = []


class BaselineList(Params, frozen=True):
    test: Name | None = None


class BaselineActivate(Change, frozen=True):
    baseline: Name
    reason: Reason


class BaselineReview(Change, frozen=True):
    baseline: Name
    verdict: Literal["agree", "disagree", "comment"]
    text: Annotated[str, Meta(max_length=4096)] = ""


# ---------------------------------------------------------------- alarms and messages


class AlarmList(Params, frozen=True):
    all: bool = False  # closed ones too


class AlarmAck(Change, frozen=True, kw_only=True):
    id: Name
    by: Name
    reason: Short = ""


class AlarmPause(Change, frozen=True):
    seconds: Annotated[float, Meta(gt=0, le=120)]
    reason: Reason


class AlarmSeen(Change, frozen=True):
    """`seen` is not `acknowledged`: it says that a supervising person has the alarm on the screen."""

    id: Name


class MessageSend(Change, frozen=True):
    text: Text
    to: Short = ""


# ---------------------------------------------------------------- the body


class ImpedanceMeasure(Change, frozen=True):
    """One of `inputs` (columns) and `electrodes` (labels); neither: all connected electrodes."""

    inputs: Annotated[list[Annotated[int, Meta(ge=0, le=1023)]], Meta(max_length=1024)] = []
    electrodes: Names = []

    def __post_init__(self) -> None:
        if self.inputs and self.electrodes:
            raise ValueError("inputs and electrodes came together; give one of them")


class ThresholdRun(Change, frozen=True):
    """`start`, `stop`, `step` in the unit of the test's output; absent: the test's own."""

    test: Name
    lease: Name
    start: Positive | None = None
    stop: Positive | None = None
    step: Positive | None = None


class StimAcquire(Change, frozen=True):
    """`take` hands the lease over from another holder without stopping what runs."""

    take: bool = False


class StimLease(Params, frozen=True):
    lease: Name


class StimRelease(Change, frozen=True):
    lease: Name


class StimArm(Change, frozen=True):
    """One delivery, completely; every value is echoed by the device before a token comes back."""

    output: Name
    site: Name
    lease: Name
    width_us: Count
    amplitude_ma: Positive | None = None
    amplitude_v: Positive | None = None
    polarity: Polarity = "monophasic"
    count: Count = 1  # pulses of one delivery
    interval_ms: Positive | None = None  # between the pulses of one delivery
    rate_hz: Positive | None = None  # deliveries per second; absent: one

    def __post_init__(self) -> None:
        if (self.amplitude_ma is None) == (self.amplitude_v is None):
            raise ValueError("exactly one of amplitude_ma and amplitude_v was expected")
        if self.count > 1 and self.interval_ms is None:
            raise ValueError(f"count {self.count} came without interval_ms; a train needs its interstimulus interval")


class StimConfirm(Change, frozen=True):
    """The amplitude once more, after a large step: the same number in the same unit as armed."""

    token: Name
    amplitude: Positive


class StimFire(Change, frozen=True):
    token: Name


class StimReset(Change, frozen=True):
    reason: Reason
    lease: Name


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class Method:
    """`roles`: any one of them is enough; empty: everybody who is connected.  `changes`: the reply waits for
    the journal line on disk.  `local`: answered by the socket itself, never by the pipeline."""

    params: type[Params]
    roles: frozenset[str]
    changes: bool
    doc: str
    local: bool = False


_VIEW = frozenset({"view"})
_OPERATE = frozenset({"operate"})
_STIM = frozenset({"stim"})
_ROOM_OR_REMOTE = frozenset({"operate", "oversee"})

METHODS: dict[str, Method] = {
    "describe": Method(Empty, _VIEW, False, "JSON Schema of every method and topic", local=True),
    "status": Method(Empty, _VIEW, False, "device, case, tests, stimulator and alarms in one page"),
    "snapshot": Method(Empty, _VIEW, False, "everything a late client needs, with the seq it belongs to"),
    "subscribe": Method(Subscribe, _VIEW, False, "start events of these topics", local=True),
    "unsubscribe": Method(Unsubscribe, _VIEW, False, "stop events of these topics", local=True),
    "stream.open": Method(StreamOpen, _VIEW, False, "a token for a binary connection of samples", local=True),
    "person.sign_in": Method(SignIn, _ROOM_OR_REMOTE, True, "a person begins to attend"),
    "person.sign_out": Method(SignOut, _ROOM_OR_REMOTE, True, "a person stops attending"),
    "case.open": Method(CaseOpen, _OPERATE, True, "make a case, or resume one"),
    "case.close": Method(CaseClose, _OPERATE, True, "close the case: disarm, finish files, write the manifest"),
    "case.list": Method(Empty, _VIEW, False, "cases in the state directory"),
    "event.add": Method(EventAdd, _OPERATE, True, "a surgical, anaesthetic or technical event"),
    "episode.add": Method(EpisodeAdd, _OPERATE, True, "who was told of a change, their reply, action and outcome"),
    "episode.list": Method(Empty, _VIEW, False, "episodes of the case"),
    "test.start": Method(TestStart, _OPERATE, True, "run tests; those that stimulate need the lease"),
    "test.stop": Method(TestStop, _OPERATE, True, "stop tests"),
    "test.set": Method(TestSet, _OPERATE, True, "change settings of a test"),
    "test.list": Method(Empty, _VIEW, False, "tests of the case with their state"),
    "marker.set": Method(MarkerSet, _OPERATE, True, "correct a marker by hand"),
    "marker.clear": Method(MarkerClear, _OPERATE, True, "return to the automatic marker"),
    "reading.reject": Method(ReadingReject, _OPERATE, True, "take a reading out of the comparison"),
    "derivation.exclude": Method(DerivationChange, _OPERATE, True, "stop judging a derivation: not monitored"),
    "derivation.include": Method(DerivationChange, _OPERATE, True, "judge a derivation again"),
    "baseline.set": Method(BaselineSet, _OPERATE, True, "accept a baseline"),
    "baseline.list": Method(BaselineList, _VIEW, False, "baselines of the case"),
    "baseline.activate": Method(BaselineActivate, _OPERATE, True, "compare against another kept baseline"),
    "baseline.review": Method(BaselineReview, _ROOM_OR_REMOTE, True, "a physician's view of a baseline"),
    "alarm.list": Method(AlarmList, _VIEW, False, "open alarms"),
    "alarm.ack": Method(AlarmAck, _OPERATE, True, "acknowledge for the room"),
    "alarm.pause": Method(AlarmPause, _OPERATE, True, "pause sounding for a limited time"),
    "alarm.seen": Method(AlarmSeen, _ROOM_OR_REMOTE, True, "note that a supervising person sees it"),
    "message.send": Method(MessageSend, _ROOM_OR_REMOTE, True, "a line of text to the others"),
    "impedance.measure": Method(ImpedanceMeasure, _OPERATE, True, "measure electrode impedances"),
    "threshold.run": Method(ThresholdRun, _STIM, True, "search a stimulation threshold"),
    "stim.acquire": Method(StimAcquire, _STIM, True, "take the stimulation lease"),
    "stim.keepalive": Method(StimLease, _STIM, False, "keep the lease; once a second is too rare, send every 300 ms"),
    "stim.release": Method(StimRelease, _STIM, True, "give the lease back; stimulation stops"),
    "stim.arm": Method(StimArm, _STIM, True, "load one delivery into the device and get its token"),
    "stim.confirm": Method(StimConfirm, _STIM, True, "repeat the amplitude of a large step"),
    "stim.fire": Method(StimFire, _STIM, True, "deliver what the token holds"),
    "stim.off": Method(Empty, frozenset(), True, "all outputs off, at once; everybody's", local=True),
    "stim.reset": Method(StimReset, _STIM, True, "leave the latched safe state after its cause is known"),
    "stim.status": Method(Empty, _VIEW, False, "state of the stimulator, outputs and lease"),
}


# ---------------------------------------------------------------- what the server says


class Hello(msgspec.Struct, frozen=True):
    """The first line on every connection.  `rights` explains roles that did not come from groups."""

    protocol: tuple[int, int]
    server: str
    boot_id: str
    source: str
    case_id: str | None
    device: dict[str, str]
    roles: list[str]
    rights: str = ""


class Event(msgspec.Struct, frozen=True):
    """`skipped`: events of this topic passed over before this one, so seq == last seq + 1 + skipped."""

    topic: str
    seq: int
    n: int | None
    boot_id: str
    sample: int
    t_utc: str
    data: Any
    skipped: int = 0


class Goodbye(msgspec.Struct, frozen=True):
    """`params` of the last line on a connection that the server ends."""

    reason: str


class ErrorBody(msgspec.Struct, frozen=True):
    """`error` of a refused request; `data` by code: docs/socket.md."""

    code: int
    message: str
    data: dict[str, Any] = {}


class StreamLayout(msgspec.Struct, frozen=True):
    """The last line of text on a sample connection; binary frames of docs/socket.md follow."""

    kind: str
    rate_hz: float
    names: list[str]
    unit: str
    dtype: str  # "<i4" raw counts, "<f4" uV
    lsb_uv: list[float]  # uV of one count, by channel; empty for float samples
    boot_id: str = ""
    step: int = 1  # case samples from one row to the next
    filter: str = ""  # what was done to float samples, in words


def method_doc_lines() -> list[str]:
    """`name (roles)  doc`, for the command line's help."""
    return [f"{name} ({' | '.join(sorted(m.roles)) or 'everybody'})  {m.doc}" for name, m in METHODS.items()]


def is_printable(text: str) -> bool:
    return re.match(_PRINTABLE, text) is not None
