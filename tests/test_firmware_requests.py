"""Every EP0 request of the firmware: what it takes, what it refuses and with which word (docs/wire/ionm1.md 4 to 6)."""

from __future__ import annotations

import random
import re
import struct
import zlib
from pathlib import Path

import pytest
from firmware_rig import CONFIGURED, NERVE, OUTPUTS, RATE, SAFE, Unit, sealed, setup, train

from firmware_sim.core import Firmware
from ionmd.decode.ionm1 import REASONS
from ionmd.drivers.base import DeviceConfig, OutputConfig
from ionmd.drivers.ep0 import pack_config, pack_sequence

ROOT = Path(__file__).parents[1]
SEQUENCE = pack_sequence(train())
CRC = struct.unpack("<I", SEQUENCE[-4:])[0]


def beat_bytes(unit: Unit, counter: int = 1000) -> bytes:
    return sealed(struct.pack("<IIQI", counter, 0, 0, unit.fw.boot_id))


# name, bmRequestType, bRequest, wValue, interface, data or None for IN, allowed lengths of the data stage
REQUESTS = [
    ("GET_IDENTITY", 0xC0, 0x01, 0, 0, None, None),
    ("GET_STATUS", 0xC0, 0x02, 0, 0, None, None),
    ("GET_INPUTS", 0xC0, 0x03, 0, 0, None, None),
    ("STREAM", 0x41, 0x10, 1, 0, b"\1\0\0\0", {4}),
    ("STREAM off", 0x41, 0x10, 0, 0, b"", {0}),
    ("SET_CONFIG", 0x40, 0x11, 0, 0, pack_config(DeviceConfig(4, RATE, 20, OUTPUTS)), None),
    ("GET_CONFIG", 0xC0, 0x12, 0, 0, None, None),
    ("IMPEDANCE", 0x41, 0x30, 1, 0, b"\1" + bytes(7), {8}),
    ("IMPEDANCE off", 0x41, 0x30, 0, 0, b"", {0}),
    ("HEARTBEAT", 0x41, 0x40, 0, 1, beat_bytes, {24}),
    ("STIM_OFF", 0x40, 0x50, 0, 0, b"", None),
    ("STIM_LOAD", 0x41, 0x51, 0, 1, SEQUENCE, None),
    ("STIM_READBACK", 0xC1, 0x52, 0, 1, None, None),
    ("STIM_ARM", 0x41, 0x53, 0, 1, struct.pack("<II", CRC, 10_000), {8}),
    ("STIM_TOKEN", 0xC1, 0x54, 0, 1, None, None),
    ("STIM_FIRE", 0x41, 0x55, 0, 1, bytes(16), {16}),
    ("STIM_STATE", 0xC1, 0x56, 0, 1, None, None),
    ("STIM_RESET", 0x41, 0x57, 0, 1, b"\x10", {1}),
    ("STIM_ABORT", 0x41, 0x58, 0, 1, b"", {0}),
]
NAMES = [r[0] for r in REQUESTS]


def ready(name: str) -> Unit:
    """A unit in which the request `name` is allowed."""
    unit = Unit(streaming=name not in ("STREAM", "SET_CONFIG"))
    if name in ("STIM_READBACK", "STIM_ARM", "STIM_TOKEN"):
        assert unit.load(SEQUENCE) == ""
    if name == "STIM_RESET":
        unit.fw.inject("stray_pulse")
        unit.run(10)
    return unit


def data_of(row: tuple, unit: Unit) -> bytes:
    data = row[5]
    if row[0] == "STIM_FIRE":
        return struct.pack("<IIQ", unit.armed(train()), 1, 0)
    return data(unit) if callable(data) else data or b""


def test_the_table_of_the_wire_document_and_this_one_name_the_same_requests():
    text = (ROOT / "docs" / "wire" / "ionm1.md").read_text()
    written = {int(code, 16): name for code, name in re.findall(r"^\| (0x[0-9A-F]{2}) \| ([A-Z_]+) \|", text, re.M)}
    del written[0x7E]  # SIM_FAULT is no request of a device
    assert written == {row[2]: row[0].split()[0] for row in REQUESTS}


def test_the_reason_codes_of_the_wire_document_are_those_of_host_and_firmware():
    text = (ROOT / "docs" / "wire" / "ionm1.md").read_text()
    section = re.search(r"## 6\. Reason codes\n(.*?)\n## 7", text, re.S)[1]
    written = {int(code): name for code, name in re.findall(r"^\| (\d+) \| ([A-Z_]+|none) \|", section, re.M)}
    words = re.findall(r"IONM_([A-Z_]+)[,\s]", (ROOT / "firmware_sim" / "firmware" / "reasons.h").read_text())[2:]
    in_c = [{"TRIPPED_BEFORE": "TRIPPED"}.get(w, w) for w in words]
    assert [name.upper() for _, name in sorted(written.items())] == in_c
    assert {code: name.upper() for code, name in written.items()} == {c: n.upper() for c, n in REASONS.items()}


