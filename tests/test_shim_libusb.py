"""The real libusb and stock pyusb reach the simulated unit, and see of it what they would see of a real one.

errno values are those of usbfs: timeout 110, STALL 32, unplugged 19, babble 75, busy 16.
"""

from __future__ import annotations

import pytest

from firmware_sim.launch import Simulator
from tests.usb_client import run

pytestmark = pytest.mark.usb


@pytest.fixture(scope="module")
def unit():
    with Simulator(speed="max", seed=1, inputs=8, rate_hz=10_000, block_samples=20) as running:
        yield running


@pytest.fixture
def sim(unit):
    """The module's simulator, plugged in and without any fault; its counter goes on from test to test."""
    unit.inject("clear")
    unit.inject("replug", serial="SIM-0001")
    return unit


def test_enumeration_finds_one_high_speed_unit_with_its_serial(sim):
    seen = run(sim, """
        d = find()
        ifs = {(i.bInterfaceNumber, i.bAlternateSetting): [e.bEndpointAddress for e in i] for i in d[0]}
        answer(serial=d.serial_number, speed=d.speed, ports=d.port_numbers, address=d.address, bcd=d.bcdUSB,
               interfaces=sorted(map(list, ifs)), endpoints=ifs[0, 1], packet=d[0][0, 1][0].wMaxPacketSize,
               active=d.get_active_configuration().bConfigurationValue)
    """)
    assert seen["serial"] == "SIM-0001"
    assert (seen["speed"], seen["ports"], seen["bcd"]) == (3, [1], 0x0210)
    assert seen["interfaces"] == [[0, 0], [0, 1], [1, 0]]
    assert (seen["endpoints"], seen["packet"], seen["active"]) == ([0x81], 512, 1)
    assert seen["address"] == sim.state()["address"]


def test_bos_leads_to_an_ms_os_20_set_that_gives_winusb_to_each_interface(sim):
    seen = run(sim, """
        d = find()
        bos = bytes(d.ctrl_transfer(0x80, 6, 0x0F00, 0, 255))
        total, code = struct.unpack_from("<H", bos, 5 + 24)[0], bos[5 + 26]
        found = bytes(d.ctrl_transfer(0xC0, code, 0, 7, 4096))
        answer(bos_len=len(bos), said=struct.unpack_from("<H", bos, 2)[0], total=total, set_len=len(found),
               head=struct.unpack_from("<HHIH", found), winusb=found.count(b"WINUSB"),
               guids=found.count("DeviceInterfaceGUIDs".encode("utf-16-le")))
    """)
    assert seen["bos_len"] == seen["said"] == 33
    assert seen["head"] == [10, 0, 0x06030000, seen["total"]]
    assert seen["set_len"] == seen["total"]
    assert seen["winusb"] == seen["guids"] == 2


def test_blocks_arrive_whole_in_order_and_with_good_checksums(sim):
    seen = run(sim, """
        amp = Amp(); amp.stream()
        got = amp.blocks(500)
        answer(seqs=[b[0] for b in got] == list(range(500)), good=all(b[3] for b in got),
               contiguous=all(b[1] == a[1] + a[2] for a, b in zip(got, got[1:])))
    """)
    assert seen == {"seqs": True, "good": True, "contiguous": True}


def test_two_runs_with_one_seed_give_the_same_bytes():
    source = """
        amp = Amp(); amp.stream()
        digest = 0
        for _ in range(300):
            _, _, samples, _, n = amp.block()
            digest = zlib.crc32(amp.buffer[64:64 + samples * 24].tobytes(), digest)
        answer(digest=digest)
    """
    digests = []
    for _ in range(2):
        with Simulator(speed="max", seed=5, inputs=8, rate_hz=10_000, block_samples=20) as running:
            digests.append(run(running, source)["digest"])
    assert digests[0] == digests[1]


def test_errors_carry_the_errno_that_usbfs_gives(sim):
    seen = run(sim, """
        amp = Amp(); d = amp.device
        idle = errno_of(d.read, 0x81, 512, 30)
        stall = errno_of(d.ctrl_transfer, 0xC0, 0x7F, 0, 0, 4)
        after = len(d.ctrl_transfer(0xC0, 0x02, 0, 0, 48))
        other = find()
        busy = errno_of(usb.util.claim_interface, other, 0)
        amp.stream()
        babble = errno_of(d.read, 0x81, 300, 500)
        answer(idle=idle, stall=stall, after=after, busy=busy, babble=babble)
    """)
    assert seen == {"idle": 110, "stall": 32, "after": 48, "busy": 16, "babble": 75}


