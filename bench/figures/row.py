"""One figure: what was asked, what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """`value` and `target` in words, with units; `ok` says whether the target was met."""

    figure: str
    target: str
    value: str
    ok: bool

    def public(self) -> dict[str, object]:
        return asdict(self)


def table(rows: list[Row]) -> str:
    wide = max(len(r.figure) for r in rows)
    lines = []
    for r in rows:
        lines.append(f"{'ok    ' if r.ok else 'MISSED'} {r.figure:<{wide}}  asked  {r.target}")
        lines.append(f"       {'':<{wide}}  got    {r.value}")
    return "\n".join(lines)


def percentile(values: list[float], p: float) -> float:
    """Nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(p / 100.0 * len(ordered)))]
