"""What methods answer, as types: the source of `describe` and of docs/socket.md.

The request handlers build these; the socket only encodes them.  Measured things (readings, averages, alarms, baselines,
device status) are those of ionmd/model.py, word for word; what events carry is in ionmd/events.py.
Answers of changes are completed by the journal (`n`): handlers give their part as a dict, so those are TypedDicts.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

import msgspec

from ionmd.model import (
    Alarm,
    BaselineInfo,
    DeviceStatus,
    Electrode,
    Episode,
    Person,
    Reading,
    ThresholdResult,
)
from ionmd.service.schema import METHODS, StreamLayout

# ---------------------------------------------------------------- answers


class Done(TypedDict):
    """A change took effect: journal line `n` is on disk (0: no journal was open), `sample` is when it counts from.
    `id` names what was made or changed: a person, case, event, episode, baseline, message, test, token."""

    n: int
    sample: int
    id: NotRequired[str]
    warnings: NotRequired[list[str]]


class CaseOpened(TypedDict):
    n: int
    sample: int
    case_id: str
    path: str
    resumed: bool


class CaseListed(msgspec.Struct, frozen=True, omit_defaults=True):
    case_id: str
    state: str  # open, closed, interrupted, damaged, unreadable
    opened_utc: str = ""
    closed_utc: str = ""
    template: str = ""
    source: str = ""
    problem: str = ""  # why it is unreadable


class CaseList(msgspec.Struct, frozen=True):
    cases: list[CaseListed]


class EpisodeList(msgspec.Struct, frozen=True):
    episodes: list[Episode]


class DerivationState(msgspec.Struct, frozen=True, omit_defaults=True):
    label: str
    role: str
    monitored: bool
    reason: str = ""  # why not


class TestSettings(msgspec.Struct, frozen=True):
    """The stimulus in force; `rate_hz` is the test's own after interleaving."""

    __test__ = False

    output: str
    amplitude: float
    unit: str
    width_us: int
    polarity: str
    pulses: int
    rate_hz: float


class TestState(msgspec.Struct, frozen=True, omit_defaults=True):
    """`valid_age_s`, the age of the last valid reading, is the headline of a test."""

    test: str
    state: Literal["idle", "running"]
    monitored: bool
    reason: str = ""
    sweeps: int = 0
    rejected: int = 0
    last_valid_sample: int | None = None
    valid_age_s: float | None = None
    derivations: list[DerivationState] = []
    settings: TestSettings | None = None  # None: it does not stimulate
    baseline: str | None = None
    filter_id: str = ""


class TestList(msgspec.Struct, frozen=True):
    tests: list[TestState]


class Baselines(msgspec.Struct, frozen=True):
    baselines: list[BaselineInfo]


class Alarms(msgspec.Struct, frozen=True, omit_defaults=True):
    alarms: list[Alarm]
    paused_until_sample: int | None = None
    pause_reason: str = ""


class ElectrodeImpedance(TypedDict):
    """`ohm` None: open.  `takes_down`: derivations of running tests that use it."""

    input: int
    label: str
    ohm: int | None
    ok: bool
    takes_down: list[str]


class Impedances(TypedDict):
    n: int
    sample: int
    electrodes: list[ElectrodeImpedance]


class ThresholdOutcome(TypedDict):
    """`id` is the test."""

    n: int
    sample: int
    id: str
    result: ThresholdResult


class Lease(TypedDict):
    """Renew with stim.keepalive every 300 ms; it is lost when none came for twice `keepalive_ms`, or with its
    connection."""

    n: int
    sample: int
    lease: str
    keepalive_ms: int


class KeptAlive(TypedDict):
    lease: str
    sample: int


class ArmEcho(TypedDict):
    """`pulses`: [t_us, amplitude in `unit`, width_us, biphasic] of each."""

    output: str
    jack: int
    unit: Literal["uA", "mV"]
    pulses: list[tuple[int, int, int, bool]]


class Armed(TypedDict):
    """`echo` is what the device holds, read back bit for bit; `confirm` true: stim.confirm comes before stim.fire."""

    n: int
    sample: int
    token: str
    expires_sample: int
    echo: ArmEcho
    confirm: bool
    warnings: list[str]


class Fired(TypedDict):
    """The delivery is scheduled; what became of it arrives as a `stim` event with `nonce` == `delivery`."""

    n: int
    sample: int
    delivery: int
    at_sample: int


class Off(msgspec.Struct, frozen=True):
    off: bool


