"""A request that meets a mistake of ours is answered, and the daemon goes on."""

from unittest import mock

from tests.daemon_rig import DaemonRig


def test_a_request_that_crashes_is_answered_and_the_next_one_works(tmp_path):
    with DaemonRig(tmp_path, "transcript") as rig:
        wire = rig.raw()
        with mock.patch.dict("ionmd.commands.table.HANDLERS", {"alarm.list": lambda *_: 1 // 0}):
            error = wire.call("alarm.list")["error"]
        assert error["code"] == -32603
        assert "alarm.list failed inside the daemon" in error["message"]
        assert wire.call("alarm.list")["result"] == {"alarms": []}
        rig.seconds(0.1)


def test_a_case_is_opened_after_cautery_and_after_impedances_were_measured(tmp_path):
    """What was known before the case goes into its journal, lines and inputs included."""
    with DaemonRig(tmp_path, "transcript") as rig:
        wire = rig.raw()
        wire.ask("impedance.measure", inputs=[0, 1])
        rig.to(20_000)
        assert len(wire.line()["result"]["electrodes"]) == 2
        assert wire.call("case.open")["result"]["case_id"]
