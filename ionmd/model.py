"""What travels through the house: blocks of samples up, deliveries down, readings and alarms out.

Results are msgspec structs: their field names are the public JSON keys of docs/socket.md and of the
journal.  `sample` is always the case's sample index (u64), never wall time.  A Block is the one thing
that moves at sample rate; it is preallocated and reused, and nothing may keep a view of it.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from ionmd import aligned

Side = Literal["left", "right", "midline", "none"]
Role = Literal["alert", "peripheral control", "systemic control"]
Status = Literal["present", "absent", "uncertain"]
Source = Literal["device", "simulated", "replay"]
Priority = Literal["high", "medium", "low"]
AlarmKind = Literal["physiological", "technical"]
AlarmState = Literal["possible", "active", "acknowledged", "cleared"]
Cause = Literal["technical", "peripheral", "systemic", "cord or systemic", "focal", "unknown"]
BaselineKind = Literal["pre-position", "post-position", "post-opening", "re-baseline", "other"]
EventKind = Literal[
    "position", "step", "anaesthesia", "physiology", "relaxant", "clamp", "irrigation", "technical", "comment"
]


# ---------------------------------------------------------------- samples


class Gap(IntFlag):
    """Trouble that travels with the block it spoils."""

    NONE = 0
    LOST = 1  # samples before row 0 never arrived
    CLIPPED = 2  # an input reached the converter's end stop
    OVERFLOW = 4  # the device's FIFO overflowed before row 0
    ESTIMATED = 8  # `lost` is an estimate: the device did not keep its counter
    SESSION = 16  # row 0 is the first of a new device session


class MarkKind(IntEnum):
    """What a device mark says; codes are those of docs/wire/ionm1.md."""

    PULSE = 1  # one stimulus pulse left an output, with its delivered value
    DELIVERY_END = 2  # the last pulse of a delivery is out (or it was aborted)
    AUX = 3  # an auxiliary line changed: `line`, `level`
    STIM_STATE = 4  # the stimulator changed state
    IMPEDANCE = 5  # one electrode's impedance
    FIRE_REFUSED = 6  # a scheduled fire was refused when its sample came


class AuxLine(IntEnum):
    CAUTERY = 0
    FOOT_SWITCH = 1
    PROBE_BUTTON = 2
    EXTERNAL_TRIGGER = 3
    STOP_BUTTON = 4


class StimState(IntEnum):
    SAFE = 0
    CONFIGURED = 1
    ARMED = 2
    FIRING = 3
    TRIPPED = 4


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """One edge or pulse with the sample at which it happened.

    `delivered` and `set` are in the output's unit (mA or V); `value` is ohm for IMPEDANCE, the level for
    AUX, a reason code for STIM_STATE, DELIVERY_END and FIRE_REFUSED, the compliance voltage in mV for PULSE.
    `output` is the line for AUX and the input for IMPEDANCE; `state` is the new StimState for STIM_STATE.
    """

    kind: MarkKind
    sample: int
    output: int = 0
    slot: int = 0
    nonce: int = 0
    pulse: int = 0
    last: bool = False
    set: float = 0.0
    delivered: float = 0.0
    width_us: int = 0
    polarity: int = 1
    ok: bool = True
    no_contact: bool = False
    compliance: bool = False
    value: int = 0
    state: int = 0


class Block:
    """A stretch of samples in device order; one is filled again and again.

    counts  int32[capacity, stride]    raw converter counts, `[sample, input]`
    uv      float32[capacity, stride]  the same in microvolts
    lo, hi  float32[stride]            smallest and largest uV of each input in rows 0..n
    Only rows 0..n and columns 0..inputs are valid; stride is `inputs` rounded up to 16 so that kernels may
    run over whole vectors; the padding columns are zero.
    first   sample index of row 0
    lost    samples missing just before row 0 (0 unless `gap` has LOST)
    marks   edges and pulses whose sample lies in [first, first + n), in order; those of samples that were
            lost before row 0 come first
    """

    __slots__ = (
        "boot_id", "capacity", "counts", "device_first", "fifo_permille", "first", "gap", "hi", "inputs", "lo",
        "lost", "marks", "n", "rate_hz", "session", "stim_state", "stride", "uv",
    )

    def __init__(self, capacity: int, inputs: int, rate_hz: float) -> None:
        self.capacity = capacity
        self.inputs = inputs
        self.stride = (inputs + 15) // 16 * 16
        self.rate_hz = rate_hz
        # 16 samples of slack: vector stores of the last row stay inside
        self.counts: npt.NDArray[np.int32] = aligned.zeros((capacity + 1, self.stride), np.int32)
        self.uv: npt.NDArray[np.float32] = aligned.zeros((capacity + 1, self.stride), np.float32)
        self.lo: npt.NDArray[np.float32] = np.zeros(self.stride, np.float32)
        self.hi: npt.NDArray[np.float32] = np.zeros(self.stride, np.float32)
        self.marks: list[Mark] = []
        self.clear()

    def clear(self) -> None:
        self.first = 0
        self.device_first = 0
        self.n = 0
        self.lost = 0
        self.gap = Gap.NONE
        self.session = 0
        self.boot_id = 0
        self.fifo_permille = 0
        self.stim_state = StimState.SAFE
        self.marks.clear()


class Curve(msgspec.Struct, frozen=True):
    """Samples inside a JSON message: base64 of little-endian float32, `shape` slowest axis first."""

    dtype: str
    shape: list[int]
    unit: str
    t0_ms: float
    dt_ms: float
    data: str


# ---------------------------------------------------------------- who, what, where


class Electrode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    label: str
    input: int  # column of the amplifier, 0-based
    kind: str = "disc"  # disc, corkscrew, needle, surface, strip
    site: str = ""
    side: Side = "none"
    level: str = ""
    jack: str = ""


class Derivation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """input 1 - input 2, by electrode label."""

    label: str
    plus: str
    minus: str
    role: Role = "alert"


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    credential: str = ""
    function: str = "technologist"  # technologist, physician, surgeon, anaesthesia, observer


class Attendance(msgspec.Struct, frozen=True, omit_defaults=True):
    """An interval of presence; `until` is None while it lasts."""

    person: Person
    uid: int
    since: int
    until: int | None = None


class RoomEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened in the room; `at` is when, `entered_at` when it was written down (samples)."""

    id: str
    kind: EventKind
    text: str
    at: int
    entered_at: int
    person: str


class EpisodeEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who was told what, and what came of it."""

    sample: int
    person: str
    informed: list[str]
    words: str
    reply: str = ""
    action: str = ""
    outcome: str = ""


class Episode(msgspec.Struct, frozen=True, omit_defaults=True):
    """Opened by a change; its point is who was told."""

    id: str
    alarm: str
    opened_sample: int
    entries: list[EpisodeEntry] = []


class StimulusSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """Stimulus of an average or sweep: what was set and what the device measured."""

    ok: bool
    set_ma: float | None = None
    delivered_ma: float | None = None
    set_v: float | None = None
    delivered_v: float | None = None
    width_us: int = 0
    polarity: str = "monophasic"
    rate_hz: float | None = None
    pulses: int = 1
    failed: int = 0  # deliveries outside tolerance, not averaged


# ---------------------------------------------------------------- results


class Marker(msgspec.Struct, frozen=True, omit_defaults=True):
    """One named wave.  amplitude_uv is to the pre-stimulus mean; provenance `manual` keeps `auto` beside it."""

    label: str
    polarity: str
    status: Status
    latency_ms: float | None = None
    onset_ms: float | None = None
    amplitude_uv: float | None = None
    latency_ci_ms: tuple[float, float] | None = None
    provenance: str = "auto"
    auto: Marker | None = None
    by: str = ""
    reason: str = ""


class Measure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A derived value, e.g. `N20-P23` peak to peak; `value` and `unit` serve ratios and thresholds."""

    label: str
    status: Status
    amplitude_uv: float | None = None
    amplitude_ci_uv: tuple[float, float] | None = None
    value: float | None = None
    unit: str = ""