@pytest.mark.parametrize("row", REQUESTS, ids=NAMES)
def test_each_request_is_taken_where_it_is_allowed(row):
    name, kind, request, value, index, _, _ = row
    unit = ready(name)
    if kind & 0x80:
        assert isinstance(unit.ask(kind, request, value, 512, index), bytes)
    else:
        assert unit.tell(kind, request, value, data_of(row, unit), index) == ""


@pytest.mark.parametrize("row", REQUESTS, ids=NAMES)
def test_each_request_to_another_recipient_interface_or_direction_stalls_and_changes_nothing(row):
    name, kind, request, value, index, _, _ = row
    unit = ready(name)
    data = data_of(row, unit)
    before, boot = unit.stim, unit.fw.boot_id
    wrong = [(kind ^ 0x01, index), (kind ^ 0x02, index), (kind ^ 0x80, index)]
    if kind & 0x1F == 1:
        wrong += [(kind, 1 - index), (kind, 2), (kind, 0xFF01)]
    for other, interface in wrong:
        if other & 0x80:
            assert unit.ask(other, request, value, 512, interface) == "UNKNOWN_REQUEST"
        else:
            assert unit.tell(other, request, value, data, interface) == "UNKNOWN_REQUEST"
    assert (unit.stim, unit.fw.boot_id) == (before, boot)


@pytest.mark.parametrize("row", [r for r in REQUESTS if r[6] is not None], ids=[r[0] for r in REQUESTS if r[6]])
def test_a_data_stage_of_any_other_length_is_refused_as_such(row):
    name, kind, request, value, index, _, lengths = row
    unit = ready(name)
    before = unit.status.state
    data = data_of(row, unit) + bytes(64)
    for length in set(range(33)) - lengths:
        if (name, length) == ("STREAM off", 4) or (name, length) == ("IMPEDANCE off", 8):
            continue
        assert unit.tell(kind, request, value, data[:length], index) == "BAD_LENGTH", length
    assert unit.status.state == before or name == "STIM_FIRE"


def test_a_data_stage_shorter_than_wlength_is_refused():
    unit = Unit()
    assert unit.send(setup(0x41, 0x51, 0, 1, len(SEQUENCE)), SEQUENCE[:-1]) == "BAD_LENGTH"
    assert unit.status.state == SAFE


@pytest.mark.parametrize("kind,request_,value,index,data", [
    (0xC0, 0x01, 1, 0, None), (0xC0, 0x02, 1, 0, None), (0xC0, 0x03, 64, 0, None), (0x41, 0x10, 2, 0, b"\1\0\0\0"),
    (0xC0, 0x12, 1, 0, None), (0x41, 0x30, 2, 0, b"\1" + bytes(7)), (0x41, 0x51, 16, 1, SEQUENCE),
    (0xC1, 0x52, 16, 1, None), (0x41, 0x53, 16, 1, bytes(8)), (0xC1, 0x54, 16, 1, None), (0x41, 0x55, 16, 1, bytes(16)),
    (0xC1, 0x56, 1, 1, None), (0x41, 0x58, 8, 1, b""), (0x41, 0x30, 1, 0, bytes(8)),
    (0x41, 0x30, 1, 0, b"\x10" + bytes(7)), (0x41, 0x40, 1, 1, bytes(24)), (0x41, 0x57, 1, 1, b"\x10"),
])  # fmt: skip
def test_a_value_out_of_range_is_refused_as_such(kind, request_, value, index, data):
    unit = Unit()
    if data is None:
        assert unit.ask(kind, request_, value, 512, index) == "RANGE"
    else:
        assert unit.tell(kind, request_, value, data, index) == "RANGE"


@pytest.mark.parametrize("request_", sorted(set(range(256)) - {r[2] for r in REQUESTS} - {0x20, 0x7E}))
def test_an_unknown_request_stalls(request_):
    unit = Unit()
    for kind in (0xC0, 0xC1):
        assert unit.ask(kind, request_) == "UNKNOWN_REQUEST"
    for kind in (0x40, 0x41):
        assert unit.tell(kind, request_) == "UNKNOWN_REQUEST"


def test_a_reply_is_cut_at_wlength():
    unit = Unit()
    whole = unit.ask(0xC0, 0x01, 0, 64)
    for length in (0, 1, 8, 63):
        assert unit.ask(0xC0, 0x01, 0, length) == whole[:length]


