"""Stimulation by request: lease, arm, confirm, fire, reset; impedances."""

from __future__ import annotations

from ionmd.commands.base import Desk, Later
from ionmd.drivers.base import ArmToken
from ionmd.errors import INTERLOCK, LIMIT, IonmdError, Refused
from ionmd.events import DeliveryArmed, LeaseGiven
from ionmd.room.byhand import MANUAL_SLOT, ManualArm, unlike
from ionmd.room.outside import happened
from ionmd.service.backend import Caller
from ionmd.service.schema import (
    ImpedanceMeasure,
    StimAcquire,
    StimArm,
    StimConfirm,
    StimFire,
    StimLease,
    StimRelease,
    StimReset,
)
from ionmd.stim.delivery import build
from ionmd.stim.lease import Holder
from ionmd.stim.limits import BY_NAME, check_sequence, check_setting, needs_confirmation, refuse
from ionmd.testdef import Stimulus
from ionmd.timers import ARM_TTL_MS, LEASE_KEEPALIVE_MS
from ionmd.units import ma_to_ua, ms_to_samples, v_to_mv

RATE_MIN_HZ = 0.01


def acquire(desk: Desk, p: StimAcquire, caller: Caller) -> object:
    room = desk.room
    person = desk.person(caller, p.by)
    holder = Holder(caller.connection_id, caller.uid, person)
    lease = room.stimulation.acquire(holder, p.take)
    room.bus.emit("stim", LeaseGiven(state="lease", holder=person, taken=p.take))
    return {"lease": lease, "keepalive_ms": LEASE_KEEPALIVE_MS}


def keepalive(desk: Desk, p: StimLease, caller: Caller) -> object:
    desk.room.stimulation.lease.keep_alive(p.lease, caller.connection_id, desk.room.clock_s())
    return {"lease": p.lease, "sample": desk.room.now}


def release(desk: Desk, p: StimRelease, caller: Caller) -> object:
    room = desk.room
    room.stimulation.lease.present(p.lease, caller.uid)
    room.stimulation.lost("the lease was released")
    return {}


def arm(desk: Desk, p: StimArm, caller: Caller) -> object:
    """Load, read back, arm; the token comes back when the device holds exactly this."""
    room = desk.room
    room.need_case()
    room.need_streaming()
    room.stimulation.lease.present(p.lease, caller.uid)
    room.stimulation.need_device()
    output = next((o for o in room.template.output if o.name == p.output), None) if room.template else None
    if output is None:
        names = ", ".join(o.name for o in room.template.output) if room.template else ""
        raise Refused(f"output {p.output} is unknown ({names})", LIMIT)
    volts = output.kind == "transcranial"
    amplitude = p.amplitude_v if volts else p.amplitude_ma
    if amplitude is None:
        raise Refused(f"output {p.output} needs {'amplitude_v' if volts else 'amplitude_ma'}", LIMIT)
    limits = BY_NAME[output.kind]
    check_setting(amplitude, p.width_us, p.count, p.interval_ms, limits, room.stimulation.ceiling(output))
    stimulus = Stimulus(
        output.name, unit="V" if volts else "mA", amplitude=amplitude, width_us=p.width_us, polarity=p.polarity,
        pulses=p.count, interval_ms=p.interval_ms or 0.0,
    )
    limits = BY_NAME[output.kind]
    _need_no_search(desk)
    running = room.stimulation.by_hand.test_of(output)
    sequence = build(stimulus, output.jack, amplitude, running.definition.trigger.zero if running else "first pulse")
    check_sequence(sequence, limits, room.stimulation.ceiling(output))
    if p.rate_hz is not None and not (RATE_MIN_HZ <= p.rate_hz <= limits.pulses_per_min / 60.0 / p.count):
        refuse("rate", f"{p.rate_hz:g}", RATE_MIN_HZ, limits.pulses_per_min / 60.0 / p.count, "deliveries/s")
    value = v_to_mv(amplitude) if volts else ma_to_ua(amplitude)
    confirm = needs_confirmation(value, limits, room.deliveries.last_delivered(output.jack))
    person, later, token = desk.person(caller, p.by), Later(), room.stimulation.by_hand.new_token()
    room.stimulation.by_hand.manual = None
    warnings = [confirm] if confirm else []
    if running is not None and (differs := unlike(sequence, room.stimulation.sequence(running))):
        warnings.append(f"not a sweep of {running.id}: {'; '.join(differs)}")

    def on_device(_: ArmToken | None, error: IonmdError | None) -> None:
        def finish() -> None:
            if error is not None:
                later.answer(None, error)
                return
            expires = room.now + ms_to_samples(ARM_TTL_MS, room.rate_hz)
            room.stimulation.by_hand.hold(
                ManualArm(token, output, sequence, p.site, p.rate_hz, person, confirm, expires)
            )
            room.bus.emit("stim", DeliveryArmed(
                state="armed", output=output.name, site=p.site, amplitude=amplitude, unit=stimulus.unit, person=person,
            ))
            echo = {
                "output": output.name, "jack": output.jack, "unit": "mV" if volts else "uA",
                "pulses": [[x.t_us, x.amplitude, x.width_us, x.biphasic] for x in sequence.pulses],
            }
            later.answer({
                "token": token, "expires_sample": expires, "echo": echo, "confirm": bool(confirm),
                "warnings": warnings,
            })

        desk.post(finish)

    room.control.load_and_arm(MANUAL_SLOT, sequence, ARM_TTL_MS, on_device)
    return later


