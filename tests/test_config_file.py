"""The configuration file: exact or refused, with the key that is wrong; and where socket and record are."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionmd.config import HARD_LIMITS, load_config, parse_config, socket_candidates, state_dir
from ionmd.errors import ConfigError

FULL = b"""
[device]
driver = "demo"
serial = "SIM-0001"
inputs = 8
rate_hz = 10000
block_samples = 40
mains_hz = 60
[case]
template = "cervical"
[service]
socket = "/tmp/x.sock"
[record]
state_dir = "/tmp/state"
sync_s = 0.5
[limits]
transcutaneous_ma = 50.0
"""


def test_a_full_file_is_read_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "ionmd.toml"
    path.write_bytes(FULL)
    path.chmod(0o600)
    loaded = load_config(path)
    assert (loaded.config.device.inputs, loaded.config.device.mains_hz) == (8, 60)
    assert loaded.config.limits.transcutaneous_ma == 50.0
    assert len(loaded.sha256) == 64 and loaded.source == str(path)


def test_no_file_means_the_defaults() -> None:
    assert load_config(None).config.device.rate_hz == 20_000


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[device]\ninputs = '8'", "device.inputs"),
        ("[device]\ninputs = true", "device.inputs"),
        ("[device]\ninputs = 65", "device.inputs"),
        ("[device]\nrate_hz = 20001", "device.rate_hz"),
        ("[device]\nmains_hz = 55", "device.mains_hz"),
        ("[device]\nspeed = 1", "speed"),
        ("[devise]\ninputs = 8", "devise"),
        ("[record]\nsync_s = nan", "record.sync_s"),
        ("[record]\nsync_s = inf", "record.sync_s"),
        ("[record]\nstate_dir = 'here'", "record.state_dir"),
        ("[service]\nsocket_mode = '0666'", "service.socket_mode"),
        ("[limits]\nprobe_ma = 41.0", "limits.probe_ma"),
        ("[limits]\nprobe_ma = nan", "limits.probe_ma"),
        ("[limits]\ntranscranial_v = -1", "limits.transcranial_v"),
        ("[case]\ntemplate = '../x'", "case.template"),
        ("[device]\ninputs = 8\ninputs = 9", "overwrite"),
        ("= =", "line"),
        ("\x00\xff", "UTF-8"),
    ],
)
def test_a_wrong_value_is_refused_and_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_config(text.encode("latin-1"), "ionmd.toml")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_mutated_file_gives_a_configuration_or_a_config_error_and_never_a_higher_limit(data: st.DataObject) -> None:
    raw = bytearray(FULL)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        config = parse_config(bytes(raw))
    except ConfigError:
        return
    for key, hard in HARD_LIMITS.items():
        assert 0 <= getattr(config.limits, key) <= hard


def test_the_ceilings_are_those_of_the_stimulator() -> None:
    limits = pytest.importorskip("ionmd.stim.limits")
    by_kind = {"transcutaneous_ma": "transcutaneous", "transcranial_v": "transcranial", "probe_ma": "probe"}
    assert {k: limits.BY_NAME[v].max_amplitude / 1000 for k, v in by_kind.items()} == HARD_LIMITS


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(FULL)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod"):
        load_config(path)


def test_a_foreign_file_a_link_a_directory_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(FULL)
    path.chmod(0o600)
    if os.getuid() == 0:
        os.chown(path, 12345, -1)
        with pytest.raises(ConfigError, match="belongs to uid 12345"):
            load_config(path)
        os.chown(path, 0, -1)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    for wrong in (link, tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match=str(wrong)):
            load_config(wrong)


def test_the_socket_is_looked_for_in_the_order_of_the_contract() -> None:
    env = {"IONMD_SOCKET": "/e", "XDG_RUNTIME_DIR": "/run/user/1"}
    assert socket_candidates("/o", env) == [Path("/o")]
    assert socket_candidates(None, env) == [Path("/e")]
    del env["IONMD_SOCKET"]
    assert socket_candidates(None, env) == [Path("/run/ionmd/ionmd.sock"), Path("/run/user/1/ionmd.sock")]


def test_the_state_directory_is_looked_for_in_the_order_of_the_contract(tmp_path: Path, monkeypatch) -> None:
    env = {"STATE_DIRECTORY": "/s:/t", "XDG_STATE_HOME": "/x", "HOME": "/h"}
    monkeypatch.setattr("ionmd.config.SYSTEM_STATE", tmp_path / "lib")
    assert state_dir("/o", env) == Path("/o")
    assert state_dir(None, env) == Path("/s")
    del env["STATE_DIRECTORY"]
    assert state_dir(None, env) == Path("/x/ionmd")
    del env["XDG_STATE_HOME"]
    assert state_dir(None, env) == Path("/h/.local/state/ionmd")
    (tmp_path / "lib").mkdir()
    assert state_dir(None, env) == tmp_path / "lib"


def test_log_lines_are_json_escaped_and_limited_except_for_audit_and_alarms() -> None:
    import json

    import structlog

    from ionmd import log as ours

    out = io.StringIO()
    ours.setup_logging(stream=out)
    try:
        log = structlog.get_logger()
        for i in range(50):
            log.warning("samples_lost", i=i)
            log.warning("alarm_opened", i=i)
        log.info("client", name="a\x1b[2Jb\u202e")
        lines = [json.loads(x) for x in out.getvalue().splitlines()]
        assert sum(x["event"] == "samples_lost" for x in lines) == ours.RATE
        assert sum(x["event"] == "alarm_opened" for x in lines) == 50
        assert lines[-1]["name"] == "a\\x1b[2Jb\\u202e"
    finally:
        structlog.reset_defaults()


def test_the_next_line_says_how_many_were_left_out() -> None:
    import structlog

    from ionmd.log import RateLimit

    now = [0.0]
    limit = RateLimit(2, lambda: now[0])
    passed = 0
    for _ in range(5):
        try:
            limit(None, "info", {"event": "x"})
            passed += 1
        except structlog.DropEvent:
            pass
    now[0] = 1.5
    assert passed == 2 and limit(None, "info", {"event": "x"})["suppressed_before"] == 3
