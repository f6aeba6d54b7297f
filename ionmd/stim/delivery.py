"""From a stimulus definition to the pulses of one delivery, and from pulse marks back to what was delivered.

Pure.  `build` gives the Sequence that goes to the device; `Ledger` collects the pulse marks of each nonce until the
delivery is complete, and says when time zero was and whether every pulse was within tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ionmd.drivers.base import Pulse, Sequence
from ionmd.model import Mark, MarkKind, StimulusSummary
from ionmd.testdef import Stimulus
from ionmd.units import ma_to_ua, v_to_mv

# Sweep k of an alternating stimulus has this polarity of its first phase.
ALTERNATION = (1, -1)


def build(stimulus: Stimulus, jack: int, amplitude: float, zero: str = "first pulse", sign: int = 1) -> Sequence:
    """The Sequence of one delivery of `stimulus` at `amplitude` (mA or V) on output `jack`."""
    volts = stimulus.unit == "V"
    value = v_to_mv(amplitude) if volts else ma_to_ua(amplitude)
    if stimulus.polarity == "cathodal":
        sign = -sign
    step_us = round(stimulus.interval_ms * 1000)
    pulses = tuple(
        Pulse(i * step_us, sign * value, stimulus.width_us, stimulus.polarity == "biphasic")
        for i in range(stimulus.pulses)
    )
    zero_at = stimulus.pulses - 1 if zero == "last pulse" else 0
    return Sequence(jack, pulses, volts, zero_at, round(stimulus.min_gap_ms))


@dataclass
class Delivery:
    """One delivery as it came back: `zero_sample` is the case sample of its declared time zero."""

    nonce: int
    test: str
    output: int
    pulses: int
    zero_at: int
    asked_sample: int
    volts: bool = False
    set: float = 0.0
    width_us: int = 0
    polarity: int = 1
    zero_sample: int | None = None
    marks: list[Mark] = field(default_factory=list)
    ended: bool = False
    refused: int = 0
    cancelled: bool = False  # called back by us: that it does not come is no failure
    worst: float | None = None  # delivered value farthest from its set value

    @property
    def no_contact(self) -> bool:
        return any(m.no_contact for m in self.marks)

    @property
    def ok(self) -> bool:
        return not self.refused and len(self.marks) == self.pulses and all(m.ok for m in self.marks)


class Ledger:
    """Open deliveries by nonce.  Marks for a nonce that nobody asked for are strays: the caller trips."""

    def __init__(self) -> None:
        self._open: dict[int, Delivery] = {}

    def pending(self) -> list[Delivery]:
        """Those that have not come back yet, oldest first."""
        return list(self._open.values())

    def expect(self, delivery: Delivery) -> None:
        self._open[delivery.nonce] = delivery

    def forget_before(self, sample: int) -> list[Delivery]:
        """Deliveries asked for before `sample` that never came back, removed; cancelled ones go silently."""
        late = [d for d in self._open.values() if d.asked_sample < sample and not d.marks]
        for d in late:
            del self._open[d.nonce]
        return [d for d in late if not d.cancelled]

    def cancel(self, test: str | None = None, output: int | None = None) -> None:
        """After stim off, a new setting or a lost device: what is on its way (all, or of one test or output) may come
        or not."""
        for delivery in self._open.values():
            if test in (None, delivery.test) and output in (None, delivery.output):
                delivery.cancelled = True

    def withdraw(self, nonce: int) -> Delivery | None:
        """A delivery that the device never accepted."""
        return self._open.pop(nonce, None)

    def take(self, mark: Mark) -> Delivery | None:
        """Book one PULSE, DELIVERY_END or FIRE_REFUSED mark; the delivery it belongs to, None for a stray."""
        delivery = self._open.get(mark.nonce)
        if delivery is None:
            return None
        if mark.kind is MarkKind.PULSE:
            delivery.marks.append(mark)
            if mark.pulse == delivery.zero_at:
                delivery.zero_sample = mark.sample
            miss = abs(abs(mark.delivered) - abs(mark.set))
            if delivery.worst is None or miss > abs(abs(delivery.worst) - abs(mark.set)):
                delivery.worst = mark.delivered
            if mark.last:
                delivery.ended = True
        elif mark.kind is MarkKind.DELIVERY_END:
            delivery.ended = True
            if len(delivery.marks) < delivery.pulses:
                delivery.refused = delivery.refused or mark.value or 21
        elif mark.kind is MarkKind.FIRE_REFUSED:
            delivery.ended, delivery.refused = True, mark.value
        if delivery.ended:
            del self._open[mark.nonce]
        return delivery


class StimulusTally:
    """What the sweeps of one average were stimulated with; `summary()` goes into readings."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._n = 0
        self._set = 0.0
        self._delivered = 0.0
        self._width_us = 0
        self._pulses = 1
        self._volts = False
        self._failed = 0
        self._polarity = "monophasic"

    def add(self, delivery: Delivery, polarity: str) -> None:
        if not delivery.ok:
            self._failed += 1
            return
        self._n += 1
        self._set += abs(delivery.marks[0].set)
        self._delivered += sum(abs(m.delivered) for m in delivery.marks) / len(delivery.marks)
        self._width_us = delivery.marks[0].width_us
        self._pulses = delivery.pulses
        self._volts = delivery.volts
        self._polarity = polarity

    def merge(self, other: StimulusTally) -> None:
        self._n += other._n
        self._set += other._set
        self._delivered += other._delivered
        self._failed += other._failed
        if other._n:
            self._width_us, self._pulses, self._volts = other._width_us, other._pulses, other._volts
            self._polarity = other._polarity

    def summary(self, rate_hz: float | None) -> StimulusSummary:
        n = max(1, self._n)
        mean_set, mean_delivered = round(self._set / n, 4), round(self._delivered / n, 4)
        ma = (mean_set, mean_delivered) if not self._volts else (None, None)
        volt = (mean_set, mean_delivered) if self._volts else (None, None)
        return StimulusSummary(
            self._n > 0 and self._failed == 0, ma[0], ma[1], volt[0], volt[1],
            self._width_us, self._polarity, rate_hz, self._pulses, self._failed,
        )
