"""What a host controller sees of the endpoint: cuts, babble, NAK, halts, and requests that stop the stream."""

from __future__ import annotations

import pytest

from firmware_sim.usbip.protocol import EOVERFLOW, EPIPE, EPROTO
from tests.sim_rig import Rig, header, setup

BLOCK = 64 + 20 * 8 * 3 + 4


@pytest.fixture
def rig():
    rig = Rig()
    rig.stream()
    rig.turn()
    return rig


def test_one_block_is_one_transfer(rig):
    status, data = rig.read()
    assert (status, len(data)) == (0, BLOCK)
    assert header(data).good


def test_with_nothing_to_send_the_endpoint_naks(rig):
    rig.drain()
    assert rig.read() is None


def test_a_transfer_that_is_a_whole_number_of_packets_is_filled_and_the_rest_comes_next(rig):
    (first, a), (second, b) = rig.read(512), rig.read(512)
    assert (first, len(a), second, len(b)) == (0, 512, 0, BLOCK - 512)
    assert header(a + b).good


@pytest.mark.parametrize("length", [1, 300, 511, 520, BLOCK - 1])
def test_a_transfer_that_a_packet_overruns_is_babble_and_the_packet_comes_again(rig, length):
    status, data = rig.read(length)
    assert status == EOVERFLOW
    assert len(data) == length // 512 * 512
    status, rest = rig.read()
    assert status == 0
    assert header(data + rest).good


def test_a_transfer_exactly_as_long_as_the_block_is_full_and_not_babble(rig):
    status, data = rig.read(BLOCK)
    assert (status, header(data).good, header(rig.read()[1]).seq) == (0, True, 1)


def test_a_block_of_whole_packets_is_padded_so_that_it_ends_short():
    sizes = {}
    for samples in (20, 148, 1000):
        rig = Rig(inputs=1, block_samples=samples)  # 64 + 148 x 3 + 4 = 512
        rig.stream()
        rig.turn()
        sizes[samples] = len(rig.read()[1])
    assert sizes == {20: 128, 148: 516, 1000: 3068}


def test_an_address_without_endpoint_answers_nothing(rig):
    assert rig.function.bulk_in(0x83, 512) == (EPROTO, b"")


def test_set_feature_halts_and_clear_feature_lets_go(rig):
    assert rig.control(setup(0x02, 3, 0, 0x81))[0] == 0
    assert rig.read() == (EPIPE, b"")
    assert rig.read() == (EPIPE, b"")
    assert rig.control(setup(0x82, 0, 0, 0x81, 2)) == (0, b"\x01\x00")
    assert rig.control(setup(0x02, 1, 0, 0x81))[0] == 0
    assert header(rig.read()[1]).seq == 0


@pytest.mark.parametrize(
    "packet",
    [setup(0x00, 9, 1), setup(0x00, 9, 0), setup(0x01, 11, 0, 0), setup(0x01, 11, 1, 0), setup(0x23, 3, 4, 1)],
    ids=["configuration 1", "configuration 0", "alternate 0", "alternate 1", "port reset"],
)
def test_what_resets_the_device_stops_the_stream_and_empties_the_fifo(rig, packet):
    rig.read(512)  # a block is half way out
    assert rig.control(packet)[0] == 0
    assert not rig.device.firmware.streaming
    rig.open()
    assert rig.read() is None
    rig.stream()
    rig.turn()
    assert header(rig.read()[1]).seq == 0


def test_a_new_stream_does_not_begin_with_the_rest_of_an_old_block(rig):
    rig.read(512)
    assert rig.control(setup(0x41, 0x10, 0, 0))[0] == 0
    rig.stream(8)
    rig.turn()
    assert header(rig.read()[1]).seq == 0


@pytest.mark.parametrize("packet", [setup(0xC0, 0x7F, 0, 0, 8), setup(0x80, 6, 0x2200, 0, 8), setup(0x01, 11, 2, 0)])
def test_an_unknown_request_stalls_and_the_next_one_is_answered(rig, packet):
    assert rig.control(packet) == (EPIPE, b"")
    assert len(rig.control(setup(0xC0, 2, 0, 0, 48))[1]) == 48


def test_a_reply_is_never_longer_than_asked_for(rig):
    assert len(rig.control(setup(0x80, 6, 0x0200, 0, 9))[1]) == 9
    assert len(rig.control(setup(0xC0, 0x20, 0, 7, 10))[1]) == 10