def test_the_identity_says_what_the_unit_is():
    unit = Unit()
    raw = unit.ask(0xC0, 0x01)
    major, minor, boot, firmware, hardware = struct.unpack_from("<HHIHH", raw)
    inputs, outputs, slots, features, version, fifo, rate = struct.unpack_from("<BBBBIII", raw, 12)
    assert (len(raw), major, minor, boot, firmware, hardware) == (64, 1, 0, unit.fw.boot_id, 0x0100, 1)
    assert (inputs, outputs, slots, features, version, fifo, rate) == (64, 8, 16, 7, 1, 1 << 20, 40_000)
    assert raw[44:] == bytes(20)


def test_a_device_without_a_stimulator_knows_no_request_of_interface_1():
    fw = Firmware(outputs=0)
    fw.control(setup(0, 9, 1))
    for row in REQUESTS:
        if row[4] == 1:
            assert fw.control(setup(row[1], row[2], row[3], 1, 0))[0] == -32
    assert fw.control(setup(0xC0, 0x01, 0, 0, 64))[1][15] == 6
    assert fw.control(setup(0x40, 0x50))[0] == 0  # STIM_OFF is everybody's


def test_inputs_have_their_calibration_and_label_from_any_first_one_on():
    unit = Unit()
    raw = unit.ask(0xC0, 0x03, 0, 4096)
    assert len(raw) == 64 * 32
    assert struct.unpack_from("<IBBH24s", raw, 32) == (31_250, 1, 3, 0, b"IN2".ljust(24, b"\0"))
    assert unit.ask(0xC0, 0x03, 60, 4096) == raw[60 * 32 :]


# ---------------------------------------------------------------- configuration


def configured(unit: Unit, **changes: object) -> str:
    fields = {"inputs": 4, "rate_hz": RATE, "block_samples": 20, "outputs": OUTPUTS} | changes
    return unit.tell(0x40, 0x11, 0, pack_config(DeviceConfig(**fields)))


@pytest.mark.parametrize("changes,word", [
    ({"rate_hz": 999}, "RANGE"), ({"rate_hz": 1000}, ""), ({"rate_hz": 40_000}, ""), ({"rate_hz": 40_001}, "RANGE"),
    ({"inputs": 0}, "RANGE"), ({"inputs": 1}, ""), ({"inputs": 64}, ""), ({"inputs": 65}, "RANGE"),
    ({"block_samples": 0}, "RANGE"), ({"block_samples": 1}, ""), ({"block_samples": 4096}, ""),
    ({"block_samples": 4097}, "RANGE"), ({"outputs": (OutputConfig(4),)}, "RANGE"), ({"outputs": ()}, ""),
    ({"outputs": (OutputConfig(1),) * 8}, ""), ({"outputs": (OutputConfig(1),) * 9}, "BAD_LENGTH"),
    ({"outputs": (OutputConfig(1, False, 100_000),)}, ""), ({"outputs": (OutputConfig(1, False, 100_001),)}, "LIMIT"),
    ({"outputs": (OutputConfig(2, False, 1_000_000),)}, ""),
    ({"outputs": (OutputConfig(2, False, 1_000_001),)}, "LIMIT"),
    ({"outputs": (OutputConfig(3, True, 40_000),)}, ""), ({"outputs": (OutputConfig(3, True, 40_001),)}, "LIMIT"),
    ({"outputs": (OutputConfig(0, False, 1),)}, "LIMIT"),
])  # fmt: skip
def test_a_configuration_is_applied_whole_or_not_at_all(changes, word):
    unit = Unit(streaming=False)
    before = unit.ask(0xC0, 0x12)
    assert configured(unit, **changes) == word
    after = unit.ask(0xC0, 0x12)
    assert (after == before) is bool(word) or after == pack_config(unit.config)


def test_every_single_flipped_bit_of_a_configuration_is_refused():
    unit = Unit(streaming=False)
    good = pack_config(DeviceConfig(8, 20_000, 40, OUTPUTS))
    before = unit.ask(0xC0, 0x12)
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert unit.tell(0x40, 0x11, 0, bytes(bad)) in ("BAD_CRC", "BAD_LENGTH")
    assert unit.ask(0xC0, 0x12) == before


@pytest.mark.parametrize("at", [13, 14, 15, 18, 19])
def test_reserved_bytes_of_a_configuration_must_be_zero(at):
    unit = Unit(streaming=False)
    body = bytearray(pack_config(unit.config)[:-4])
    body[at] = 1
    assert unit.tell(0x40, 0x11, 0, sealed(bytes(body))) == "RANGE"


def test_a_configuration_is_refused_while_streaming_measuring_impedances_or_not_safe():
    unit = Unit()
    assert configured(unit) == "STATE"
    assert unit.tell(0x41, 0x10, 0) == ""
    assert unit.load(train()) == "" and configured(unit) == "STATE"
    assert unit.off() == "" and configured(unit) == ""
    assert unit.tell(0x41, 0x30, 1, b"\1" + bytes(7)) == "" and configured(unit) == "STATE"
    assert unit.tell(0x41, 0x30, 0) == "" and configured(unit) == ""