def test_a_block_cut_by_short_transfers_arrives_in_pieces(sim):
    seen = run(sim, """
        amp = Amp(); amp.stream()
        whole = 64 + 20 * 24 + 4
        sizes = [len(amp.device.read(0x81, 512, 500)) for _ in range(2)]
        answer(whole=whole, sizes=sizes, next=amp.block()[0])
    """)
    assert seen == {"whole": 548, "sizes": [512, 36], "next": 1}


def test_a_halted_endpoint_stays_halted_until_it_is_cleared(sim):
    sim.inject("stall", n=2)
    seen = run(sim, """
        amp = Amp(); amp.stream(); d = amp.device
        codes = []
        for _ in range(2):
            codes += [errno_of(d.read, 0x81, 4096, 500), errno_of(d.read, 0x81, 4096, 500)]
            d.clear_halt(0x81)
        answer(codes=codes, first=amp.block()[0])
    """)
    assert seen == {"codes": [32, 32, 32, 32], "first": 0}


def test_a_wedged_endpoint_sends_nothing_until_a_reset(sim):
    seen = run(sim, """
        amp = Amp(); amp.stream(); d = amp.device
        d.ctrl_transfer(0x40, 0x7E, 0, 0, b'{"kind": "wedge"}')
        before = errno_of(d.read, 0x81, 4096, 50)
        d.reset()
        d.set_interface_altsetting(0, 1)
        state = d.ctrl_transfer(0xC0, 0x02, 0, 0, 48)[3]
        amp.stream(8); amp.beaten = 0
        answer(before=before, streaming=state, first=amp.block()[0])
    """)
    assert seen == {"before": 110, "streaming": 0, "first": 0}


def test_an_unplugged_unit_is_gone_for_every_call_and_comes_back_at_another_address_with_its_counter(sim):
    sim.inject("unplug", at=sim.state()["sample"] + 3000, replug_ms=400)
    seen = run(sim, """
        import time
        amp = Amp(); amp.stream(); d = amp.device; address = d.address; last = 0; code = 0
        while not code:
            try:
                b = amp.block(); last = b[1] + b[2]
            except usb.core.USBError as e:
                code = e.errno
        read, ctrl = errno_of(d.read, 0x81, 512, 50), errno_of(d.ctrl_transfer, 0xC0, 2, 0, 0, 48)
        usb.util.dispose_resources(d)
        until = time.monotonic() + 5
        while (again := find()) is None and time.monotonic() < until:
            time.sleep(0.02)
        new = Amp(again); new.stream(9)
        answer(code=code, read=read, ctrl=ctrl, last=last, moved=again.address != address, serial=again.serial_number,
               same_boot=new.boot_id == amp.boot_id, first=new.block()[1])
    """)
    assert (seen["code"], seen["read"], seen["ctrl"]) == (19, 19, 19)
    assert seen["moved"] and seen["serial"] == "SIM-0001" and seen["same_boot"]
    assert seen["first"] == seen["last"] + 4000  # 400 ms at 10 kHz, exact


def test_a_cable_pulled_in_the_middle_of_a_transfer_and_a_reboot_change_boot_id_and_restart_the_counter(sim):
    sim.inject("unplug", at=sim.state()["sample"] + 1000, after_bytes=100, replug_ms=50, reboot=True, serial="SIM-0002")
    seen = run(sim, """
        import time
        amp = Amp(); amp.stream(); code = 0
        while not code:
            code = errno_of(amp.block)
        usb.util.dispose_resources(amp.device)
        until = time.monotonic() + 5
        while (again := find()) is None and time.monotonic() < until:
            time.sleep(0.02)
        new = Amp(again)
        answer(code=code, serial=again.serial_number, rebooted=new.boot_id != amp.boot_id)
    """)
    assert seen == {"code": 19, "serial": "SIM-0002", "rebooted": True}


def test_a_lost_reply_times_out_although_the_request_was_carried_out(sim):
    sim.inject("lose_reply", request=0x10)
    seen = run(sim, """
        amp = Amp(); d = amp.device
        lost = errno_of(d.ctrl_transfer, 0x41, 0x10, 1, 0, struct.pack("<I", 7), 80)
        answer(lost=lost, streaming=d.ctrl_transfer(0xC0, 0x02, 0, 0, 48)[3], first=amp.block()[0])
    """)
    assert seen == {"lost": 110, "streaming": 1, "first": 0}


