"""From exec to READY=1, with a unit plugged in."""

from __future__ import annotations

from bench.figures.cart import Cart
from bench.figures.row import Row, percentile

LIMIT_S = 2.0


def rows(quick: bool) -> list[Row]:
    starts = []
    with Cart("quiet") as cart:
        for _ in range(5 if quick else 40):
            cart.stop_daemon()
            starts.append(cart.start_daemon())
    p95 = percentile(starts, 95)
    value = f"p95 {p95:.2f} s, median {percentile(starts, 50):.2f} s of {len(starts)} starts"
    return [Row("start to READY=1", f"p95 <= {LIMIT_S:g} s", value, p95 <= LIMIT_S)]