def test_a_new_rate_restarts_the_counter_with_a_new_boot_id_and_the_same_rate_does_not():
    unit = Unit(streaming=False)
    unit.run(500, beats=False)
    boot = unit.fw.boot_id
    assert configured(unit, inputs=8) == "" and (unit.fw.boot_id, unit.fw.sample) == (boot, 500)
    assert configured(unit, rate_hz=20_000) == "" and unit.fw.sample == 0 and unit.fw.boot_id not in (0, boot)


# ---------------------------------------------------------------- bits of what stimulates


def test_every_single_flipped_bit_of_a_sequence_is_refused_and_the_slot_keeps_nothing_of_it():
    unit = Unit()
    good = pack_sequence(train(3, gap_ms=100))
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert unit.load(bytes(bad)) in ("BAD_CRC", "BAD_LENGTH"), bit
    assert unit.status.state == SAFE and unit.ask(0xC1, 0x52, 0, 512, 1) == "STATE"


def test_two_to_eight_flipped_bits_anywhere_are_refused():
    unit, random_ = Unit(), random.Random(20_251_125)
    good = pack_sequence(train(4, gap_ms=100))
    for _ in range(20_000):
        bad = bytearray(good)
        for bit in random_.sample(range(8 * len(good)), random_.randint(2, 8)):
            bad[bit // 8] ^= 1 << bit % 8
        assert unit.load(bytes(bad)) in ("BAD_CRC", "BAD_LENGTH")
    assert unit.status.state == SAFE


def test_every_single_flipped_bit_of_a_heartbeat_is_refused_and_the_watchdog_runs_on():
    unit = Unit()
    unit.run(1000, beats=False)
    left = unit.stim.watchdog_left_ms
    good = beat_bytes(unit)
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert unit.tell(0x41, 0x40, 0, bytes(bad), 1) == "BAD_CRC"
    assert unit.stim.watchdog_left_ms == left == 300


def test_every_single_flipped_bit_of_the_crc_that_arms_is_refused():
    unit = Unit()
    assert unit.load(SEQUENCE) == ""
    for bit in range(32):
        assert unit.tell(0x41, 0x53, 0, struct.pack("<II", CRC ^ 1 << bit, 10_000), 1) == "SEQUENCE_CHANGED"
    assert unit.status.state == CONFIGURED and unit.token() == (0, 0, 0)


def test_every_single_flipped_bit_of_a_token_is_refused():
    unit = Unit()
    token = unit.armed(train())
    for bit in range(32):
        assert unit.fire(token ^ 1 << bit) == "TOKEN"
    assert unit.run(200) == []


def test_what_was_loaded_reads_back_bit_for_bit():
    unit = Unit()
    for slot in range(16):
        data = pack_sequence(train(1 + slot % 4, gap_ms=slot))
        assert unit.load(data, slot) == "" and unit.ask(0xC1, 0x52, slot, 512, 1) == data
    assert zlib.crc32(data[:-4]) == struct.unpack("<I", data[-4:])[0]


@pytest.mark.parametrize("at,value", [(0, 2), (2, 8), (2, 4), (3, 2), (4, 0), (4, 17), (5, 1), (8, 1), (18, 2),
                                      (19, 1)])  # fmt: skip
def test_a_sequence_of_a_wrong_form_is_refused_although_its_crc_is_right(at, value):
    unit = Unit()
    body = bytearray(SEQUENCE[:-4])
    body[at] = value
    assert unit.load(sealed(bytes(body))) == "RANGE"


def test_pulses_that_do_not_rise_or_have_no_amplitude_are_refused():
    unit = Unit()
    for i, raw in ((1, 0), (1, 3999), (1, 10_000_001)):
        body = bytearray(pack_sequence(train(3))[:-4])
        body[8 + 12 * i + 12 : 8 + 12 * i + 16] = struct.pack("<I", raw)
        assert unit.load(sealed(bytes(body))) == "RANGE"
    body = bytearray(SEQUENCE[:-4])
    body[12:16] = bytes(4)
    assert unit.load(sealed(bytes(body))) == "RANGE"


def test_a_fire_names_a_sequence_on_a_configured_output_only():
    unit = Unit(config=DeviceConfig(4, RATE, 20, (OutputConfig(1), OutputConfig(0))))
    assert unit.load(train(output=NERVE)) == ""
    for output in (1, 2, 7):
        body = bytearray(SEQUENCE[:-4])
        body[2] = output
        assert unit.load(sealed(bytes(body))) == "RANGE"
