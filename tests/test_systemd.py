"""The service files: systemd itself checks them; the example configuration is one that the daemon takes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ionmd.cli.doctor import GROUPS, PRODUCT, VENDOR
from ionmd.config import SYSTEM_SOCKET, parse_config

HERE = Path(__file__).parents[1] / "systemd"
WORST = 1.5
analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=30)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units with an executable that exists here."""
    for name in ("ionmd.service", "ionmd.socket"):
        text = (HERE / name).read_text().replace("/usr/bin/ionmd ", "/bin/true ")
        (tmp_path / name).write_text(text)
    return [str(tmp_path / "ionmd.service"), str(tmp_path / "ionmd.socket")]


@analyze
def test_systemd_finds_nothing_wrong_with_the_units(units):
    done = run("verify", *units)
    ours = [line for line in done.stderr.splitlines() if "ionmd" in line]
    assert (done.returncode, ours) == (0, [])


@analyze
def test_the_sandbox_scores_1_5_or_better(units):
    done = run("security", "--offline=true", f"--threshold={round(WORST * 10)}", units[0])
    assert done.returncode == 0, done.stdout
    score = re.search(r"Overall exposure level for ionmd.service: ([\d.]+)", done.stdout)
    assert score and float(score[1]) <= WORST


def test_the_documentation_that_the_unit_names_is_installed():
    named = re.search(r"^Documentation=file:(/usr/share/doc/ionmd)/(\S+)$", (HERE / "ionmd.service").read_text(), re.M)
    assert named and (HERE.parent / "docs" / named[2]).exists()
    assert f"$(DESTDIR){named[1]}" in (HERE.parent / "Makefile").read_text()


def test_make_install_puts_things_where_the_unit_starts_and_reads_them(tmp_path):
    """What it would do; `make check-boot` does it and boots the result."""
    command = ["make", "-n", "install", f"DESTDIR={tmp_path}"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    service = (HERE / "ionmd.service").read_text()
    program, config = re.search(r"^ExecStart=(\S+) run --config (\S+)$", service, re.M).groups()
    assert program == "/usr/bin/ionmd" and f"> {tmp_path}/usr/bin/${{verb%%:*}}" in done.stdout
    assert "for verb in ionmd:ionmd.cli " in done.stdout
    # the daemon's user reads it, and an upgrade leaves a cart's own limits alone
    assert f"[ -e {tmp_path}{config} ] || install -D -m 644 systemd/ionmd.toml {tmp_path}{config}" in done.stdout


def test_a_hanging_daemon_is_restarted_and_roles_still_come_from_the_hosts_groups():
    service = (HERE / "ionmd.service").read_text()
    for line in ("Type=notify", "WatchdogSec=5", "Restart=always", "RestartSec=300ms"):
        assert f"\n{line}\n" in service
    assert "\nPrivateUsers" not in service and "\nDynamicUser" not in service


def test_the_socket_is_where_clients_look_and_not_for_others():
    lines = (HERE / "ionmd.socket").read_text().splitlines()
    assert f"ListenStream={SYSTEM_SOCKET}" in lines and "SocketMode=0660" in lines


def test_sysusers_makes_every_group_that_gives_a_role():
    made = {line.split()[1] for line in (HERE / "ionmd.sysusers").read_text().splitlines() if line[:2] in ("g ", "u ")}
    assert made == {"ionmd", *GROUPS}


def test_the_udev_rule_names_our_device():
    rule = (HERE / "70-ionmd.rules").read_text()
    assert f'ATTR{{idVendor}}=="{VENDOR:04x}"' in rule and f'ATTR{{idProduct}}=="{PRODUCT:04x}"' in rule


def test_the_example_configuration_is_accepted():
    config = parse_config((HERE / "ionmd.toml").read_bytes(), "ionmd.toml")
    assert config.device.driver == "ionm1"
    assert config.limits.transcutaneous_ma == 50.0
