"""Events as lines for a terminal: tiny waveforms, readings, alarms.

In: a topic and its data as plain dicts.  Out: lines.  Always: text from elsewhere is made printable; nothing is
drawn that the event does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from ionmd.cli.common import clean
from ionmd.cli.status import alarm_colour, alarm_line

WIDTH = 40  # characters; two samples each
_LEFT = (0x40, 0x04, 0x02, 0x01)  # dots of a braille cell from the bottom up
_RIGHT = (0x80, 0x20, 0x10, 0x08)


def waveform(values: Sequence[float], width: int = WIDTH, scale: float | None = None) -> str:
    """One row of braille: four levels, two columns a character; each column is the value furthest from the middle.

    scale   uV from the middle to the edge; None: the largest of the values"""
    if len(values) == 0:
        return ""
    columns = min(2 * width, len(values))
    picked = []
    for c in range(columns):
        first, end = c * len(values) // columns, (c + 1) * len(values) // columns
        picked.append(max(values[first : max(end, first + 1)], key=abs))
    reach = scale if scale is not None else max(abs(v) for v in picked)
    if not reach > 0.0:
        reach = 1.0
    levels = [min(3, max(0, int((v / reach + 1.0) * 2.0))) for v in picked]
    if len(levels) % 2:
        levels.append(levels[-1])
    pairs = zip(levels[::2], levels[1::2], strict=True)
    return "".join(chr(0x2800 + _LEFT[a] + _RIGHT[b]) for a, b in pairs)


def lines(topic: str, data: Any, seconds: float | None = None) -> list[str]:
    """One event as text; `seconds` is the case time that goes in front."""
    if not isinstance(data, Mapping):
        return []
    when = f"{seconds:8.1f} s  " if seconds is not None else ""
    made = _MAKERS.get(topic, _plain)(topic, data)
    return [when + made[0], *(" " * len(when) + line for line in made[1:])] if made else []


def _average(_: str, d: Mapping[str, Any]) -> list[str]:
    from ionmd.model import decode_curve

    if "curve" not in d:
        return []
    curves = decode_curve(dict(d["curve"]))
    stimulus = d.get("stimulus") or {}
    delivered = stimulus.get("delivered_ma") or stimulus.get("delivered_v")
    head = f"{clean(d.get('test'))}  {d.get('sweeps', 0)} sweeps, {d.get('rejected', 0)} rejected"
    if delivered is not None:
        head += f", delivered {delivered:.1f} {'mA' if stimulus.get('delivered_ma') else 'V'}"
    if not curves.size:
        return [head]
    rows = curves.reshape(len(d["derivations"]), -1)
    sign = up(str(d.get("test", "")))
    out = [click.style(head, fg="blue")]
    for name, row in zip(d["derivations"], rows, strict=False):
        values = [sign * float(v) for v in row]
        out.append(f"  {clean(name):>10} {waveform(values)} {max(values) - min(values):7.2f} uV")
    return out


def up(test: str) -> float:
    """-1 for tests that are shown negative up."""
    from ionmd import catalog

    found = catalog.tests().get(test)
    return -1.0 if found is not None and found.test.display == "negative up" else 1.0


def _reading(_: str, d: Mapping[str, Any]) -> list[str]:
    vs = d.get("vs") or {}
    ratio = vs.get("amplitude_ratio")
    marks = ", ".join(f"{clean(m['label'])} {m['latency_ms']:.1f} ms" for m in d.get("markers", [])
                      if m.get("latency_ms") is not None)  # fmt: skip
    sizes = ", ".join(f"{clean(m['label'])} {m['amplitude_uv']:.2f} uV" for m in d.get("measures", [])
                      if m.get("amplitude_uv") is not None)  # fmt: skip
    parts = [f"{clean(d.get('test'))} {clean(d.get('derivation'))}: {clean(d.get('status'))}", marks, sizes]
    if ratio is not None:
        parts.append(f"{100 * ratio:.0f} % of baseline")
    return ["; ".join(p for p in parts if p)]


def _alarm(_: str, d: Mapping[str, Any]) -> list[str]:
    return [alarm_line(dict(d)), *(f"    {clean(e)}" for e in d.get("evidence", []))]


def alarm_banner(d: Mapping[str, Any], seconds: float, full: bool) -> list[str]:
    """An alarm that nobody overlooks: what it is, then its sentence; `full`: between blank lines, with its evidence."""
    word = "CHANGE" if d.get("kind") == "physiological" else "TECHNICAL ALARM"
    colour = alarm_colour(dict(d))
    head = f"{clean(d.get('id', ''))} {word}, {clean(d.get('priority', ''))}, {clean(d.get('state', ''))}"
    if d.get("state") == "cleared" and d.get("cleared_by"):
        head += f": {clean(d['cleared_by'])}"
    if d.get("state") == "acknowledged" and d.get("acknowledged_by"):
        head += f" by {clean(d['acknowledged_by'])}"
    lines = [f"{seconds:8.1f} s  " + click.style(head, fg=colour, bold=True, reverse=full)]
    if d.get("state") != "cleared":
        lines.append(f"{'':12}" + click.style(clean(d.get("sentence", "")), fg=colour, bold=full))
    if not full:
        return lines
    return ["", *lines, *(f"{'':14}{clean(e)}" for e in d.get("evidence", [])), ""]


def _plain(topic: str, d: Mapping[str, Any]) -> list[str]:
    return [f"{topic}: " + _words(d)]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{clean(k)} {_words(v)}" for k, v in value.items() if v not in (None, "", [], {}))
    if isinstance(value, (list, tuple)):
        return "[" + "; ".join(_words(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else clean(value)


_MAKERS = {"average": _average, "reading": _reading, "alarm": _alarm}
