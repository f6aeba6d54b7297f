"""The types of a test file (design 6): what to stimulate, cut, reject, average, mark and alarm on.

A test file is data; the catalogue's own tests are the same format (ionmd/catalog/tests/*.toml).
Every key is documented in docs/test-file.md and every default has its line in docs/sources.md.
Ranges are checked in `check`; a wrong file raises ConfigError that names file, key, value and range.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ionmd.model import Derivation, Electrode, Side

Modality = Literal["evoked", "motor", "tof", "temg", "emg", "eeg"]


class TestHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    modality: Modality
    side: Side = "none"  # the stimulated side; recorded sides are those of the electrodes
    title: str = ""
    display: str = "negative up"


class Epoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start_ms: float
    stop_ms: float
    baseline_ms: tuple[float, float] | None = None  # mean of this stretch is subtracted; None: start..0


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["butterworth", "none"] = "butterworth"
    order: int = 2
    band_hz: tuple[float, float] | None = None  # 0 as low edge: low-pass only; inf is written as 0 on the high edge
    zero_phase: bool = True
    notch_hz: float = 0.0  # 0: no notch
    mains: Literal["keep", "subtract"] = "keep"  # subtract: followed outside responses and taken off each sweep
    mains_hz: float = 0.0  # of `subtract`: 50 or 60; 0: that of the template or the configuration
    span_ms: tuple[float, float] | None = None  # stretch of the epoch that is filtered; None: all of it


class Blank(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start_ms: float = -0.5
    stop_ms: float = 3.0
    method: Literal["hold", "linear", "none"] = "hold"


class Averaging(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sweeps: int = 300
    sub_sweeps: int = 25
    reject_uv: float | None = None
    weighted: bool = True
    reject_window_ms: tuple[float, float] | None = None  # None: from blank.stop_ms to epoch.stop_ms
    enough_share: float = 0.0  # half-width of the first measure's 95 % interval, a share of it, that will do; 0: off
    enough_ms: float = 0.0  # half-width of the first marker's 95 % interval of latency that will do; 0: off
    stop_when_enough: bool = False  # finish an average early; `sweeps` is then the most it takes


class Trigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where time zero comes from.  `stimulus`: the device's own pulse marks; the others serve recordings."""

    source: Literal["stimulus", "annotation", "status", "column", "external"] = "stimulus"
    code: str = ""
    zero: Literal["first pulse", "last pulse", "sound at the ear"] = "first pulse"
    onset_column: str = ""
    onset_rule: str = ""


class MarkerRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    label: str
    polarity: Literal["negative", "positive"]
    window_ms: tuple[float, float]
    kind: Literal["peak", "onset"] = "peak"
    order: int = 0  # waves of one derivation come in this order; 0: on its own
    gap_ms: tuple[float, float] | None = None  # distance from the wave before it in order
    smooth: float = 0.0  # the wave is placed on a curve smoothed by this share of its distance to its neighbour
    shape: str = ""  # name of a [shape]: the wave is placed with the help of what it is known to look like
    derivations: list[str] = msgspec.field(default_factory=list)  # empty: all


class WaveShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a response is known to look like, before any filter: Gaussians of one width on a grid of times.

    mean        heights of the mean shape, 1 uV peak to peak after the filter
    component   ways in which the shape varies from person to person and derivation to derivation, each times its sd
    """

    start_ms: float
    step_ms: float
    width_ms: float
    window_ms: tuple[float, float]  # where an average is compared with it
    mean: tuple[float, ...]
    component: tuple[tuple[float, ...], ...] = ()


class MeasureRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    """`label` is from-to peak to peak in uV; `kind` latency gives the difference in ms."""

    label: str
    start: str = ""
    end: str = ""
    kind: Literal["amplitude", "latency", "peak_to_peak", "ratio"] = "amplitude"
    window_ms: tuple[float, float] | None = None
    derivations: list[str] = msgspec.field(default_factory=list)


class Presence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    window_ms: tuple[float, float] | None = None
    snr_db: float = 1.0
    reproducibility: float = 0.3
    min_uv: float = 0.0
    seen_uv: float = 0.0  # smallest response that counts: `absent` is said only where the noise would not hide it
    noise_ms: tuple[float, float] | None = None  # a stretch without response; only used when there are no halves
    present_score: float = 0.95
    absent_score: float = 0.90


class AlarmRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Classical criterion of the test; a template's alarm profile may replace it."""

    amplitude_fall: float = 0.5  # 0.5: alert when the measure falls below half
    latency_rise: float = 0.10  # fraction of the baseline latency; 0: no latency rule
    latency_rise_ms: float = 0.0
    loss: bool = True
    measure: str = ""  # empty: first measure of the file
    marker: str = ""  # empty: first marker
    confirm: int = 2  # independent windows of sweeps (or single sweeps) that must agree


