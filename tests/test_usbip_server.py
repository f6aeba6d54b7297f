"""USB/IP on the wire: what a kernel or the shim gets for each request, over a Unix socket and TCP."""

from __future__ import annotations

import json
import socket
import struct
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from firmware_sim.shim.tree import Tree
from firmware_sim.usbip import protocol as p
from firmware_sim.usbip.bus import Port
from firmware_sim.usbip.server import Server, listen
from tests.sim_rig import Rig, set_config, setup

BLOCK = 548


@contextmanager
def serving(tmp_path, *, listen_on="unix", speed="max", busids=("1-1",)):
    rigs = [Rig(speed) for _ in busids]
    tree = Tree(tmp_path / "root")
    server = Server([Port(busid, rig.device, tree) for busid, rig in zip(busids, rigs, strict=True)])
    address = f"unix:{tmp_path / 'usb'}" if listen_on == "unix" else "tcp:0"
    sock = listen(address)
    server.add_listener(sock)
    server.add_listener(listen(f"unix:{tmp_path / 'control'}"), control=True)
    server.where = sock.getsockname()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        assert not thread.is_alive()


class Host:
    """The client side of one connection, byte by byte."""

    def __init__(self, server):
        family = socket.AF_UNIX if isinstance(server.where, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        self.sock.connect(server.where)
        self.seq = 0

    def get(self, n):
        out = b""
        while len(out) < n:
            part = self.sock.recv(n - len(out))
            if not part:
                raise ConnectionError
            out += part
        return out

    def import_(self, busid="1-1"):
        self.sock.sendall(p.OP.pack(p.VERSION, p.OP_REQ_IMPORT, 0) + busid.encode().ljust(32, b"\0"))
        status = p.OP.unpack(self.get(8))[2]
        return status, p.RECORD.unpack(self.get(312)) if status == 0 else None

    def submit(self, ep=1, length=16384, packet=bytes(8), data=b"", is_in=True):
        self.seq += 1
        size = length if is_in else len(data)
        self.sock.sendall(p.HEADER.pack(1, self.seq, 0, is_in, ep, 0, size, 0, 0, 0, packet) + data)
        return self.seq

    def unlink(self, victim):
        self.seq += 1
        self.sock.sendall(p.HEADER.pack(2, self.seq, 0, 0, 1, victim, 0, 0, 0, 0, bytes(8)))
        return self.seq

    def answer(self, is_in=True):
        command, seq, _, _, _, status, actual = struct.unpack(">IIIIIiI20x", self.get(48))
        return command, seq, status, self.get(actual) if command == 3 and is_in else actual

    def control(self, packet, data=b""):
        is_in = bool(packet[0] & 0x80)
        self.submit(0, struct.unpack("<H", packet[6:])[0], packet, data, is_in)
        _, _, status, got = self.answer(is_in)
        return status, got

    def open(self):
        assert self.import_()[0] == 0
        assert self.control(setup(0x00, 9, 1))[0] == 0
        assert self.control(setup(0x01, 11, 1))[0] == 0

    def stream(self):
        assert self.control(setup(0x41, 0x10, 1, 0, 4), b"\7\0\0\0")[0] == 0


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_devlist_and_import_describe_the_unit(tmp_path, where):
    with serving(tmp_path, listen_on=where, busids=("1-1", "1-2")) as server:
        host = Host(server)
        host.sock.sendall(p.OP.pack(p.VERSION, p.OP_REQ_DEVLIST, 0))
        assert host.get(12) == p.OP.pack(p.VERSION, p.OP_REP_DEVLIST, 0) + (2).to_bytes(4, "big")
        both = [p.RECORD.unpack(host.get(312 + 8)[:312]) for _ in range(2)]
        assert [r[1].rstrip(b"\0") for r in both] == [b"1-1", b"1-2"]
        assert both[0][4:8] == (3, 0x1209, 0x0001, 0x0100)
        status, record = Host(server).import_("1-2")
        assert status == 0
        assert record[1:4] == both[1][1:4]


def test_a_unit_is_imported_by_one_host_at_a_time(tmp_path):
    with serving(tmp_path) as server:
        first, second = Host(server), Host(server)
        assert first.import_()[0] == p.ST_OK
        assert second.import_()[0] == p.ST_BUSY
        assert Host(server).import_("9-9")[0] == p.ST_NA


def test_a_host_that_goes_leaves_a_safe_unit_to_the_next(tmp_path):
    with serving(tmp_path) as server:
        host = Host(server)
        host.open()
        host.stream()
        host.sock.close()
        while True:  # the server learns of it when it next looks
            again = Host(server)
            if again.import_()[0] == p.ST_OK:
                break
        state = again.control(setup(0xC0, 2, 0, 0, 48))[1]
        assert (state[0], state[3]) == (0, 0)


def test_queued_transfers_are_answered_in_order_one_block_each(tmp_path):
    with serving(tmp_path) as server:
        host = Host(server)
        host.open()
        seqs = [host.submit() for _ in range(16)]
        host.seq += 100
        host.submit(0, 4, setup(0x41, 0x10, 1, 0, 4), b"\7\0\0\0", is_in=False)
        replies = [host.answer(is_in=False)] + [host.answer() for _ in seqs]
        assert [r[1] for r in replies[1:]] == seqs
        assert [struct.unpack_from("<I", r[3], 8)[0] for r in replies[1:]] == list(range(16))
        assert {len(r[3]) for r in replies[1:]} == {BLOCK}


def test_unlink_cancels_what_waits_and_only_that(tmp_path):
    with serving(tmp_path) as server:
        host = Host(server)
        host.open()
        kept, victim = host.submit(), host.submit()
        asked = host.unlink(victim)
        assert host.answer() == (4, asked, p.ECONNRESET, 0)
        late = host.unlink(victim)
        assert host.answer() == (4, late, 0, 0)
        host.submit(0, 4, setup(0x41, 0x10, 1, 0, 4), b"\7\0\0\0", is_in=False)
        host.answer(is_in=False)
        assert host.answer()[1] == kept


def test_requests_cut_at_every_byte_are_understood(tmp_path):
    with serving(tmp_path) as server:
        host = Host(server)
        assert host.import_()[0] == 0
        request = p.HEADER.pack(1, 1, 0, 0, 0, 0, 24, 0, 0, 0, set_config(8, 10_000, 40)[0][:6] + b"\x18\0") + bytes(24)
        for byte in request:
            host.sock.sendall(bytes([byte]))
        assert host.answer(is_in=False)[1:3] == (1, -32)  # 24 zero bytes are no configuration
        assert len(host.control(setup(0xC0, 2, 0, 0, 48))[1]) == 48


def test_slow_answers_keep_their_order_and_can_be_cancelled(tmp_path):
    with serving(tmp_path) as server:
        host = Host(server)
        host.open()
        device = server.ports[0].device
        server.call(lambda: device.inject("slow_ep0", ms=60_000))
        slow = host.submit(0, 48, setup(0xC0, 2, 0, 0, 48))
        after = host.submit(0, 64, setup(0xC0, 1, 0, 0, 64))
        for victim in (slow, after):
            asked = host.unlink(victim)
            assert host.answer() == (4, asked, p.ECONNRESET, 0)
        assert host.control(setup(0xC0, 2, 0, 0, 48))[0] == 0


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", p.OP.pack(p.VERSION, 0x1234, 0), b"\0" * 48],
    ids=["http", "unknown operation", "zeros"],
)
def test_a_client_that_speaks_something_else_is_dropped_and_nobody_else_notices(tmp_path, garbage):
    with serving(tmp_path) as server:
        good = Host(server)
        good.open()
        bad = Host(server)
        bad.sock.sendall(garbage)
        with pytest.raises(ConnectionError):
            bad.get(1)
        assert good.control(setup(0xC0, 2, 0, 0, 48))[0] == 0


