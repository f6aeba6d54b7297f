"""What an event says: the data of each topic and of its journal line, beside the results of model.py.

Plain dicts with fixed members, so that emitting one costs the dict and nothing else; mypy holds the emitter to its
type, and `describe` publishes the same types.  Names are public JSON keys.  `at_sample`, `sample` and everything else
that counts samples is of the case.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

import msgspec

from ionmd.model import (
    Attendance,
    BaselineInfo,
    Curve,
    Episode,
    RoomEvent,
    ThresholdResult,
)
from ionmd.testdef import Stimulus

# ---------------------------------------------------------------- device (and DeviceStatus of model.py)


class AuxChanged(TypedDict):
    """An auxiliary line of the device changed: cautery, foot switch, probe button, external trigger, stop button."""

    aux: str
    level: int
    at_sample: int


class GapInfo(TypedDict):
    """`exact`: the device kept its counter; else `samples` is an estimate."""

    first_sample: int
    samples: int
    exact: bool
    cause: Literal["overflow", "session", "lost"]


class GapFound(TypedDict):
    """Samples that will never come."""

    gap: GapInfo


# ---------------------------------------------------------------- stim


class LeaseGiven(TypedDict):
    """`taken`: from another holder, without a stop."""

    state: Literal["lease"]
    holder: str
    taken: bool


class DeliveryArmed(TypedDict):
    """One delivery is loaded and armed by a person; `amplitude` in `unit`."""

    state: Literal["armed"]
    output: str
    site: str
    amplitude: float
    unit: str
    person: str


class AboutToFire(TypedDict):
    """A delivery of a test that announces itself: the surgeon's hands are off by then."""

    state: Literal["about to fire"]
    test: str
    at_sample: int
    in_ms: int


class DeliveryDone(TypedDict):
    """A delivery on demand came back (those of a continuous test are in its sweeps and averages).

    `pulses`: [sample, set, delivered, width_us, polarity, ok, no_contact] of each, in mA or V as `volts` says;
    `refused`: reason code of docs/wire/ionm1.md, 0 when it was delivered; `output` is the jack."""

    state: NotRequired[Literal["delivery"]]
    nonce: int
    test: str
    output: int
    ok: bool
    no_contact: bool
    refused: int
    zero_sample: int | None
    volts: bool
    zero_at: int
    pulses: list[tuple[int, float, float, int, int, int, int]]


class ProbeContact(TypedDict):
    """A hand-held probe found tissue, or lost it: a state, never an alarm."""

    state: Literal["contact", "no contact"]
    output: str
    test: str


class NotDelivered(TypedDict):
    """A delivery of a hand-held probe that the device refused, or that left no mark: no answer, and no alarm.  Also a
    repeating delivery by hand that could not go on; it is disarmed."""

    state: Literal["not delivered"]
    test: str
    reason: str


class RepeatWanted(TypedDict):
    """A train shows a possible change: the next one, at once, confirms or clears the alarm."""

    state: Literal["repeat wanted"]
    test: str
    alarm: str


class StimOff(TypedDict):
    """Everything is off and disarmed; `tests` stimulated and are not monitored now."""

    state: Literal["off"]
    reason: str
    tests: list[str]


class StimStateChanged(TypedDict):
    """The device's stimulator changed state; `code` is its reason code (docs/wire/ionm1.md), `reason` the words."""

    state: Literal["SAFE", "CONFIGURED", "ARMED", "FIRING", "TRIPPED"]
    code: int
    reason: str
    at_sample: int


# ---------------------------------------------------------------- sweep, reading (and Reading of model.py)


class SweepSeen(TypedDict):
    """One sweep was cut, or its stimulus failed.  `sample` is its time zero; `sweeps` and `rejected` count the
    sub-average under way (a test of single sweeps: since it began); `derivations` took it; none: `reason` says why."""

    test: str
    sample: int
    accepted: bool
    sweeps: int
    rejected: int
    derivations: list[str]
    reason: NotRequired[str]


class ThresholdFound(TypedDict):
    """A threshold search is over."""

    threshold: ThresholdResult


# ---------------------------------------------------------------- case


class Committed(TypedDict):
    """Journal lines up to this one are on disk."""

    committed: int


