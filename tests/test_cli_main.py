"""The command line from outside: names, JSON keys, exit codes, and errors that say what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from service_rig import Rig

from ionmd.cli import VERBS, main
from ionmd.cli.demo_show import Seen, show, summary
from ionmd.cli.draw import waveform


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path) as running:
        yield running


def ionmd(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_every_verb_that_is_there_accepts_socket_and_state_dir():
    for name in VERBS:
        result = ionmd(name, "--help")
        if result.exit_code == 0 and "Commands:" not in result.output:
            assert "--socket" in result.output and "--state-dir" in result.output, name


def test_the_help_page_imports_no_verb():
    code = ("import sys; from ionmd.cli import main; main(['--help'], standalone_mode=False); "
            "print(sorted(m for m in sys.modules if m.startswith('ionmd.cli.') or m == 'numpy'))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20,
                          cwd=Path(__file__).parents[1])
    assert done.stdout.splitlines()[-1] == "['ionmd.cli.group']", done.stderr


def test_without_a_daemon_the_exit_code_is_3_and_the_error_says_what_was_tried(tmp_path):
    result = ionmd("status", "--socket", tmp_path / "none.sock")
    assert result.exit_code == 3
    assert "none.sock" in result.output and "ionmd run" in result.output


def test_an_unknown_option_is_a_usage_error():
    assert ionmd("status", "--nope").exit_code == 2
    assert ionmd("tests", "show", "nope").exit_code == 2


def test_a_case_is_made_noted_and_closed_over_the_socket(rig):
    opened = ionmd("case", "new", "--id", "c-7", "--json", "--socket", rig.path)
    assert json.loads(opened.output)["case_id"] == "c-7"
    noted = json.loads(ionmd("note", "all", "quiet", "--json", "--socket", rig.path).output)
    assert set(noted) == {"n", "sample"}
    assert ionmd("case", "close", "--socket", rig.path).exit_code == 0


def test_a_request_without_a_case_fails_with_exit_code_1_and_the_daemons_words(rig):
    result = ionmd("note", "x", "--socket", rig.path)
    assert result.exit_code == 1
    assert "no case is open" in result.output


def test_a_lease_that_is_held_is_refused_with_exit_code_4(rig):
    holder = rig.raw()
    assert "result" in holder.call("stim.acquire")
    result = ionmd("start", "ssep_median_left", "--socket", rig.path)
    assert result.exit_code == 4
    assert "held" in result.output


def test_stimulation_by_hand_needs_a_lease_id(rig):
    result = CliRunner(env={"IONMD_LEASE": ""}).invoke(
        main, ["stim", "arm", "--output", "probe", "--site", "x", "--amplitude-ma", "1", "--width-us", "200",
               "--socket", str(rig.path)])
    assert result.exit_code == 4
    assert "attend" in result.output


def test_stim_off_asks_nothing_of_nobody(rig):
    assert ionmd("stim", "off", "--socket", rig.path).exit_code == 0
    assert rig.backend.off_one.wait(5)


def test_tests_and_templates_are_listed_without_a_daemon():
    found = json.loads(ionmd("tests", "list", "--json").output)["tests"]
    assert {"id", "modality", "side", "title"} == set(found[0])
    assert json.loads(ionmd("templates", "list", "--json").output)["templates"][0]["id"] == "cervical"
    assert ionmd("templates", "check").exit_code == 0


def test_a_wrong_template_is_exit_code_2_and_names_the_file(tmp_path):
    (tmp_path / "t.toml").write_text("[template]\nid = 3\n")
    result = ionmd("templates", "check", tmp_path / "t.toml")
    assert result.exit_code == 2
    assert "t.toml" in result.output


def test_verify_of_a_case_that_is_not_there_fails_and_of_none_does_not(tmp_path):
    assert ionmd("case", "verify", "nope", "--state-dir", tmp_path).exit_code == 1
    assert ionmd("case", "verify", "../etc", "--state-dir", tmp_path).exit_code == 2
    assert json.loads(ionmd("case", "verify", "--json", "--state-dir", tmp_path).output) == {"ok": True, "cases": []}


def test_a_real_device_has_its_own_speed():
    result = ionmd("run", "--speed", "max")
    assert result.exit_code == 2
    assert "--simulate" in result.output


def test_a_recording_is_no_amplifier(tmp_path):
    (tmp_path / "c.toml").write_text('[device]\ndriver = "replay"\n')
    result = ionmd("run", "--config", tmp_path / "c.toml", "--state-dir", tmp_path / "state")
    assert result.exit_code == 2 and "replay came" in result.stderr and "`ionmd replay FILE`" in result.stderr


@pytest.mark.parametrize("speed", ["0", "nan", "-1", "fast"])
def test_a_speed_that_is_none_is_refused(speed):
    assert ionmd("run", "--simulate", "quiet", "--speed", speed).exit_code == 2


@pytest.mark.parametrize("command", [
    ("threshold", "temg_probe", "--from"), ("stim", "confirm", "token"),
    ("alarm", "pause", "--reason", "x", "--seconds"),
    ("marker", "set", "ssep_median_left", "CP4-Fpz", "N20", "--reason", "x"),
    ("stim", "arm", "--output", "tes", "--site", "C3/C4", "--width-us", "75", "--amplitude-v"),
])  # fmt: skip
@pytest.mark.parametrize("number", ["nan", "inf", "1e999", "ten"])
def test_a_number_that_json_cannot_carry_is_refused_and_never_taken_for_none(command, number):
    result = ionmd(*command, number)
    assert result.exit_code == 2 and f"'{number}' came, a finite number was expected" in result.output


def test_a_waveform_is_as_high_as_its_values():
    assert waveform([-1.0, -1.0, 1.0, 1.0]) == "\u28c0\u2809"
    assert waveform([]) == ""
    assert len(waveform([0.0] * 1000, width=40)) == 40


def test_the_demo_summary_counts_from_the_scripted_loss():
    alarm = {"id": "A1", "kind": "physiological", "priority": "high", "state": "active", "cause": "focal",
             "side": "right", "sentence": "falls", "evidence": [], "test": "t", "derivations": [], "sample": 4000}
    reading = {"test": "t", "derivation": "d", "stimulus": {"rate_hz": 2.5}}
    said: list[str] = []
    found = show(iter([Seen("reading", reading, 1), Seen("alarm", alarm, 4000)]), 10.0, said.append)
    assert any("falls" in line for line in said)
    text = summary(found, 10.0, 380.0, "right")[1]
    assert "side right, cause focal" in text and "20.0 s after the loss = 50 sweeps" in text