class Stimulus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Default stimulus; `output` is a name of the template's stimulator table."""

    output: str = ""
    nerve: str = ""
    cathode: str = ""
    anode: str = ""
    unit: Literal["mA", "V", "none"] = "mA"
    amplitude: float = 0.0
    range: tuple[float, float] = (0.0, 0.0)
    width_us: int = 200
    polarity: Literal["monophasic", "biphasic", "anodal", "cathodal", "alternating"] = "monophasic"
    pulses: int = 1
    interval_ms: float = 0.0  # interstimulus interval within a train
    rate_hz: float = 0.0  # 0: on demand
    min_gap_ms: float = 0.0  # between deliveries
    announce: bool = False  # `stim about to fire` goes out before each delivery


class FreeEmg(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    window_ms: float = 100.0
    burst_sd: float = 5.0
    burst_min_uv: float = 20.0
    burst_min_ms: float = 5.0
    outlier_uv: float = 0.0  # a single sample beyond this with quiet neighbours is flagged, not counted; 0: off


class ThresholdSearch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    start: float = 0.0
    stop: float = 0.0
    step: float = 0.0
    criterion_uv: float = 100.0
    repeats: int = 2
    rate_hz: float = 2.0


class TestDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"derivations": "derivation"}):
    """One test.  `channels` maps a derivation's name to an expression over file columns (replay and analyze);
    `derivation` lists electrode pairs (acquisition)."""

    test: TestHead
    epoch: Epoch | None = None
    filter: Filter = msgspec.field(default_factory=Filter)
    blank: Blank = msgspec.field(default_factory=lambda: Blank(method="none"))
    average: Averaging = msgspec.field(default_factory=Averaging)
    trigger: Trigger = msgspec.field(default_factory=Trigger)
    channels: dict[str, str] = msgspec.field(default_factory=dict)
    derivations: list[Derivation] = msgspec.field(default_factory=list)
    marker: list[MarkerRule] = msgspec.field(default_factory=list)
    measure: list[MeasureRule] = msgspec.field(default_factory=list)
    shape: dict[str, WaveShape] = msgspec.field(default_factory=dict)  # those of the catalogue need not be repeated
    presence: Presence = msgspec.field(default_factory=Presence)
    alarm: AlarmRule | None = None
    stimulus: Stimulus | None = None
    emg: FreeEmg | None = None
    threshold: ThresholdSearch | None = None
    causal: Filter | None = None  # the streaming filter for rejection and continuous display; None: same as `filter`


class OutputDef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the stimulator table: which jack, what class, what it may do (limits.py has the hard caps)."""

    name: str
    jack: int
    kind: Literal["transcutaneous", "transcranial", "probe"]
    site: str
    side: Side = "none"
    connection: Literal["fixed pair", "hand-held probe"] = "fixed pair"
    cathode: str = ""
    anode: str = ""
    max_amplitude: float = 0.0  # below the hard cap of its kind; 0: the hard cap


class TemplateHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    title: str = ""
    mains_hz: float = 50.0
    level_at_risk: str = ""
    reminder_min: float = 3.0  # age of the last valid reading that raises a reminder
    critical_steps: list[str] = msgspec.field(default_factory=list)


class ControlRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which derivation controls which test; `crosses_level` false: its pathway avoids the level at risk."""

    test: str
    derivation: str
    role: Literal["peripheral control", "systemic control"]
    crosses_level: bool = True


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A surgery template: electrodes, stimulator table, tests with overrides, controls, alarm profile, checklist."""

    template: TemplateHead
    electrode: list[Electrode]
    output: list[OutputDef]
    tests: list[str]
    interleave: list[str] = msgspec.field(default_factory=list)
    control: list[ControlRule] = msgspec.field(default_factory=list)
    alarm: dict[str, AlarmRule] = msgspec.field(default_factory=dict)
    checklist: list[str] = msgspec.field(default_factory=list)
    pathway: dict[str, list[str]] = msgspec.field(default_factory=dict)  # test -> levels its pathway crosses
