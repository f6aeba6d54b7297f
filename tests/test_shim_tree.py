"""The files that stand for /sys/bus/usb and /dev/bus/usb follow the cable."""

from __future__ import annotations

from firmware_sim.descriptors import Descriptors
from firmware_sim.shim.tree import Tree


def test_a_plugged_unit_has_the_files_that_libusb_reads(tmp_path):
    says = Descriptors("SIM-0007")
    Tree(tmp_path).plug("1-1", 5, says)
    at = tmp_path / "sys/bus/usb/devices/1-1"
    read = {name: (at / name).read_text().strip() for name in ("busnum", "devnum", "speed", "idVendor", "serial")}
    assert read == {"busnum": "1", "devnum": "5", "speed": "480", "idVendor": "1209", "serial": "SIM-0007"}
    assert (at / "descriptors").read_bytes() == says.device() + says.configuration()
    assert (at / "power/control").read_text() == "on\n"
    assert (tmp_path / "dev/bus/usb/001/005").read_text() == "1-1\n"


def test_a_replug_moves_the_node_and_leaves_nothing_of_the_old_one(tmp_path):
    tree = Tree(tmp_path)
    tree.plug("1-1", 5, Descriptors("SIM-0007"))
    tree.plug("1-1", 6, Descriptors("SIM-0008"))
    assert sorted(f.name for f in (tmp_path / "dev/bus/usb/001").iterdir()) == ["001", "006"]
    assert sorted(f.name for f in (tmp_path / "sys/bus/usb/devices").iterdir()) == ["1-1", "usb1"]
    tree.unplug("1-1")
    tree.unplug("1-1")
    assert [f.name for f in (tmp_path / "sys/bus/usb/devices").iterdir()] == ["usb1"]


def test_a_denied_node_holds_the_errno_until_it_is_allowed_again(tmp_path):
    tree = Tree(tmp_path)
    tree.plug("1-1", 2, Descriptors("SIM-0001"))
    tree.deny("1-1", 13)
    assert (tmp_path / "dev/bus/usb/001/002").read_text() == "!13\n"
    tree.deny("1-1", 0)
    assert (tmp_path / "dev/bus/usb/001/002").read_text() == "1-1\n"


def test_a_full_speed_unit_says_so(tmp_path):
    Tree(tmp_path).plug("1-1", 2, Descriptors("SIM-0001", high_speed=False))
    assert (tmp_path / "sys/bus/usb/devices/1-1/speed").read_text() == "12\n"