def test_a_queue_of_transfers_is_cancelled_and_every_one_comes_back_once(sim):
    seen = run(sim, """
        from ctypes import CFUNCTYPE, POINTER, Structure, byref, c_int, c_long, c_ubyte, c_uint, c_void_p, cast
        from ctypes import create_string_buffer
        class Transfer(Structure):
            _fields_ = [("handle", c_void_p), ("flags", c_ubyte), ("endpoint", c_ubyte), ("type", c_ubyte),
                        ("timeout", c_uint), ("status", c_int), ("length", c_int), ("actual", c_int),
                        ("callback", c_void_p), ("user", c_void_p), ("buffer", c_void_p), ("packets", c_int)]
        class Time(Structure):
            _fields_ = [("s", c_long), ("us", c_long)]
        amp = Amp(); lib = libusb1._lib; done = []
        back = CFUNCTYPE(None, POINTER(Transfer))(lambda t: done.append(t.contents.status))
        lib.libusb_alloc_transfer.restype = POINTER(Transfer)
        lib.libusb_submit_transfer.argtypes = lib.libusb_cancel_transfer.argtypes = [POINTER(Transfer)]
        buffers = [create_string_buffer(16384) for _ in range(16)]
        transfers = [lib.libusb_alloc_transfer(0) for _ in buffers]
        for t, b in zip(transfers, buffers):
            c = t.contents
            c.handle, c.endpoint, c.type, c.length = amp.device._ctx.handle.handle, 0x81, 2, 16384
            c.callback, c.buffer = cast(back, c_void_p), cast(b, c_void_p)
            assert lib.libusb_submit_transfer(t) == 0
        codes = [lib.libusb_cancel_transfer(t) for t in transfers]
        for _ in range(100):
            if len(done) < 16:
                lib.libusb_handle_events_timeout(amp.device._ctx.backend.ctx, byref(Time(0, 50000)))
        amp.stream()
        answer(codes=sorted(set(codes)), statuses=sorted(set(done)), n=len(done), first=amp.block()[0])
    """)
    assert seen == {"codes": [0], "statuses": [3], "n": 16, "first": 0}  # 3: LIBUSB_TRANSFER_CANCELLED


def test_opening_and_closing_leaves_no_descriptor_and_no_thread_behind(sim):
    seen = run(sim, """
        import os
        def held():
            return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        d = find(); d.ctrl_transfer(0xC0, 0x02, 0, 0, 48); usb.util.dispose_resources(d)
        before = held()
        for _ in range(20):
            d.ctrl_transfer(0xC0, 0x02, 0, 0, 48)
            usb.util.dispose_resources(d)
        answer(before=before, after=held())
    """)
    assert seen["before"][0] == seen["after"][0]
    assert seen["after"][1] <= seen["before"][1] + 2  # of 20: /proc shows a joined thread for a moment longer


def test_a_child_process_does_not_take_the_parents_unit_away(sim):
    seen = run(sim, """
        import os, subprocess
        amp = Amp(); amp.stream()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        pid = os.fork()
        if not pid:
            os.closerange(3, 256)
            os._exit(0)
        os.waitpid(pid, 0)
        answer(first=amp.block()[0])
    """)
    assert seen == {"first": 0}


def test_a_node_without_permission_says_so_and_opens_when_it_may(sim):
    sim.inject("deny_open", errno=13, ms=60_000)
    assert run(sim, "answer(code=errno_of(find().ctrl_transfer, 0xC0, 2, 0, 0, 48))") == {"code": 13}
    sim.inject("clear")
    assert run(sim, "answer(code=errno_of(find().ctrl_transfer, 0xC0, 2, 0, 0, 48))") == {"code": 0}


def test_a_lost_unit_that_nobody_closes_costs_no_cpu(sim):
    seen = run(sim, """
        import time, threading
        amp = Amp(); amp.stream(); d = amp.device
        d.ctrl_transfer(0x40, 0x7E, 0, 0, json.dumps({"kind": "unplug"}).encode())
        while not errno_of(amp.block):
            pass
        other = usb.core.find(idVendor=0x1209, backend=d.backend)
        spent = time.process_time()
        codes = {errno_of(d.read, 0x81, 512, 100) for _ in range(3)}
        until = time.monotonic() + 0.3
        context = d._ctx.backend.ctx
        class Wait(__import__("ctypes").Structure):
            _fields_ = [("s", __import__("ctypes").c_long), ("us", __import__("ctypes").c_long)]
        libusb1._lib.libusb_handle_events_timeout(context, __import__("ctypes").byref(Wait(0, 300000)))
        answer(codes=sorted(codes), spent=time.process_time() - spent)
    """)
    assert seen["codes"] == [19]
    assert seen["spent"] < 0.15  # a poll that never sleeps would take all of 0.3 s
