"""`ionmd doctor`: what is missing, and the exact fix; exit code 1 only for what `run` cannot do without."""

import json
from collections import namedtuple

import pytest
from click.testing import CliRunner

from ionmd.cli import doctor, main

KEYS = {"what", "ok", "detail", "fix", "needed"}


def ask(tmp_path, *options: str):
    return CliRunner().invoke(
        main, ["doctor", "--socket", str(tmp_path / "s"), "--state-dir", str(tmp_path / "state"), *options]
    )


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "DEFAULT_CONFIG", tmp_path / "ionmd.toml")


def test_a_machine_that_can_run_ends_with_0_and_says_what_is_absent_with_its_fix(tmp_path):
    done = ask(tmp_path)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert any(x.startswith("ok ") and "compiled parts" in x for x in lines)
    at = next(i for i, x in enumerate(lines) if "daemon" in x and "no daemon answers" in x)
    assert "systemctl enable --now ionmd.socket ionmd.service" in lines[at + 1]
    assert "\x1b" not in done.output


def test_json_has_every_check_with_its_fix(tmp_path):
    page = json.loads(ask(tmp_path, "--json").output)
    assert page["ok"] is True
    assert all(set(c) == KEYS for c in page["checks"])
    assert {c["what"] for c in page["checks"] if c["needed"]} == {
        "compiled parts", "libusb", "configuration", "state directory", "disk space"}  # fmt: skip


def test_a_wrong_configuration_is_missing_with_the_file_and_the_key(tmp_path):
    (tmp_path / "ionmd.toml").write_text("[device]\ninputs = 99\n")
    (tmp_path / "ionmd.toml").chmod(0o600)
    done = ask(tmp_path)
    assert done.exit_code == 1 and "MISSING  configuration" in done.output
    assert "device.inputs" in done.output and "docs/config.md" in done.output


def test_a_full_disk_is_missing_before_the_patient_comes(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(1 << 30, 1 << 30, 100 << 20))
    done = ask(tmp_path)
    assert done.exit_code == 1 and "100 MiB free, 0.0 h of 32 inputs" in done.output and "--state-dir" in done.output


def test_a_missing_kernel_names_the_module_and_how_to_build_it(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "COMPILED", ("ionmd.dsp._nothing",))
    done = ask(tmp_path)
    assert done.exit_code == 1 and "ionmd.dsp._nothing" in done.output and "C compiler" in done.output