class Comparison(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reading against its baseline; `refused` says why no comparison was made."""

    baseline: str
    amplitude_ratio: float | None = None
    amplitude_ratio_ci: tuple[float, float] | None = None
    latency_change_ms: float | None = None
    drift_corrected_ratio: float | None = None
    first_baseline: str = ""
    first_amplitude_ratio: float | None = None
    flags: list[str] = msgspec.field(default_factory=list)
    refused: str = ""


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One derivation of one average or sweep, measured."""

    test: str
    derivation: str
    role: Role
    id: str
    sample: int  # last sample that went into it
    first_sample: int
    status: Status
    sweeps: int
    rejected: int
    source: Source
    filter_id: str
    stimulus: StimulusSummary
    markers: list[Marker] = msgspec.field(default_factory=list)
    measures: list[Measure] = msgspec.field(default_factory=list)
    snr_db: float | None = None
    residual_noise_uv: float | None = None
    reproducibility: float | None = None
    kind: str = "average"  # average, sub-average, sweep, threshold, epoch
    average_id: str = ""
    step: str = ""
    vs: Comparison | None = None
    rejected_reasons: dict[str, int] = msgspec.field(default_factory=dict)
    note: str = ""
    sweeps_needed: int | None = None  # for the interval that the test asks for; None: nothing asked or not measurable
    mains_uv: float | None = None  # rms of the mains that was taken off its sweeps; None: it was left in


class AverageResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A finished (or running) average of one test: all derivations, filtered as its filter_id says."""

    id: str
    test: str
    kind: str  # average, sub-average, sweep
    sample: int
    first_sample: int
    sweeps: int
    rejected: int
    derivations: list[str]
    filter_id: str
    source: Source
    stimulus: StimulusSummary
    curve: Curve  # shape [derivation, sample]
    rejected_reasons: dict[str, int] = msgspec.field(default_factory=dict)
    jitter_us: float = 0.0  # rms error of time zero: a pulse is known to the sample in which it left


class Criterion(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule that was looked at: the classical one or the drift-corrected one."""

    rule: str
    crossed: bool
    value: float | None = None
    limit: float | None = None
    text: str = ""


class Alarm(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    kind: AlarmKind
    priority: Priority
    state: AlarmState
    cause: Cause
    sentence: str
    evidence: list[str]
    test: str
    derivations: list[str]
    opened_sample: int
    sample: int  # of this state
    criterion: list[Criterion] = msgspec.field(default_factory=list)
    side: Side = "none"
    change_sample: int | None = None  # start of the first window that crossed
    time_to_alarm_s: float | None = None
    acknowledged_by: str = ""
    cleared_by: str = ""
    code: str = ""  # technical alarms: stable machine-readable name


class BaselineInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    test: str
    kind: BaselineKind
    sample: int
    person: str
    reason: str
    averages: list[str]
    active: bool
    first_accepted: bool
    filter_id: str
    readings: list[Reading] = msgspec.field(default_factory=list)
    replication: dict[str, float] = msgspec.field(default_factory=dict)


class ThresholdResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A threshold with its context; the number alone means nothing (clinical 1.6)."""

    test: str
    sample: int
    output: str
    threshold_ma: float | None
    not_reached: bool
    no_contact: bool
    width_us: int
    polarity: str
    return_electrode: str
    muscles: list[str]
    train_of_four_ratio: float | None = None
    steps: int = 0  # deliveries
    ended: str = ""  # why the search ended without an answer: stimulation off, refused, no usable sweep


class DeviceStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """`state`: absent, connecting, streaming, stalled, lost, foreign (another unit: waits for the operator), failed."""

    state: str
    driver: str = ""
    serial: str = ""
    firmware: str = ""
    inputs: int = 0
    rate_hz: float = 0.0
    boot_id: int = 0
    session: int = 0
    lost_samples: int = 0
    gaps: int = 0
    duplicates: int = 0
    bad_frames: int = 0
    fifo_permille: int = 0
    fifo_high_permille: int = 0
    stim_state: str = "SAFE"
    detail: str = ""


def encode_curve(values: npt.NDArray[np.float32], t0_ms: float, dt_ms: float, unit: str = "uV") -> Curve:
    """A float32 array of any shape as a Curve."""
    import base64

    data = np.ascontiguousarray(values, dtype="<f4")
    return Curve("<f4", list(data.shape), unit, t0_ms, dt_ms, base64.b64encode(data.tobytes()).decode("ascii"))


def decode_curve(curve: Curve | dict[str, Any]) -> npt.NDArray[np.float32]:
    """Inverse of encode_curve."""
    import base64

    c = msgspec.convert(curve, Curve) if isinstance(curve, dict) else curve
    return np.frombuffer(base64.b64decode(c.data), dtype=np.dtype(c.dtype)).reshape(c.shape)
