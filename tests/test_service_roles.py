"""Who may what: roles from groups that the kernel vouches for, asked over the socket."""

from __future__ import annotations

import os

import pytest

from ionmd.service.roles import GROUPS, OVERFLOW_UID, Peer, allowed, rights_of, role_table
from ionmd.service.schema import METHODS
from tests.service_rig import Rig


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path) as running:
        yield running


@pytest.mark.parametrize("role", sorted(GROUPS))
def test_a_member_of_one_group_may_exactly_what_the_table_says(tmp_path, role):
    with Rig(tmp_path, source="device", groups={role: os.getgid()}) as rig:
        client = rig.raw()
        assert role in client.hello["params"]["roles"]
        for method in METHODS:
            reply = client.call(method, **({"topics": ["alarm"]} if "subscribe" in method else {}))
            forbidden = reply.get("error", {}).get("code") == 1001
            assert forbidden is not role_table()[method][role], method


def test_who_is_in_no_group_may_switch_stimulation_off_and_nothing_else(tmp_path):
    with Rig(tmp_path, source="device", groups={"view": 2**31}) as rig:
        client = rig.raw()
        assert client.hello["params"]["roles"] == []
        for method in METHODS:
            reply = client.call(method)
            assert ("result" in reply) is (method == "stim.off"), method
            if method != "stim.off":
                assert reply["error"]["code"] == 1001
                assert reply["error"]["data"]["roles"] == []


def test_a_supervising_physician_never_acknowledges_for_the_room_and_never_stimulates():
    may = {method for method in METHODS if allowed(method, frozenset({"oversee", "view"}))}
    assert {"alarm.seen", "message.send", "baseline.review", "person.sign_in"} <= may
    assert not any(m.startswith(("stim.", "threshold", "test.start", "test.set", "case.o")) for m in may - {
        "stim.off", "stim.status",
    })
    assert "alarm.ack" not in may and "alarm.pause" not in may


def test_with_a_real_device_and_no_groups_even_our_own_user_has_no_rights(tmp_path):
    with Rig(tmp_path, source="device") as rig:
        assert rig.raw().hello["params"]["roles"] == []


def test_with_a_simulated_device_and_no_groups_hello_says_why_we_may_everything(rig):
    params = rig.raw().hello["params"]
    assert params["roles"] == sorted(GROUPS)
    assert "no ionmd groups" in params["rights"]


def test_another_user_of_a_simulated_device_has_no_rights(tmp_path):
    with Rig(tmp_path, own_uid=os.getuid() + 1) as rig:
        assert rig.raw().hello["params"]["roles"] == []


def test_rights_need_an_identity():
    nobody = Peer(OVERFLOW_UID, 0, frozenset({0, 1, 2}))
    assert rights_of(nobody, "simulated", {}, OVERFLOW_UID).roles == frozenset()