def _need_no_search(desk: Desk) -> None:
    """A delivery by hand would be taken for an answer to the search."""
    search = desk.room.search
    if search is not None:
        raise Refused(f"a threshold search of {search.state.id} is running: wait for it, or stop the test", INTERLOCK)


def confirm(desk: Desk, p: StimConfirm, caller: Caller) -> object:
    """The same number again; anything else destroys the token."""
    room = desk.room
    armed = room.stimulation.by_hand.find(p.token)
    armed_value = abs(armed.sequence.pulses[0].amplitude)
    value = v_to_mv(p.amplitude) if armed.sequence.volts else ma_to_ua(p.amplitude)
    if value != armed_value:
        happened(room, "disarmed")
        raise Refused(
            f"{p.amplitude:g} was repeated, {armed_value / 1000:g} is armed: the token is destroyed, arm again",
            INTERLOCK,
        )
    armed.confirm = ""
    return {"id": armed.output.name}


def fire(desk: Desk, p: StimFire, caller: Caller) -> object:
    room = desk.room
    holder = room.stimulation.lease.holder
    if holder is None or holder.uid != caller.uid:
        raise Refused("the stimulation lease is not yours", INTERLOCK)
    armed = room.stimulation.by_hand.find(p.token)
    _need_no_search(desk)
    if armed.confirm:
        raise Refused(f"{armed.confirm}: repeat the amplitude with stim.confirm first", INTERLOCK)
    if armed.next_sample is not None:
        raise Refused(f"it is being delivered {armed.rate_hz:g} times a second already: stim.off ends it", INTERLOCK)
    if room.technical.cautery:
        raise Refused("cautery is active: stimulation is paused, fire again when it ends", INTERLOCK)
    delivery = room.stimulation.by_hand.fire(armed, at_sample=p.at_sample)
    return {"delivery": delivery.nonce, "at_sample": delivery.asked_sample}


def reset(desk: Desk, p: StimReset, caller: Caller) -> object:
    """Leave the latched safe state; the reason is recorded, and everything stays disarmed."""
    room = desk.room
    room.stimulation.lease.present(p.lease, caller.uid)
    room.stimulation.need_device()
    if not room.stimulation.tripped and not room.deliveries.latched:
        raise Refused("nothing is latched off: no reset is needed (`ionmd stim status`)", INTERLOCK)
    later = Later()

    def on_device(error: IonmdError | None) -> None:
        def finish() -> None:
            if error is not None:
                later.answer(None, error)
                return
            room.deliveries.latched = ""
            room.stimulation.tripped = 0
            room.technical.over_all("stimulus.stray", f"reset: {p.reason}")
            room.technical.over_all("stimulus.tripped", f"reset: {p.reason}")
            later.answer({"id": "reset"})

        desk.post(finish)

    room.control.reset(room.stimulation.tripped, on_device)
    return later


def impedance(desk: Desk, p: ImpedanceMeasure, caller: Caller) -> object:
    """Low-current mode of the device; never while anything is armed.  Results arrive as `quality` events too."""
    room = desk.room
    room.need_streaming()
    room.stimulation.need_device()
    _need_no_search(desk)
    if room.stimulation.by_hand.armed is not None:
        raise Refused("a delivery is armed: `ionmd stim off`, or wait 10 s, before measuring impedances", INTERLOCK)
    running = [s.id for s in room.tests.values() if s.stimulating]
    if running:
        raise Refused(f"{', '.join(running)} may stimulate: stop them before measuring impedances", INTERLOCK)
    by_label = {e.label: e.input for e in room.electrodes.values()}
    unknown = [e for e in p.electrodes if e not in by_label]
    if unknown:
        raise Refused(f"electrodes {', '.join(unknown)} are not in the montage", LIMIT)
    wanted = p.inputs or [by_label[e] for e in p.electrodes] or sorted(by_label.values()) or range(room.inputs)
    inputs = tuple(i for i in wanted if i < room.inputs)
    if not inputs or (p.inputs and len(inputs) < len(p.inputs)):
        raise Refused(f"inputs {list(wanted)} came, 0 to {room.inputs - 1} were expected", LIMIT)
    later = Later()
    room.technical.await_impedances(inputs, later.answer)

    def on_device(error: IonmdError | None) -> None:
        if error is not None:
            desk.post(lambda: later.answer(None, error))

    room.control.impedance(inputs, on_device)
    return later
