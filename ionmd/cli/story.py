"""Events as a story for a person: one line a finding, the best derivation of each test, alarms that stand out.

In: topic, data, sample, in order.  Out: lines, and one live line for a terminal.  Always: nothing is said that the
events do not hold; every alarm and everything a person entered is told, running averages only move the live line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click

from ionmd.cli.common import clean
from ionmd.cli.draw import alarm_banner, up, waveform

WIDTH = 30
IMPEDANCE_LIMIT_KOHM = 5.0  # above it an electrode is worth a look (docs/sources.md#impedance)


@dataclass
class _Pending:
    """An average whose readings have not all come."""

    average: dict[str, Any]
    readings: list[dict[str, Any]] = field(default_factory=list)


class Story:
    """rate_hz  samples a second of the case, to tell times"""

    def __init__(self, rate_hz: float) -> None:
        self.rate_hz = rate_hz
        self.seconds = 0.0
        self._pending: dict[str, _Pending] = {}
        self._newest: dict[str, str] = {}  # test -> what its newest reading says
        self._step = ""
        self._banners: set[Any] = set()  # alarms that were told in full
        self._impedances: dict[str, float | None] = {}  # measured and not told yet: they come one by one

    def tell(self, topic: str, data: dict[str, Any], sample: int) -> list[str]:
        """The lines of one event; none for what only moves the live line."""
        self.seconds = sample / self.rate_hz if self.rate_hz > 0 else 0.0
        if topic == "quality" and "impedance_kohm" in data:
            self._impedances[str(data["electrode"])] = data["impedance_kohm"]
            return []
        if topic != "metrics" and self._impedances:
            line, self._impedances = _impedances(self._impedances), {}
            return [f"{self.seconds:8.1f} s  {line}", *self.tell(topic, data, sample)]
        if topic == "alarm":
            full = data.get("state") == "active" and data.get("id") not in self._banners
            if full:
                self._banners.add(data.get("id"))
            return alarm_banner(data, self.seconds, full)
        made: list[str] = []
        if topic == "average":
            made = self._average(data)
        elif topic == "reading":
            made = self._reading(data)
        elif topic == "case":
            text = _case(data)
            made = [click.style(text, bold=True)] if text else []
            if isinstance(data.get("event"), dict) and data["event"].get("kind") == "step":
                self._step = clean(data["event"].get("text", ""))
        elif topic == "stim":
            made = _stim(data)
        elif topic == "device":
            made = _device(data)
        elif topic == "message":
            made = [f"{clean(data.get('person'))}: {clean(data.get('text'))}"]
        when = f"{self.seconds:8.1f} s  "
        return [(when if i == 0 else " " * len(when)) + line for i, line in enumerate(made)]

    def live(self) -> str:
        """What every test says now, on one line."""
        parts = [f"{self.seconds:8.1f} s", *([self._step] if self._step else [])]
        return "  ".join([*parts, *(f"{short(t)} {text}" for t, text in self._newest.items())])

    # ------------------------------------------------------------ measured

    def _average(self, d: dict[str, Any]) -> list[str]:
        if d.get("kind") in ("average", "sweep") and d.get("derivations"):
            self._pending[str(d["id"])] = _Pending(d)
        return []

    def _reading(self, d: dict[str, Any]) -> list[str]:
        if isinstance(d.get("threshold"), dict):
            return [click.style(threshold_line(d["threshold"]), fg="blue")]
        if "derivation" not in d:
            return []
        self._remember(d)
        pending = self._pending.get(str(d.get("average_id", "")))
        if pending is None:
            return []
        pending.readings.append(d)
        wanted = {str(x).partition(" T")[0] for x in pending.average["derivations"]}
        if len(pending.readings) < len(wanted):
            return []
        del self._pending[str(d["average_id"])]
        return self._finding(pending)

    def _remember(self, d: dict[str, Any]) -> None:
        test, ratio = str(d["test"]), (d.get("vs") or {}).get("amplitude_ratio")
        if d.get("role") == "alert" and d.get("kind") != "sweep":
            self._newest[test] = f"{100 * ratio:.0f} %" if ratio is not None else clean(d.get("status", ""))

    def _finding(self, p: _Pending) -> list[str]:
        if len(p.readings) > 1 and p.average["kind"] == "sweep":
            return [_muscles(p.average, p.readings)]
        if any(str(m.get("label")) == "T4/T1" for m in p.readings[0].get("measures", [])):
            return [_train_of_four(p.readings[0])]
        return [_best(p.average, p.readings)]


def short(test: str) -> str:
    """ssep_median_left -> median L."""
    words = test.removeprefix("ssep_").split("_")
    return " ".join({"left": "L", "right": "R", "tes": ""}.get(w, w) for w in words).strip()


def _best(average: dict[str, Any], readings: list[dict[str, Any]]) -> str:
    """The alert derivation with the best signal, drawn."""
    from ionmd.model import decode_curve

    alert = [r for r in readings if r.get("role") == "alert"] or readings
    r = max(alert, key=lambda x: (x.get("status") == "present", x.get("snr_db") or -99.0))
    row = decode_curve(dict(average["curve"])).reshape(len(average["derivations"]), -1)[
        average["derivations"].index(r["derivation"])
    ]
    sign = up(str(average["test"]))
    drawn = waveform([sign * float(v) for v in row], WIDTH)
    text = f"{clean(average['test']):<18} {clean(r['derivation']):<8} {drawn}  {_sizes(r)}"
    return click.style(text, fg=None if r.get("status") == "present" else "yellow")


def _sizes(r: dict[str, Any]) -> str:
    sizes = [f"{m['amplitude_uv']:.2f} uV" for m in r.get("measures", []) if m.get("amplitude_uv") is not None][:1]
    marks = [f"{clean(m['label'])} {m['latency_ms']:.1f} ms" for m in r.get("markers", [])
             if m.get("latency_ms") is not None][:1]  # fmt: skip
    ratio = (r.get("vs") or {}).get("amplitude_ratio")
    share = [f"{100 * ratio:.0f} % of baseline"] if ratio is not None else []
    return ", ".join([*sizes, *marks, *share]) if r.get("status") != "absent" else "absent"


def _muscles(average: dict[str, Any], readings: list[dict[str, Any]]) -> str:
    """One train: every muscle with its size; a lost one stands out."""
    stimulus = average.get("stimulus") or {}
    given = stimulus.get("delivered_v") or stimulus.get("delivered_ma")
    unit = "V" if stimulus.get("delivered_v") else "mA"
    words = []
    for r in readings:
        size = max((m.get("amplitude_uv") or 0.0 for m in r.get("measures", [])), default=0.0)
        lost = r.get("status") == "absent"
        words.append(click.style(f"{clean(r['derivation'])} {'absent' if lost else f'{size:.0f}'}",
                                 fg="red" if lost else None, bold=lost))  # fmt: skip
    head = clean(average["test"]) + (f" {given:.0f} {unit}" if given is not None else "")
    return f"{head:<18} " + "  ".join(words) + "  uV"


def _train_of_four(r: dict[str, Any]) -> str:
    value = {m["label"]: m for m in r.get("measures", [])}
    sizes = [value[f"T{k}"].get("amplitude_uv") for k in range(1, 5) if f"T{k}" in value]
    ratio = value["T4/T1"].get("value")
    row = "  ".join("--" if s is None else f"{s / 1000:.2f}" for s in sizes)
    return f"{clean(r['test']):<18} {clean(r['derivation'])} T1-T4 {row} mV, ratio " + (
        f"{ratio:.2f}" if ratio is not None else "unknown: T1 is not answered"
    )


def threshold_line(t: dict[str, Any]) -> str:
    """A threshold with everything it depends on; what is no threshold says so."""
    if t.get("threshold_ma") is not None:
        value = f"{t['threshold_ma']:g} mA in {', '.join(clean(m) for m in t.get('muscles', [])) or 'no muscle'}"
    elif t.get("no_contact"):
        value = "no contact: not a threshold"
    elif t.get("ended"):
        value = f"no threshold: {clean(t['ended'])}"
    else:
        value = "not reached: no muscle answered up to the last step"
    four = t.get("train_of_four_ratio")
    return (f"{clean(t.get('test', ''))}: {value} ({t.get('width_us')} us, {clean(t.get('polarity', ''))}, return "
            f"{clean(t.get('return_electrode') or 'not named')}, {t.get('steps', 0)} deliveries, train of four "
            f"{'not measured' if four is None else f'{four:.2f}'})")  # fmt: skip


# ---------------------------------------------------------------- happened


def _impedances(found: dict[str, float | None]) -> str:
    """One line for all electrodes: how many, from what to what, and which are bad."""
    known = sorted(v for v in found.values() if v is not None)
    text = f"impedances of {len(found)} electrodes"
    if known:
        text += f": {known[0]:.1f} to {known[-1]:.1f} kohm"
    high = [f"{name} {v:.1f} kohm" for name, v in found.items() if v is not None and v > IMPEDANCE_LIMIT_KOHM]
    bad = [f"{name} open" for name, v in found.items() if v is None] + high
    return clean(text) + (click.style(clean("; " + ", ".join(bad)), fg="yellow", bold=True) if bad else "")


def _case(d: dict[str, Any]) -> str:
    """The events of a case that a person follows; the rest is in the record."""
    if isinstance(d.get("event"), dict):
        return clean(f"{d['event'].get('kind')}: {d['event'].get('text')}")
    if isinstance(d.get("attendance"), dict):
        a = d["attendance"]
        return clean(f"{a['person']['name']} {'leaves' if a.get('until') is not None else 'attends'}")
    if isinstance(d.get("episode"), dict) and d["episode"].get("entries"):
        e = d["episode"]["entries"][-1]
        told = f"told {', '.join(e['informed'])}: {e['words']}"
        return clean("; ".join([told, *(e[k] for k in ("reply", "action", "outcome") if e.get(k))]))
    if isinstance(d.get("baseline"), dict) and "id" in d["baseline"]:
        return clean(f"baseline {d['baseline']['id']} of {d['baseline']['test']}: {d['baseline']['reason']}")
    if isinstance(d.get("test"), dict) and d.get("state") in ("running", "stopped"):
        return clean(f"{d['test'].get('test')} {'runs' if d['state'] == 'running' else 'stops'}")
    if d.get("state") in ("running", "closing") and "case_id" in d:
        return clean(f"case {d['case_id']} {'is open' if d['state'] == 'running' else 'is closed'}")
    if isinstance(d.get("pause"), dict):
        return clean(f"alarm sound paused by {d['pause'].get('person')}: {d['pause'].get('reason')}")
    return ""


def _stim(d: dict[str, Any]) -> list[str]:
    state = d.get("state")
    if state == "about to fire":
        return [click.style(f"{clean(d.get('test'))}: stimulus in {d.get('in_ms', 0) / 1000:.1f} s", dim=True)]
    if state == "repeat wanted":
        return [click.style(f"{clean(d.get('test'))}: repeat the train now", fg="yellow", bold=True)]
    if state in ("off", "TRIPPED"):
        return [click.style(f"stimulation {clean(state).lower()}: {clean(d.get('reason', ''))}", fg="yellow")]
    if "contact" in d or state in ("contact", "no contact"):
        return [f"{clean(d.get('test'))}: {'contact' if d.get('contact', state == 'contact') else 'no contact'}"]
    return []


def _device(d: dict[str, Any]) -> list[str]:
    if isinstance(d.get("gap"), dict):
        gap = d["gap"]
        return [click.style(f"{gap.get('samples')} samples are missing ({clean(gap.get('cause', ''))})", fg="yellow")]
    if "state" in d:
        detail = f": {clean(d['detail'])}" if d.get("detail") else ""
        return [f"amplifier {clean(d.get('serial', ''))} {clean(d['state'])}{detail}"]
    return [f"{clean(d['aux'])} {'on' if d.get('level') else 'off'}"] if "aux" in d else []