class CaseChanged(TypedDict):
    """`running`: opened; `closing`: closed, with the alarms that were still open."""

    state: Literal["running", "closing"]
    case_id: str
    template: NotRequired[str]
    resumed: NotRequired[bool]
    reason: NotRequired[str]
    open_alarms: NotRequired[list[str]]


class Attended(TypedDict):
    """A person began or ended attending."""

    attendance: Attendance


class Noted(TypedDict):
    """A surgical, anaesthetic or technical event was written down."""

    event: RoomEvent


class Told(TypedDict):
    """An episode was opened or got an entry."""

    episode: Episode


class BaselineAccepted(TypedDict):
    baseline: BaselineInfo


class ActiveBaseline(TypedDict):
    active: str
    test: str
    reason: str
    person: str


class BaselineActivated(TypedDict):
    baseline: ActiveBaseline


class Review(TypedDict):
    baseline: str
    verdict: str
    text: str
    person: str


class BaselineReviewed(TypedDict):
    review: Review


class AlarmOnScreen(TypedDict):
    """A supervising person has this alarm on the screen."""

    seen: str
    person: str


class PauseInfo(TypedDict):
    until_sample: int
    reason: str
    person: str


class AlarmsPaused(TypedDict):
    """Sounding is paused until a sample; None: the pause is over."""

    pause: PauseInfo | None


class TestInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A test of the case with its settings; `missing`: derivations without their electrode, and why."""

    __test__ = False

    test: str
    modality: str
    side: str
    title: str
    running: bool
    derivations: list[str]
    missing: dict[str, str] = {}
    stimulus: Stimulus | None = None
    output: str = ""
    own_rate_hz: float | None = None
    averages: int = 0
    rejected: dict[str, int] = {}
    age_s: float | None = None
    baseline: str = ""
    excluded: list[str] = []


class TestChanged(TypedDict):
    test: TestInfo
    state: Literal["running", "stopped", "changed"]


# ---------------------------------------------------------------- emg, eeg


class EmgBurst(TypedDict):
    """`stop_sample` None: it lasts."""

    derivation: str
    start_sample: int
    stop_sample: int | None
    peak_uv: float
    rms_uv: float


class BurstSeen(TypedDict):
    test: str
    burst: EmgBurst


class Muscle(TypedDict):
    """One second of one muscle; sizes are None while muted; `bursts` began in it; `outliers`: single samples taken out
    since the test began."""

    derivation: str
    rms_uv: float | None
    peak_uv: float | None
    active: bool
    bursts: int
    outliers: int


class EmgSecond(TypedDict):
    """Once a second of samples; `held_ms` of it were stimuli and the muscles' answers to them, and count as nothing.
    `muted`: nothing was heard; `cause` says why (cautery, or stimuli all the time)."""

    test: str
    sample: int
    held_ms: float
    muscles: list[Muscle]
    muted: bool
    cause: str


class EmgMuted(TypedDict):
    """EMG is muted from `sample` on, or heard again."""

    test: str
    sample: int
    muted: bool
    cause: str


class EegBand(TypedDict):
    derivation: str
    power_uv2: dict[str, float]
    sef95_hz: float | None
    suppression: float | None


class EegEpoch(TypedDict):
    """Reserved: no test of this version publishes it."""

    test: str
    sample: int
    window_ms: float
    channels: list[EegBand]
    curve: NotRequired[Curve]


# ---------------------------------------------------------------- quality, message, metrics


class ImpedanceFound(TypedDict):
    """`impedance_kohm` None: open."""

    electrode: str
    input: int
    impedance_kohm: float | None


class MonitoringChanged(TypedDict):
    """A derivation became monitored, or not: why (the most blocking reason), and all reasons."""

    test: str
    derivation: str
    monitored: bool
    why: str
    reasons: list[str]


class Message(TypedDict):
    """`to` is as the sender wrote it; everybody hears it."""

    id: str
    text: str
    to: str
    person: str


class Metrics(TypedDict):
    """Once a second of samples.  `cpu_permille` of one core since the last one; `speed` is device seconds per second
    of the host; `recorder_backlog_s` waits for the disk; `subscribers` are connections."""

    rate_hz: float
    speed: float
    cpu_permille: int
    rss_kib: int
    fifo_permille: int
    lost_samples: int
    recorder_backlog_s: float
    journal_pending: int
    subscribers: int
    stream_dropped_samples: int