def test_a_broken_urb_ends_the_session_and_frees_the_unit(tmp_path):
    with serving(tmp_path) as server:
        host = Host(server)
        host.open()
        host.sock.sendall(p.HEADER.pack(77, 1, 0, 1, 1, 0, 512, 0, 0, 0, bytes(8)))
        with pytest.raises(ConnectionError):
            host.get(1)
        assert Host(server).import_()[0] == p.ST_OK


def test_an_unplug_ends_the_transfer_on_the_cable_at_its_byte_and_hides_the_unit(tmp_path):
    with serving(tmp_path) as server:
        host = Host(server)
        host.open()
        device = server.ports[0].device  # asked for before the stream starts: the cable comes out at one sample
        server.call(lambda: device.inject("unplug", at=device.firmware.sample + 400, after_bytes=100))
        for _ in range(64):  # more than 400 samples can answer: one is always waiting
            host.submit()
        host.submit(0, 4, setup(0x41, 0x10, 1, 0, 4), b"\7\0\0\0", is_in=False)
        assert host.answer(is_in=False)[2] == 0
        replies = []
        with pytest.raises(ConnectionError):
            while True:
                replies.append(host.answer())
        assert replies[-1][2:] == (p.ESHUTDOWN, replies[-1][3][:100])
        assert all(r[2] == 0 for r in replies[:-1])
        assert Host(server).import_()[0] == p.ST_NA
        assert not (tmp_path / "root/sys/bus/usb/devices/1-1").exists()


def test_fifty_cables_pulled_at_fifty_bytes_leave_no_descriptor_behind(tmp_path):
    with serving(tmp_path) as server:
        device, held, addresses = server.ports[0].device, [], set()
        for cycle in range(50):
            host = Host(server)
            host.open()
            host.stream()
            server.call(lambda n=cycle: device.inject("unplug", after_bytes=1 + 11 * n))
            with pytest.raises(ConnectionError):
                host.submit()
                while True:
                    host.answer()
            host.sock.close()
            server.call(lambda: device.inject("replug"))
            addresses.add(server.call(lambda: server.ports[0].address))
            held.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        assert held[5] == held[-1]
        assert len(addresses) >= 50


def test_the_control_socket_injects_reports_and_refuses(tmp_path):
    with serving(tmp_path) as server:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(str(tmp_path / "control"))
        file = sock.makefile("rwb")

        def ask(text):
            file.write(text.encode() + b"\n")
            file.flush()
            return json.loads(file.readline())

        assert ask('{"state": true}')["plugged"] is True
        assert ask('{"inject": {"kind": "unplug"}}')["ok"] is True
        assert ask('{"state": true}')["address"] == 0
        for bad in ("nonsense", "[]", '{"inject": {"kind": "quake"}}', '{"what": 1}', '{"state": true, "busid": "7"}'):
            assert ask(bad)["ok"] is False
        assert server.ports[0].device.plugged is False


@pytest.mark.parametrize("address", ["", "unix:", "tcp:", "tcp:x", "tcp:70000", "tcp:0.0.0.0:1", "udp:1", "tcp:::1:5"])
def test_addresses_that_cannot_be_had_are_refused(address):
    with pytest.raises(ValueError, match=r"expected|loopback"):
        listen(address)


def test_stopping_leaves_no_socket_and_no_device_behind(tmp_path):
    with serving(tmp_path) as server:
        Host(server).open()
    assert not (tmp_path / "usb").exists()
    assert not (tmp_path / "control").exists()
    assert [d.name for d in (tmp_path / "root/sys/bus/usb/devices").iterdir()] == ["usb1"]
