"""The USB driver over the real libusb: streaming, every way a cable can fail, and pulses where they were asked for."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import pytest

from ionmd.drivers.base import DeviceConfig, OutputConfig, Pulse, Sequence
from ionmd.drivers.ep0 import LIMIT_HASH, LIMIT_TABLE
from ionmd.drivers.ionm1 import Ionm1, queue_shape, ring_bytes
from ionmd.errors import ConfigError, DeviceError, DeviceGone, DeviceRefused
from ionmd.model import Gap, MarkKind
from tests.usb_rig import Rig, device_state, inject, over_usb, usb_unit  # noqa: F401

ONE = Sequence(0, (Pulse(0, 20_000, 200),))


def refusal(action) -> str:
    try:
        action()
    except DeviceRefused as error:
        return error.reason
    raise AssertionError("it was not refused")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# ---------------------------------------------------------------- without USB


def test_the_limit_table_is_the_text_of_the_wire_document():
    text = (Path(__file__).parents[1] / "docs" / "wire" / "ionm1.md").read_text()
    table = re.search(r"```\n(ionm1 limit table 1\n.*?)\n```", text, re.S)[1]
    assert table == LIMIT_TABLE and hashlib.sha256(table.encode()).digest()[:16] == LIMIT_HASH


@pytest.mark.parametrize("config", [
    DeviceConfig(64, 40_000, 40), DeviceConfig(64, 40_000, 80), DeviceConfig(64, 40_000, 4096),
    DeviceConfig(1, 1000, 1), DeviceConfig(32, 20_000, 40), DeviceConfig(8, 10_000, 20), DeviceConfig(64, 40_000, 10),
])  # fmt: skip
def test_at_least_64_ms_are_in_flight_and_two_seconds_fit_the_ring(config):
    transfers, size = queue_shape(config)
    assert transfers * config.block_samples * 1000 / config.rate_hz >= 64 and size % 512 == 0
    assert transfers * size <= 16 << 20
    a_second = config.rate_hz / config.block_samples * (64 + 3 * config.inputs * config.block_samples + 4)
    assert ring_bytes(config) >= 2 * a_second


@pytest.mark.parametrize("config", [DeviceConfig(64, 40_000, 1), DeviceConfig(0), DeviceConfig(65),
                                    DeviceConfig(32, 999), DeviceConfig(32, 40_001), DeviceConfig(32, 20_000, 4097)])
def test_a_configuration_that_no_queue_can_carry_is_refused_before_any_hardware(config):
    with pytest.raises(ConfigError, match="device:"):
        Ionm1(config)


def test_closing_a_driver_that_was_never_opened_is_safe():
    amp = Ionm1()
    amp.close()
    amp.close()
    assert amp.status().state == "absent" and amp.stimulator() is None
    with pytest.raises(DeviceGone):
        amp.start()


# ---------------------------------------------------------------- streaming


@over_usb(speed=1.0, inputs=64, rate_hz=40_000, block_samples=40)
def test_64_inputs_at_40_khz_in_1_ms_blocks_arrive_whole():
    rig = Rig(64, 40_000, 40).start().run(2 * 40_000)
    stats = rig.amp.stats()
    assert rig.lost == 0 and rig.gaps == [(rig.first, 0, Gap.SESSION)]
    assert (stats.bad_frames, stats.duplicates, stats.stale_frames, stats.errors) == (0, 0, 0, {})
    assert rig.next - rig.first == rig.samples
    rig.amp.close()


@over_usb()
def test_the_identity_is_the_units_and_its_configuration_is_the_one_asked_for():
    rig = Rig(16, 20_000, 50)
    identity = rig.amp.open("SIM-0001")
    assert (identity.serial, identity.source, identity.rate_hz) == ("SIM-0001", "simulated", 20_000.0)
    assert len(identity.inputs) == 16 and identity.limit_table_ok and identity.stimulator
    rig.start().run(3000)
    assert rig.amp.status().state == "streaming" and rig.amp.status().inputs == 16
    rig.amp.stop()
    rig.amp.start()  # a new session on the same counter: the pause is an exact gap
    rig.beat()
    rig.run(3000)
    assert [bool(g & Gap.SESSION) for _, _, g in rig.gaps] == [True, True]
    assert rig.next - rig.first == rig.samples + rig.lost
    rig.amp.close()


@over_usb()
def test_spoiled_blocks_cost_exactly_themselves():
    rig = Rig().start().run(2000)
    for kind in ("drop", "duplicate", "corrupt", "bit_error", "reorder"):
        inject(kind, at=rig.next + 3000)
        rig.run(6000)
    stats = rig.amp.stats()
    assert rig.next - rig.first == rig.samples + rig.lost and rig.lost % 20 == 0
    # one dropped, one corrupted, one with a wrong bit, and the late one of a reordered pair
    assert rig.lost == 80 and len(rig.gaps) == 5
    assert stats.duplicates >= 2 and stats.bad_frames >= 1
    rig.amp.close()


@over_usb(speed=1.0)
def test_what_the_host_does_not_fetch_fills_the_ring_and_is_counted_then_lost_exactly():
    rig = Rig()
    import ionmd.drivers.ionm1 as module

    module.ring_bytes = lambda config: 16_384  # about 25 blocks of 2 ms
    rig.start().run(200)
    amp = rig.amp
    stop = rig.next + 3000
    while device_state()["sample"] < stop:
        rig.beat()
    rig.run(2000)
    assert amp.stats().errors["ring_lost_transfers"] >= 20
    assert rig.lost >= 400 and rig.lost % 20 == 0 and rig.next - rig.first == rig.samples + rig.lost
    amp.close()


@over_usb(speed=1.0, inputs=64)
def test_an_overflowing_device_says_so_and_the_loss_is_exact():
    rig = Rig(64, 10_000, 20).start().run(2000)
    inject("overflow", ms=1200)
    rig.run(until=lambda: rig.lost > 0)
    gap = rig.gaps[-1][2]
    assert gap & Gap.OVERFLOW and gap & Gap.LOST and rig.next - rig.first == rig.samples + rig.lost
    assert rig.amp.stats().errors["dropped_blocks"] * 20 == rig.lost
    rig.amp.close()


# ---------------------------------------------------------------- the cable


@over_usb()
def test_an_unplug_shows_after_the_last_sample_and_the_same_unit_is_taken_again_with_an_exact_gap():
    rig = Rig().start().run(2000)
    files = []
    for _ in range(4):
        boot = rig.amp.status().boot_id
        inject("unplug", replug_ms=300)
        gone = rig.run_until_gone()
        assert "left the bus" in str(gone)
        assert rig.amp.status().state == "lost"
        rig.amp.close()
        before = rig.next
        rig.start().run(1000)
        assert rig.amp.status().boot_id == boot
        first, lost, gap = rig.gaps[-1]
        assert gap == Gap.SESSION | Gap.LOST and lost == first - before and lost >= 3000
        files.append(open_files())
    assert files[-1] == files[0]
    assert rig.next - rig.first == rig.samples + rig.lost
    rig.amp.close()


@over_usb(speed=1.0)
def test_an_unplug_in_the_middle_of_a_block_costs_that_block_and_the_unit_is_absent():
    rig = Rig().start().run(1000)
    inject("unplug", after_bytes=300)
    rig.run_until_gone()
    assert rig.next - rig.first == rig.samples and rig.samples % 20 == 0
    rig.amp.close()
    try:
        rig.amp.open("SIM-0001")
        raise AssertionError("it opened")
    except DeviceGone as gone:
        assert "no unit SIM-0001" in str(gone) and "expected" not in str(gone)
    assert rig.amp.status().state == "absent"


@over_usb()
def test_a_rebooted_unit_starts_a_session_with_another_boot_id_and_no_invented_gap():
    rig = Rig().start().run(2000)
    boot = rig.amp.status().boot_id
    inject("reboot", ms=100)
    rig.run_until_gone()
    rig.amp.close()
    rig.start().run(500)
    first, lost, gap = rig.gaps[-1]
    assert rig.amp.status().boot_id != boot and gap == Gap.SESSION and lost == 0 and first < 2000
    rig.amp.close()


@over_usb(seed=2)
def test_another_unit_is_not_adopted_and_both_are_named():
    rig = Rig().start().run(500)
    inject("unplug")
    rig.run_until_gone()
    rig.amp.close()
    inject("replug", serial="SIM-0002")
    deadline = time.monotonic() + 10
    while rig.amp.status().state != "foreign" and time.monotonic() < deadline:
        try:
            rig.amp.open("SIM-0001")
            raise AssertionError("it was adopted")
        except DeviceGone as gone:
            said = str(gone)
    assert "SIM-0001 was expected" in said and "SIM-0002" in said
    assert rig.amp.open(None).serial == "SIM-0002"
    rig.amp.close()


@over_usb()
def test_a_halted_endpoint_is_cleared_and_the_stream_goes_on_in_its_session():
    rig = Rig().start().run(1000)
    session = rig.amp.status().session
    inject("stall", n=1)
    rig.run(until=lambda: rig.amp.stats().errors.get("usb_stalls", 0) > 0)
    rig.run(3000)
    assert rig.amp.status().session == session and rig.next - rig.first == rig.samples + rig.lost
    rig.amp.close()


@over_usb()
def test_an_endpoint_that_halts_again_and_again_is_given_up():
    rig = Rig().start().run(1000)
    inject("stall", n=1000)
    gone = rig.run_until_gone()
    assert "stays halted" in str(gone)
    inject("clear")
    rig.amp.close()
    rig.start().run(500)
    rig.amp.close()


@over_usb(speed=1.0)
def test_a_wedged_endpoint_gives_nothing_and_a_reopen_frees_it():
    rig = Rig().start().run(1000)
    inject("wedge")
    rig.run(until=lambda: device_state()["sample"] > rig.next + 3000)
    assert not rig.amp.read_into(rig.block)
    rig.samples += rig.block.n  # rows of a block that never became complete were handed out all the same
    rig.amp.close()
    rig.block.clear()
    rig.start().run(1000)
    assert rig.gaps[-1][2] == Gap.SESSION | Gap.LOST and rig.next - rig.first == rig.samples + rig.lost
    rig.amp.close()


@over_usb()
def test_a_refused_permission_names_the_rule_to_install():
    inject("deny_open", errno=13, ms=60_000)
    amp = Ionm1()
    try:
        amp.open("SIM-0001")
        raise AssertionError("it opened")
    except DeviceError as error:
        assert "70-ionmd.rules" in str(error) and "permission" in str(error)
    assert amp.status().state == "failed"
    amp.close()


@over_usb()
def test_a_firmware_of_another_protocol_or_limit_table_is_refused_or_only_listened_to():
    inject("identity", limit_table_version=2)
    rig = Rig()
    identity = rig.amp.open("SIM-0001")
    assert not identity.limit_table_ok and rig.amp.stimulator() is None
    rig.amp.close()
    inject("identity", protocol_major=2)
    try:
        rig.amp.open("SIM-0001")
        raise AssertionError("it opened")
    except DeviceError as error:
        assert "protocol 2" in str(error)


# ---------------------------------------------------------------- stimulation


@over_usb()
def test_fires_give_pulse_marks_at_exactly_the_samples_asked_for():
    rig = Rig().start().run(1000)
    stim = rig.amp.stimulator()
    stim.load(0, ONE)
    token = stim.arm(0, 10_000)
    wanted = [rig.next + 3000 + 2000 * k for k in range(5)]
    nonces = range(rig.next, rig.next + 5)  # above those of the tests before: the device remembers the greatest
    for nonce, sample in zip(nonces, wanted, strict=True):
        stim.fire(token, nonce, sample)
    rig.run(until=lambda: rig.next > wanted[-1] + 500)
    pulses = [m for m in rig.marks if m.kind == MarkKind.PULSE]
    assert [(m.sample, m.nonce) for m in pulses] == list(zip(wanted, nonces, strict=True))
    assert all(m.set == 20.0 and m.ok and m.last and m.output == 0 for m in pulses)
    assert [m.nonce for m in rig.marks if m.kind == MarkKind.DELIVERY_END] == list(nonces)
    rig.amp.close()


@over_usb()
def test_every_refusal_carries_the_firmwares_own_word():
    rig = Rig().start().run(1000)
    stim = rig.amp.stimulator()
    n = rig.next
    assert refusal(lambda: stim.load(0, Sequence(0, (Pulse(0, 200_000, 200),)))) == "LIMIT"
    assert refusal(lambda: stim.arm(5, 10_000)) == "STATE"
    stim.load(0, ONE)
    assert refusal(lambda: stim.arm(0, 100)) == "RANGE"
    token = stim.arm(0, 10_000)
    assert refusal(lambda: stim.fire(token, n, 5)) == "LATE"
    stim.fire(token, n + 7, rig.next + 3000)
    assert refusal(lambda: stim.fire(token, n + 7, rig.next + 6000)) == "NONCE"
    stim.abort(0)
    assert refusal(lambda: stim.fire(token, n + 8, rig.next + 6000)) == "TOKEN"
    token = stim.arm(0, 10_000)
    stim.off()
    assert refusal(lambda: stim.fire(token, n + 9, rig.next + 6000)) in ("TOKEN", "STATE")
    stim.reset(14)  # nothing is latched: nothing to leave
    rig.run(4000)
    assert not [m for m in rig.marks if m.kind == MarkKind.PULSE]
    rig.amp.close()


@over_usb()
def test_a_fire_whose_reply_is_lost_is_not_repeated_and_pulses_once():
    rig = Rig().start().run(1000)
    stim = rig.amp.stimulator()
    stim.load(0, ONE)
    token = stim.arm(0, 10_000)
    inject("lose_reply", n=1, request=0x55)
    at = rig.next + 3000
    stim.fire(token, at, at)
    rig.run(until=lambda: rig.next > at + 500)
    assert [m.sample for m in rig.marks if m.kind == MarkKind.PULSE] == [at]
    assert rig.amp.stats().errors["fire_reply_lost"] == 1
    rig.amp.close()


@over_usb()
def test_impedances_come_as_marks_of_the_inputs_asked_for():
    rig = Rig().start().run(1000)
    rig.amp.stimulator().impedance((0, 3, 5))
    seen = lambda: [m.output for m in rig.marks if m.kind == MarkKind.IMPEDANCE]  # noqa: E731
    rig.run(until=lambda: len(seen()) >= 3)
    assert sorted(seen()[:3]) == [0, 3, 5]
    assert all(m.value > 0 for m in rig.marks if m.kind == MarkKind.IMPEDANCE)
    rig.amp.close()


@over_usb()
def test_off_never_raises_even_when_the_unit_is_gone():
    rig = Rig().start().run(500)
    stim = rig.amp.stimulator()
    inject("unplug")
    rig.run_until_gone()
    stim.off()
    rig.amp.close()
    stim.off()


def test_outputs_travel_as_the_wire_document_lays_them_out():
    from ionmd.drivers.ep0 import pack_config

    raw = pack_config(DeviceConfig(8, 10_000, 20, (OutputConfig(1), OutputConfig(3, True, 5000))))
    assert raw[:16].hex() == "010024001027000008001400" + "02000000"
    assert raw[16:32].hex() == "0100000000000000" + "0301000088130000"
