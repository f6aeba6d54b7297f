"""What msgspec cannot say about a test file or template: ranges, and that its parts fit together.

Pure.  In: a decoded struct and the name of its file.  Out: nothing, or ConfigError.  docs/test-file.md lists every
range given here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ionmd.catalog.expression import parse
from ionmd.catalog.read import fail
from ionmd.catalog.read import place as place_of
from ionmd.errors import ConfigError
from ionmd.testdef import AlarmRule, Filter, Template, TestDefinition, WaveShape

ID = re.compile(r"[a-z][a-z0-9_]{0,47}")
EPOCH_MS = (-2000.0, 20000.0)
AVERAGED = ("evoked",)
ONSET_RULE = re.compile(r"envelope \d+(\.\d+)? ?%|threshold \d+(\.\d+)?")


class _Checker:
    def __init__(self, file: str) -> None:
        self.file = file

    def wrong(self, key: str, came: object, expected: str) -> ConfigError:
        return fail(self.file, key, repr(came) if isinstance(came, str) else came, expected)

    def number(self, key: str, value: float, lo: float, hi: float, unit: str = "") -> None:
        if not (lo <= value <= hi):
            raise self.wrong(key, value, f"a number from {lo:g} to {hi:g} {unit}".rstrip())

    def window(self, key: str, window: tuple[float, float], within: tuple[float, float]) -> None:
        """Rising, and inside `within`."""
        if not (within[0] <= window[0] < window[1] <= within[1]):
            raise self.wrong(key, list(window), f"start < stop, both within {within[0]:g} to {within[1]:g} ms")

    def unique(self, key: str, values: Iterable[object]) -> None:
        """`key` is table.leaf of a list of tables, or the name of a list."""
        seen = set()
        table, _, leaf = key.partition(".")
        for i, value in enumerate(values):
            if value in seen:
                raise self.wrong(f"{table}[{i}].{leaf}" if leaf else key, value, "each only once")
            seen.add(value)

    def identifier(self, key: str, value: str) -> None:
        if not ID.fullmatch(value):
            raise self.wrong(key, value, "lower-case letters, digits and _ , starting with a letter, at most 48")


def check_test(d: TestDefinition, file: str) -> None:
    """Every rule of one test file."""
    c = _Checker(file)
    c.identifier("test.id", d.test.id)
    modality = d.test.modality
    if d.epoch is None and modality not in ("emg", "eeg"):
        raise c.wrong("epoch", "nothing", f"[epoch] start_ms and stop_ms for modality {modality}")
    span = EPOCH_MS
    if d.epoch is not None:
        c.window("epoch", (d.epoch.start_ms, d.epoch.stop_ms), EPOCH_MS)
        span = (d.epoch.start_ms, d.epoch.stop_ms)
        if not (span[0] <= 0.0 <= span[1]):
            raise c.wrong("epoch.start_ms", list(span), "time zero inside the epoch")
        if d.epoch.baseline_ms is not None:
            c.window("epoch.baseline_ms", d.epoch.baseline_ms, span)
    _check_filter(c, "filter", d.filter, span)
    _check_mains(c, "filter", d.filter, modality == "evoked", "only the sweeps of an average have it taken off")
    if d.causal is not None:
        _check_filter(c, "causal", d.causal, span)
        _check_mains(c, "causal", d.causal, False, "a stream has no rest to learn it from")
        if d.causal.zero_phase and d.causal.kind != "none":
            raise c.wrong("causal.zero_phase", "true", "zero_phase = false: a stream has no future")
    if d.blank.method != "none":
        c.window("blank", (d.blank.start_ms, d.blank.stop_ms), (-20.0, 100.0))
    _check_average(c, d, span)
    _check_trigger(c, d)
    _check_channels(c, d)
    _check_waves(c, d, span)
    _check_presence(c, d, span)
    _check_stimulus(c, d)
    if d.alarm is not None:
        check_alarm(c, "alarm", d.alarm, d)
    if (d.emg is None) == (modality == "emg"):
        raise c.wrong("emg", "nothing" if d.emg is None else "[emg]",
                      f"[emg] exactly when modality is emg ({modality})")  # fmt: skip
    if (d.threshold is None) == (modality == "temg"):
        raise c.wrong("threshold", "nothing" if d.threshold is None else "[threshold]",
                      f"[threshold] exactly when modality is temg ({modality})")  # fmt: skip


def _check_filter(c: _Checker, key: str, f: Filter, span: tuple[float, float]) -> None:
    c.number(f"{key}.order", f.order, 1, 8)
    if f.kind == "butterworth":
        if f.band_hz is None:
            if f.notch_hz == 0.0:
                return  # a filter without band and notch passes everything
        else:
            lo, hi = f.band_hz
            c.number(f"{key}.band_hz[0]", lo, 0.0, 20000.0, "Hz (0: no high-pass)")
            c.number(f"{key}.band_hz[1]", hi, 0.0, 20000.0, "Hz (0: no low-pass)")
            if hi != 0.0 and not (lo < hi):
                raise c.wrong(f"{key}.band_hz", [lo, hi], "low edge < high edge")
    elif f.band_hz is not None:
        raise c.wrong(f"{key}.band_hz", list(f.band_hz), "no band with kind = none")
    c.number(f"{key}.notch_hz", f.notch_hz, 0.0, 1000.0, "Hz (0: no notch)")
    if f.span_ms is not None:
        c.window(f"{key}.span_ms", f.span_ms, span)


def _check_mains(c: _Checker, key: str, f: Filter, possible: bool, why: str) -> None:
    if f.mains == "subtract" and not possible:
        raise c.wrong(f"{key}.mains", "subtract", f"keep: {why}")
    if f.mains == "subtract" and f.notch_hz > 0.0:
        raise c.wrong(f"{key}.notch_hz", f.notch_hz, "0 with mains = subtract: one or the other")
    if f.mains_hz not in (0.0, 50.0, 60.0) or (f.mains_hz and f.mains == "keep"):
        raise c.wrong(f"{key}.mains_hz", f.mains_hz, "50 or 60 Hz with mains = subtract, else 0")


def _check_average(c: _Checker, d: TestDefinition, span: tuple[float, float]) -> None:
    a = d.average
    c.number("average.sweeps", a.sweeps, 1, 100000)
    c.number("average.sub_sweeps", a.sub_sweeps, 1, a.sweeps)
    if d.test.modality in AVERAGED and a.sub_sweeps % 2 and a.sub_sweeps == 1 and a.sweeps > 1:
        raise c.wrong("average.sub_sweeps", 1, "2 or more: halves of a sub-average are odd and even sweeps")
    c.number("average.enough_share", a.enough_share, 0.0, 10.0)
    c.number("average.enough_ms", a.enough_ms, 0.0, 100.0, "ms")
    if a.stop_when_enough and not (a.enough_share > 0.0 or a.enough_ms > 0.0):
        raise c.wrong("average.stop_when_enough", "true", "enough_share or enough_ms beside it")
    if a.reject_uv is not None:
        c.number("average.reject_uv", a.reject_uv, 1e-3, 1e6, "uV")
    if a.reject_window_ms is not None:
        c.window("average.reject_window_ms", a.reject_window_ms, span)


def _check_trigger(c: _Checker, d: TestDefinition) -> None:
    t = d.trigger
    needs_code = t.source in ("annotation", "status")
    if t.code and t.source == "stimulus":
        raise c.wrong("trigger.code", t.code, "no code with source = stimulus")
    if needs_code and not t.code:
        raise c.wrong("trigger.code", "nothing", f"the {t.source} that is time zero")
    if bool(t.onset_column) != bool(t.onset_rule):
        raise c.wrong("trigger.onset_rule", t.onset_rule or "nothing", "onset_column and onset_rule together")
    if t.onset_column and t.source != "column":
        raise c.wrong("trigger.source", t.source, "column, when onset_column is given")
    if t.source == "column" and not t.onset_column:
        raise c.wrong("trigger.onset_column", "nothing", "the column that shows the stimulus")
    if t.onset_rule and not ONSET_RULE.fullmatch(t.onset_rule):
        raise c.wrong("trigger.onset_rule", t.onset_rule, "'envelope P %' or 'threshold X'")
    percent = re.fullmatch(r"envelope ([\d.]+) ?%", t.onset_rule)
    if percent:
        c.number("trigger.onset_rule", float(percent[1]), 1.0, 90.0, "%")


def _check_channels(c: _Checker, d: TestDefinition) -> None:
    for name, text in d.channels.items():
        if not name:
            raise c.wrong("channels", "an empty name", "a name")
        try:
            parse(text)
        except ConfigError as error:
            raise ConfigError(f"{place_of(c.file, f'channels.{name}')}: channels.{name}: {error}") from None
    c.unique("derivation.label", [x.label for x in d.derivations])
    for x in d.derivations:
        if not x.label or not x.plus or not x.minus or x.plus == x.minus:
            raise c.wrong("derivation", f"{x.label}: {x.plus!r} - {x.minus!r}", "a label and two different electrodes")


def _check_waves(c: _Checker, d: TestDefinition, span: tuple[float, float]) -> None:
    known = {x.label for x in d.derivations} | set(d.channels)
    everywhere = sorted(known) or [""]

    def places(key: str, derivations: list[str]) -> list[str]:
        for name in derivations:
            if known and name not in known:
                raise c.wrong(key, name, "one of " + ", ".join(sorted(known)))
        return derivations or everywhere

    for name, shape in d.shape.items():
        _check_shape(c, f"shape.{name}", shape)
    labels: dict[str, set[str]] = {}
    for i, m in enumerate(d.marker):
        if not m.label:
            raise c.wrong(f"marker[{i}].label", "an empty name", "a name")
        c.window(f"marker[{i}] {m.label}.window_ms", m.window_ms, span)
        c.number(f"marker[{i}] {m.label}.order", m.order, 0, 99)
        c.number(f"marker[{i}] {m.label}.smooth", m.smooth, 0.0, 0.5)
        if m.shape and m.shape not in d.shape:
            raise c.wrong(f"marker[{i}] {m.label}.shape", m.shape, "a [shape] of this file or of the catalogue")
        if m.shape and m.order == 0:
            raise c.wrong(f"marker[{i}] {m.label}.shape", m.shape, "an order beside it")
        if m.gap_ms is not None:
            c.window(f"marker[{i}] {m.label}.gap_ms", m.gap_ms, (0.0, 1000.0))
            if m.order == 0:
                raise c.wrong(f"marker[{i}] {m.label}.gap_ms", list(m.gap_ms), "an order beside it")
        for place in places(f"marker[{i}].derivations", m.derivations):
            if m.label in labels.setdefault(place, set()):
                raise c.wrong(f"marker[{i}].label", m.label, "each label once per derivation")
            labels[place].add(m.label)
    virtual = {"T1", "T2", "T3", "T4"} if d.test.modality == "tof" else set()
    seen: set[tuple[str, str]] = set()
    for i, r in enumerate(d.measure):
        if r.window_ms is not None:
            c.window(f"measure[{i}] {r.label}.window_ms", r.window_ms, span)
        for place in places(f"measure[{i}].derivations", r.derivations):
            if (r.label, place) in seen:
                raise c.wrong(f"measure[{i}].label", r.label, "each label once per derivation")
            seen.add((r.label, place))
            if r.kind == "peak_to_peak":
                if r.window_ms is None:
                    raise c.wrong(f"measure[{i}] {r.label}.window_ms", "nothing", "a window for peak_to_peak")
                continue
            for key, name in (("from", r.start), ("to", r.end)):
                have = labels.get(place, set()) | virtual
                if name not in have:
                    expected = "a marker of that derivation: " + (", ".join(sorted(have)) or "there is none")
                    raise c.wrong(f"measure[{i}] {r.label}.{key}", name or "nothing", expected)


def _check_shape(c: _Checker, key: str, s: WaveShape) -> None:
    c.number(f"{key}.start_ms", s.start_ms, 0.0, 1000.0, "ms")
    c.number(f"{key}.step_ms", s.step_ms, 0.1, 100.0, "ms")
    c.number(f"{key}.width_ms", s.width_ms, 0.2 * s.step_ms, 4.0 * s.step_ms, "ms")
    if not (3 <= len(s.mean) <= 500):
        raise c.wrong(f"{key}.mean", f"{len(s.mean)} heights", "3 to 500")
    if len(s.component) > 8 or any(len(x) != len(s.mean) for x in s.component):
        raise c.wrong(f"{key}.component", f"{len(s.component)} rows", f"at most 8, each of {len(s.mean)} heights")
    c.window(f"{key}.window_ms", s.window_ms, (s.start_ms, s.start_ms + s.step_ms * (len(s.mean) - 1)))


def _check_presence(c: _Checker, d: TestDefinition, span: tuple[float, float]) -> None:
    p = d.presence
    if p.window_ms is not None:
        c.window("presence.window_ms", p.window_ms, span)
    if p.noise_ms is not None:
        c.window("presence.noise_ms", p.noise_ms, EPOCH_MS)
    c.number("presence.snr_db", p.snr_db, -20.0, 60.0, "dB")
    c.number("presence.reproducibility", p.reproducibility, 0.0, 1.0)
    c.number("presence.min_uv", p.min_uv, 0.0, 1e6, "uV")
    c.number("presence.seen_uv", p.seen_uv, 0.0, 1e6, "uV")
    c.number("presence.present_score", p.present_score, 0.5, 1.0)
    c.number("presence.absent_score", p.absent_score, 0.0, p.present_score)


def _check_stimulus(c: _Checker, d: TestDefinition) -> None:
    s = d.stimulus
    if s is not None:
        if not s.output:
            raise c.wrong("stimulus.output", "nothing", "a name of the template's stimulator table")
        hi = 1000.0 if s.unit == "V" else 100.0
        c.window("stimulus.range", s.range, (0.0, hi)) if s.unit != "none" else None
        if s.unit != "none":
            c.number("stimulus.amplitude", s.amplitude, s.range[0], s.range[1], s.unit)
        c.number("stimulus.width_us", s.width_us, 10, 1000, "us")
        c.number("stimulus.pulses", s.pulses, 1, 9)
        c.number("stimulus.interval_ms", s.interval_ms, 0.0, 2000.0, "ms")
        if s.pulses > 1 and not (s.interval_ms > 0.0):
            raise c.wrong("stimulus.interval_ms", s.interval_ms, "an interval between the pulses of a train")
        c.number("stimulus.rate_hz", s.rate_hz, 0.0, 100.0, "Hz (0: on demand)")
        c.number("stimulus.min_gap_ms", s.min_gap_ms, 0.0, 3600000.0, "ms")
        train_ms = (s.pulses - 1) * s.interval_ms
        if s.rate_hz > 0.0 and not (1000.0 / s.rate_hz > train_ms + s.min_gap_ms):
            raise c.wrong("stimulus.rate_hz", s.rate_hz, "a period longer than the train and min_gap_ms")
    t = d.threshold
    if t is not None:
        hi = 1000.0 if s is not None and s.unit == "V" else 100.0
        if s is not None:
            hi = s.range[1]
        c.number("threshold.start", t.start, 0.0, hi)
        c.number("threshold.stop", t.stop, t.start, hi)
        c.number("threshold.step", t.step, 0.01, max(t.stop - t.start, 0.01))
        c.number("threshold.criterion_uv", t.criterion_uv, 1.0, 10000.0, "uV")
        c.number("threshold.repeats", t.repeats, 1, 20)
        c.number("threshold.rate_hz", t.rate_hz, 0.05, 20.0, "Hz")
    e = d.emg
    if e is not None:
        c.number("emg.window_ms", e.window_ms, 5.0, 10000.0, "ms")
        c.number("emg.burst_sd", e.burst_sd, 1.0, 100.0)
        c.number("emg.burst_min_uv", e.burst_min_uv, 0.0, 1e6, "uV")
        c.number("emg.burst_min_ms", e.burst_min_ms, 0.0, 10000.0, "ms")
        c.number("emg.outlier_uv", e.outlier_uv, 0.0, 1e6, "uV")


def check_alarm(c: _Checker, key: str, a: AlarmRule, d: TestDefinition) -> None:
    """An alarm rule, against the test it belongs to."""
    c.number(f"{key}.amplitude_fall", a.amplitude_fall, 0.0, 1.0)
    c.number(f"{key}.latency_rise", a.latency_rise, 0.0, 1.0)
    c.number(f"{key}.latency_rise_ms", a.latency_rise_ms, 0.0, 100.0, "ms")
    c.number(f"{key}.confirm", a.confirm, 1, 20)
    measures = {m.label for m in d.measure}
    markers = {m.label for m in d.marker}
    if a.measure and a.measure not in measures:
        raise c.wrong(f"{key}.measure", a.measure, "one of " + (", ".join(sorted(measures)) or "none"))
    if a.marker and a.marker not in markers:
        raise c.wrong(f"{key}.marker", a.marker, "one of " + (", ".join(sorted(markers)) or "none"))


def check_template(t: Template, file: str, tests: dict[str, TestDefinition]) -> None:
    """A template against the catalogue it names."""
    c = _Checker(file)
    head = t.template
    c.identifier("template.id", head.id)
    if head.mains_hz not in (50.0, 60.0):
        raise c.wrong("template.mains_hz", head.mains_hz, "50 or 60 Hz")
    c.number("template.reminder_min", head.reminder_min, 0.1, 240.0, "min")
    c.unique("electrode.label", [e.label for e in t.electrode])
    c.unique("electrode.input", [e.input for e in t.electrode])
    c.unique("output.name", [o.name for o in t.output])
    c.unique("output.jack", [o.jack for o in t.output])
    c.unique("tests", t.tests)
    for e in t.electrode:
        c.number(f"electrode {e.label}.input", e.input, 0, 63)
    for o in t.output:
        c.number(f"output {o.name}.jack", o.jack, 0, 255)
        c.number(f"output {o.name}.max_amplitude", o.max_amplitude, 0.0, 1000.0 if o.kind == "transcranial" else 100.0)
    electrodes = {e.label for e in t.electrode}
    outputs = {o.name: o for o in t.output}
    for name in t.tests:
        d = tests.get(name)
        if d is None:
            raise c.wrong("tests", name, "a test of the catalogue: " + ", ".join(sorted(tests)))
        for x in d.derivations:
            for label in (x.plus, x.minus):
                if label not in electrodes:
                    key = f"electrode (test {name}, derivation {x.label})"
                    raise c.wrong(key, label, "an electrode of this template")
        s = d.stimulus
        if s is not None:
            output = outputs.get(s.output)
            if output is None:
                raise c.wrong(f"output (test {name})", s.output, "one of " + ", ".join(sorted(outputs)))
            if output.max_amplitude and not (s.amplitude <= output.max_amplitude):
                key = f"output {output.name}.max_amplitude"
                raise c.wrong(key, output.max_amplitude, f"at least {s.amplitude} ({name})")
            if (s.unit == "V") != (output.kind == "transcranial"):
                raise c.wrong(f"output {output.name}.kind", output.kind, f"an output in {s.unit} ({name})")
    c.unique("interleave", t.interleave)
    for name in t.interleave:
        if name not in t.tests:
            raise c.wrong("interleave", name, "a test of `tests`")
        stimulus = tests[name].stimulus
        if stimulus is None or stimulus.rate_hz <= 0.0:
            raise c.wrong("interleave", name, "a test with stimulus.rate_hz above 0")
    for r in t.control:
        other, _, label = r.derivation.rpartition("/")
        for name in (r.test, other or r.test):
            if name not in t.tests:
                raise c.wrong("control.test", name, "a test of `tests`")
        if label not in {x.label for x in tests[other or r.test].derivations}:
            raise c.wrong(f"control.derivation ({r.test})", r.derivation, f"a derivation of {other or r.test}")
    for name, rule in t.alarm.items():
        if name not in t.tests:
            raise c.wrong("alarm", name, "a test of `tests`")
        check_alarm(c, f"alarm.{name}", rule, tests[name])
    for name in t.pathway:
        if name not in t.tests:
            raise c.wrong("pathway", name, "a test of `tests`")
