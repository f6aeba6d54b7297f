"""What a stimulator output may do: checked here first and again, independently, in the firmware.

In: a Sequence in device units and the kind of its output.  Out: nothing, or Refused(LIMIT) that names the value,
the range and what to do.  Pure; imports the ground only.  Numbers: docs/wire/ionm1.md section 7 and
docs/sources.md#stimulator-limits.  The rule for every range is `if not (lo <= x <= hi): refuse`, on integers in
device units, after physical values passed the same rule: nan, infinity and booleans fail both.
"""

from __future__ import annotations

from dataclasses import dataclass

from ionmd.drivers.base import Pulse, Sequence
from ionmd.errors import LIMIT, Refused


@dataclass(frozen=True)
class KindLimits:
    """Hard limits of one kind of output; amplitude in uA or mV, whichever `volts` says."""

    kind: int
    name: str
    volts: bool
    max_amplitude: int
    width_us: tuple[int, int]
    max_pulses: int
    interval_us: tuple[int, int]
    gap_ms: int
    pulses_per_min: int
    energy_uj: int
    warn_amplitude: int  # above this a second message must confirm the value


DELIVERY_US = 10_000_000  # last pulse of one delivery
TRANSCUTANEOUS = KindLimits(
    1, "transcutaneous", False, 100_000, (50, 1000), 4, (2000, DELIVERY_US), 15, 3000, 50_000, 60_000
)
TRANSCRANIAL = KindLimits(2, "transcranial", True, 1_000_000, (50, 100), 9, (1000, 10_000), 1000, 60, 50_000, 500_000)
PROBE = KindLimits(3, "probe", False, 40_000, (50, 300), 5, (1000, DELIVERY_US), 50, 1200, 50_000, 20_000)
BY_NAME = {limits.name: limits for limits in (TRANSCUTANEOUS, TRANSCRANIAL, PROBE)}

# Confirm when the new amplitude is more than this times the last delivered one (faults O02: unit slips).
STEP_CONFIRM_RATIO = 2.0


def pulse_energy_uj(pulse: Pulse, volts: bool) -> float:
    """Energy of one pulse into 1 kohm, in microjoule; a biphasic pulse counts both phases."""
    a = abs(pulse.amplitude) * 1e-3  # V or mA
    watt = a * a / 1000.0 if volts else a * a * 1e-6 * 1000.0
    return watt * pulse.width_us * (2 if pulse.biphasic else 1)


def refuse(what: str, came: object, lo: float, hi: float, unit: str, advice: str = "") -> None:
    """Raise the refusal of one limit."""
    text = f"{what}: {came} {unit} came, {lo:g} to {hi:g} {unit} is allowed"
    raise Refused(text + (f"; {advice}" if advice else ""), LIMIT, {"field": what, "limit": [lo, hi]})


def check_setting(
    amplitude: float, width_us: int, count: int, interval_ms: float | None, limits: KindLimits, max_amplitude: int = 0
) -> None:
    """Physical values before they become pulses in device units: nothing that is not finite or would make a billion
    pulses gets that far.  amplitude: mA or V; max_amplitude as in `check_sequence`."""
    ceiling = min(max_amplitude or limits.max_amplitude, limits.max_amplitude) / 1000
    if not (0.0 < amplitude <= ceiling):
        refuse("amplitude", f"{amplitude:g}", 0.001, ceiling, "V" if limits.volts else "mA")
    if not (limits.width_us[0] <= width_us <= limits.width_us[1]):
        refuse("width", width_us, *limits.width_us, "us")
    if not (1 <= count <= limits.max_pulses):
        refuse("pulses", count, 1, limits.max_pulses, "pulses a delivery")
    lo, hi = limits.interval_us[0] / 1000, limits.interval_us[1] / 1000
    if count > 1 and not (lo <= (interval_ms or 0.0) <= hi):
        refuse("interval between pulses", f"{interval_ms or 0.0:g}", lo, hi, "ms")


def check_sequence(sequence: Sequence, limits: KindLimits, max_amplitude: int = 0) -> None:
    """Refuse a delivery that its output may never make.

    max_amplitude  a lower ceiling of the template or configuration (uA or mV; 0: the hard limit)."""
    if sequence.volts is not limits.volts:
        raise Refused(
            f"output {sequence.output} is {limits.name}: an amplitude in {'V' if limits.volts else 'mA'} was expected",
            LIMIT,
        )
    n = len(sequence.pulses)
    if not (1 <= n <= limits.max_pulses):
        refuse("pulses", n, 1, limits.max_pulses, "pulses a delivery")
    ceiling = min(max_amplitude or limits.max_amplitude, limits.max_amplitude)
    unit = "V" if limits.volts else "mA"
    previous_us = None
    for pulse in sequence.pulses:
        if not all(type(x) is int for x in (pulse.t_us, pulse.amplitude, pulse.width_us)):
            raise Refused("a pulse in device units must be whole numbers", LIMIT)
        if not (1 <= abs(pulse.amplitude) <= ceiling):
            refuse("amplitude", abs(pulse.amplitude) / 1000, 0.001, ceiling / 1000, unit)
        lo, hi = limits.width_us
        if not (lo <= pulse.width_us <= hi):
            refuse("width", pulse.width_us, lo, hi, "us")
        energy = pulse_energy_uj(pulse, limits.volts)
        if not (0.0 < energy <= limits.energy_uj):
            refuse("energy into 1 kohm", round(energy / 1000, 3), 0, limits.energy_uj / 1000, "mJ",
                   "lower the amplitude or the width")
        if previous_us is None:
            if not (pulse.t_us == 0):
                raise Refused(f"the first pulse is at 0 us, {pulse.t_us} us came", LIMIT)
        else:
            lo, hi = limits.interval_us
            if not (lo <= pulse.t_us - previous_us <= hi):
                refuse("interval between pulses", (pulse.t_us - previous_us) / 1000, lo / 1000, hi / 1000, "ms")
        previous_us = pulse.t_us
    if not (sequence.pulses[-1].t_us <= DELIVERY_US):
        refuse("length of the delivery", sequence.pulses[-1].t_us / 1000, 0, DELIVERY_US / 1000, "ms")
    if not (0 <= sequence.zero_at < n):
        refuse("time-zero pulse", sequence.zero_at, 0, n - 1, "")


def needs_confirmation(amplitude: int, limits: KindLimits, last_delivered: int) -> str:
    """Why this amplitude (uA or mV, magnitude) wants a second message that repeats the value; empty: it does not."""
    unit = "V" if limits.volts else "mA"
    if amplitude > limits.warn_amplitude:
        return f"{amplitude / 1000:g} {unit} is above the warning level of {limits.warn_amplitude / 1000:g} {unit}"
    if last_delivered > 0 and amplitude > STEP_CONFIRM_RATIO * last_delivered:
        return f"{amplitude / 1000:g} {unit} is more than twice the last delivered {last_delivered / 1000:g} {unit}"
    return ""


def tolerance(set_amplitude: int, volts: bool) -> int:
    """Largest |delivered - set| that counts as delivered: max(10 %, 0.05 mA), or 10 % / 5 V (uA or mV)."""
    return max(abs(set_amplitude) // 10, 5000 if volts else 50)
