"""What methods answer and what events carry, as types: the source of `describe` and of docs/socket.md.

The pipeline builds these; the socket only encodes them.  Measured things (readings, averages, alarms, baselines,
device status) are those of ionmd/model.py, word for word.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ionmd.model import (
    Alarm,
    BaselineInfo,
    Curve,
    DeviceStatus,
    Electrode,
    Person,
    Reading,
    StimulusSummary,
    ThresholdResult,
)
from ionmd.service.schema import METHODS, StreamLayout

# ---------------------------------------------------------------- answers


class Done(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change took effect: journal line `n` is on disk, `sample` is when it counts from.  `id` names what was
    made: a case, event, episode, baseline, message."""

    n: int
    sample: int
    id: str | None = None
    warnings: list[str] = []


class CaseOpened(msgspec.Struct, frozen=True, omit_defaults=True):
    n: int
    sample: int
    case_id: str
    path: str
    resumed: bool = False


class CaseListed(msgspec.Struct, frozen=True, omit_defaults=True):
    case_id: str
    state: str  # open, closed, unfinished
    opened_utc: str = ""
    closed_utc: str = ""
    template: str = ""
    source: str = ""


class CaseList(msgspec.Struct, frozen=True):
    cases: list[CaseListed]


class EpisodeEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    sample: int
    person: str
    informed: list[str]
    words: str
    reply: str = ""
    action: str = ""
    outcome: str = ""