class OutputState(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    kind: str
    site: str
    state: str
    reason: str = ""


class StimStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    state: str  # SAFE, CONFIGURED, ARMED, FIRING, TRIPPED
    outputs: list[OutputState] = []
    lease: str | None = None  # only to connections of its holder's uid
    holder_uid: int | None = None
    holder_person: str = ""
    paused: str = ""  # cautery, overload
    tripped_reason: str = ""


class Recording(msgspec.Struct, frozen=True):
    """How the record is doing.  `journal_lines` were handed in, `journal_pending` of them are not on disk yet."""

    case_id: str | None
    journal_lines: int
    journal_pending: int
    backlog_s: float
    backlog_permille: int
    shed_samples: int
    raw_bytes: int
    sync_last_ms: float
    sync_max_ms: float
    journal_sync_last_ms: float
    journal_sync_max_ms: float
    suspect_segments: int
    troubles: list[str]


class Pause(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something is paused; `until_sample` absent: until its cause is over."""

    what: str
    cause: str
    until_sample: int | None = None


class DaemonStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One page.  `committed`: journal lines of the open case that are on disk."""

    server: str
    source: str
    case_id: str | None
    sample: int
    rate_hz: float
    device: DeviceStatus
    stim: StimStatus
    tests: list[TestState]
    alarms: list[Alarm] = []
    persons: list[Person] = []
    step: str = ""
    recording: Recording | None = None
    committed: int = 0
    paused: list[Pause] = []  # everything that mutes or pauses, with cause and time limit
    speed: str = "1"


class StatusPage(DaemonStatus, frozen=True, kw_only=True, omit_defaults=True):
    """As it is answered: the socket puts boot_id and the newest seq of each topic in front."""

    boot_id: str
    seq: dict[str, int]


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything a late client needs."""

    status: DaemonStatus
    electrodes: list[Electrode] = []
    readings: list[Reading] = []  # the latest of each derivation
    baselines: list[BaselineInfo] = []
    episodes: list[Episode] = []


class SnapshotPage(Snapshot, frozen=True, kw_only=True, omit_defaults=True):
    """As it is answered: the state that events of a seq greater than `seq` change."""

    boot_id: str
    seq: dict[str, int]


class ResumeLost(msgspec.Struct, frozen=True):
    """`data` of error -32001.  `oldest`: the smallest seq per topic that can be resumed from."""

    boot_id: str
    seq: dict[str, int]
    oldest: dict[str, int]
    snapshot: Snapshot | None


class StreamOpened(msgspec.Struct, frozen=True):
    token: str
    expires_s: float
    layout: StreamLayout


class Subscribed(msgspec.Struct, frozen=True):
    """`topics`: all that this connection has now; `seq`: their newest, from which on it sees everything."""

    boot_id: str
    topics: list[str]
    seq: dict[str, int]


class Unsubscribed(msgspec.Struct, frozen=True):
    boot_id: str
    topics: list[str]


class MethodDescription(msgspec.Struct, frozen=True):
    doc: str
    roles: list[str]  # any one of them is enough; none: everybody's
    changes: bool
    params: dict[str, Any]
    result: dict[str, Any]


class TopicDescription(msgspec.Struct, frozen=True):
    doc: str
    lossless: bool
    data: dict[str, Any]


class Description(msgspec.Struct, frozen=True, rename={"defs": "$defs"}):
    """JSON Schema (2020-12) of everything; references point into `$defs`."""

    protocol: tuple[int, int]
    methods: dict[str, MethodDescription]
    topics: dict[str, TopicDescription]
    hello: dict[str, Any]
    event: dict[str, Any]
    goodbye: dict[str, Any]
    error: dict[str, Any]
    resume_lost: dict[str, Any]
    stream_layout: dict[str, Any]
    defs: dict[str, Any]


RESULTS: dict[str, Any] = dict.fromkeys(METHODS, Done) | {
    "describe": Description,
    "status": StatusPage,
    "snapshot": SnapshotPage,
    "subscribe": Subscribed,
    "unsubscribe": Unsubscribed,
    "stream.open": StreamOpened,
    "case.open": CaseOpened,
    "case.list": CaseList,
    "episode.list": EpisodeList,
    "test.list": TestList,
    "baseline.list": Baselines,
    "alarm.list": Alarms,
    "impedance.measure": Impedances,
    "threshold.run": ThresholdOutcome,
    "stim.acquire": Lease,
    "stim.keepalive": KeptAlive,
    "stim.arm": Armed,
    "stim.fire": Fired,
    "stim.off": Off,
    "stim.status": StimStatus,
}