class Episode(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    opened_sample: int
    entries: list[EpisodeEntry]
    alarm: str | None = None
    outcome: str = ""


class EpisodeList(msgspec.Struct, frozen=True):
    episodes: list[Episode]


class DerivationState(msgspec.Struct, frozen=True, omit_defaults=True):
    label: str
    role: str
    monitored: bool
    reason: str = ""  # why not


class TestState(msgspec.Struct, frozen=True, omit_defaults=True):
    """`valid_age_s`, the age of the last valid reading, is the headline of a test."""

    test: str
    state: str  # idle, running, paused, stopped
    monitored: bool
    reason: str = ""
    sweeps: int = 0
    rejected: int = 0
    last_valid_sample: int | None = None
    valid_age_s: float | None = None
    derivations: list[DerivationState] = []
    settings: dict[str, Any] = {}
    baseline: str | None = None
    filter_id: str = ""


class TestList(msgspec.Struct, frozen=True):
    tests: list[TestState]


class BaselineList(msgspec.Struct, frozen=True):
    baselines: list[BaselineInfo]


class AlarmList(msgspec.Struct, frozen=True, omit_defaults=True):
    alarms: list[Alarm]
    paused_until_sample: int | None = None
    pause_reason: str = ""


class ElectrodeImpedance(msgspec.Struct, frozen=True, omit_defaults=True):
    input: int
    label: str
    ohm: float | None
    ok: bool
    takes_down: list[str] = []  # derivations that use it


class Impedances(msgspec.Struct, frozen=True):
    n: int
    sample: int
    electrodes: list[ElectrodeImpedance]


class Lease(msgspec.Struct, frozen=True):
    """Renew with stim.keepalive; it is lost after `keepalive_ms` without one, or with its connection."""

    n: int
    sample: int
    lease: str
    keepalive_ms: int


class KeptAlive(msgspec.Struct, frozen=True):
    lease: str
    sample: int


class Armed(msgspec.Struct, frozen=True, omit_defaults=True):
    """`echo` is what the device holds, read back bit for bit; `confirm` true: stim.confirm comes before stim.fire."""

    n: int
    sample: int
    token: str
    expires_sample: int
    echo: dict[str, Any]
    confirm: bool = False
    warnings: list[str] = []


class Fired(msgspec.Struct, frozen=True):
    """The delivery is scheduled; its pulses arrive as `stim` events."""

    n: int
    sample: int
    delivery: str
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


class DaemonStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """`boot_id` and `seq` are put in front by the socket."""

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
    recording: dict[str, Any] = {}
    committed: int = 0
    paused: list[dict[str, Any]] = []  # everything that mutes or pauses, with cause and time limit
    speed: str = "1"


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state that events of a seq greater than `seq` change."""

    status: DaemonStatus
    electrodes: list[Electrode] = []
    readings: list[Reading] = []  # the latest of each derivation
    baselines: list[BaselineInfo] = []
    episodes: list[Episode] = []


class StreamOpened(msgspec.Struct, frozen=True):
    token: str
    expires_s: float
    layout: StreamLayout


class Subscribed(msgspec.Struct, frozen=True, omit_defaults=True):
    boot_id: str
    topics: list[str]
    seq: dict[str, int] = {}


class Description(msgspec.Struct, frozen=True):
    protocol: tuple[int, int]
    methods: dict[str, Any]
    topics: dict[str, Any]


RESULTS: dict[str, type[msgspec.Struct]] = dict.fromkeys(METHODS, Done) | {
    "describe": Description,
    "status": DaemonStatus,
    "snapshot": Snapshot,
    "subscribe": Subscribed,
    "unsubscribe": Subscribed,
    "stream.open": StreamOpened,
    "case.open": CaseOpened,
    "case.list": CaseList,
    "episode.list": EpisodeList,
    "test.list": TestList,
    "baseline.list": BaselineList,
    "alarm.list": AlarmList,
    "impedance.measure": Impedances,
    "threshold.run": ThresholdResult,
    "stim.acquire": Lease,
    "stim.keepalive": KeptAlive,
    "stim.arm": Armed,
    "stim.fire": Fired,
    "stim.off": Off,
    "stim.status": StimStatus,
}

# ---------------------------------------------------------------- events that are not a type of model.py


class PulseReport(msgspec.Struct, frozen=True, omit_defaults=True):
    sample: int
    delivered_ma: float | None = None
    delivered_v: float | None = None
    ok: bool = True
    no_contact: bool = False


class StimEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """`kind`: lease, about_to_fire, delivery, state, off, paused, resumed, tripped, reset."""

    kind: str
    state: str
    output: str = ""
    site: str = ""
    test: str = ""
    delivery: str = ""
    at_sample: int | None = None
    stimulus: StimulusSummary | None = None
    pulses: list[PulseReport] = []
    person: str = ""
    reason: str = ""


class SweepEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One sweep that was cut, accepted or not; key: the test."""

    test: str
    sample: int
    index: int
    accepted: bool
    sweeps: int
    rejected: int
    reason: str = ""
    derivations: list[str] = []
    curve: Curve | None = None


class CaseEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Either `committed` alone, or `kind`: opened, closed, resumed, session, person, event, episode, test,
    baseline, marker, derivation, request."""

    kind: str = ""
    committed: int | None = None
    case_id: str | None = None
    person: str = ""
    text: str = ""
    data: dict[str, Any] = {}


class EmgChannel(msgspec.Struct, frozen=True, omit_defaults=True):
    derivation: str
    rms_uv: float | None  # None while muted
    peak_uv: float | None = None
    bursts: int = 0
    state: str = "quiet"  # quiet, burst, train, muted
    outliers: int = 0


class EmgBurst(msgspec.Struct, frozen=True, omit_defaults=True):
    derivation: str
    start_sample: int
    stop_sample: int | None  # None: it lasts
    peak_uv: float
    rms_uv: float


class EmgEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Once a second `window_ms`, `held_ms` (stimuli of other tests) and `channels`; or a `burst` that began or ended;
    or a change of `muted` with its `cause`."""

    test: str
    sample: int | None = None
    window_ms: float | None = None
    held_ms: float = 0.0
    channels: list[EmgChannel] = []
    muted: bool = False
    cause: str = ""
    burst: EmgBurst | None = None


class EegChannel(msgspec.Struct, frozen=True, omit_defaults=True):
    derivation: str
    power_uv2: dict[str, float] = {}
    sef95_hz: float | None = None
    suppression: float | None = None


class EegEvent(msgspec.Struct, frozen=True):
    test: str
    window_ms: float
    channels: list[EegChannel]


class InputQuality(msgspec.Struct, frozen=True, omit_defaults=True):
    input: int
    label: str
    state: str  # good, noisy, clipped, flat, off
    rms_uv: float | None = None
    mains_uv: float | None = None
    impedance_kohm: float | None = None


class QualityEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    inputs: list[InputQuality]
    cautery: bool = False
    overload: bool = False


class MessageEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    text: str
    person: str
    uid: int
    to: str = ""


class MetricsEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    rate_hz: float
    lag_ms: float
    ring_permille: int = 0
    cpu_permille: int = 0
    rss_kib: int = 0
    recorder_backlog_bytes: int = 0
    subscribers: int = 0
    lost_samples: int = 0
    stages: dict[str, int] = {}
