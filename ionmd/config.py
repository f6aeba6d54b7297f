"""The daemon's configuration file (TOML) and where its socket and its record are.

In: a path, or the environment.  Out: a frozen Config, or a ConfigError that names file, key, what came and what
was expected.  A file that others may write, or that belongs to somebody else, is refused: it decides what the
stimulator may do.  `[limits]` can only lower a ceiling; a value above the hard limit is refused, never clamped.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ionmd.errors import ConfigError
from ionmd.units import require_range

MAX_BYTES = 1 << 20
# ceilings of the firmware's limit table (docs/wire/ionm1.md 7); a test holds them against stim/limits.py
HARD_LIMITS = {"transcutaneous_ma": 100.0, "transcranial_v": 1000.0, "probe_ma": 40.0}
SYSTEM_SOCKET = Path("/run/ionmd/ionmd.sock")
SYSTEM_STATE = Path("/var/lib/ionmd")


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    driver: str = "ionm1"
    serial: str = ""  # empty: the single unit that is there
    inputs: int = 32
    rate_hz: int = 20_000
    block_samples: int = 40
    mains_hz: Literal[50, 60] = 50


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    template: str = "cervical"


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    socket: str = ""  # empty: design's search order
    socket_mode: str = "0660"
    max_clients: int = 64


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state_dir: str = ""  # empty: design's search order
    sync_s: float = 1.0
    segment_mib: int = 1024
    reserve_mib: int = 256


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ceilings of this cart, at most the hard limits."""

    transcutaneous_ma: float = HARD_LIMITS["transcutaneous_ma"]
    transcranial_v: float = HARD_LIMITS["transcranial_v"]
    probe_ma: float = HARD_LIMITS["probe_ma"]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`source` and `sha256` say which file it was (empty: defaults); both go into the journal."""

    device: Device = msgspec.field(default_factory=Device)
    case: Case = msgspec.field(default_factory=Case)
    service: Service = msgspec.field(default_factory=Service)
    record: Record = msgspec.field(default_factory=Record)
    limits: Limits = msgspec.field(default_factory=Limits)


class Loaded(msgspec.Struct, frozen=True):
    config: Config
    source: str = ""
    sha256: str = ""


def load_config(path: Path | None, uid: int | None = None) -> Loaded:
    """The file's configuration, or the defaults for None.

    uid     who may own the file besides root; default: this process
    Raises ConfigError for anything that is not exactly right; nothing is guessed."""
    if path is None:
        return Loaded(Config())
    raw = _read_private(path, os.getuid() if uid is None else uid)
    return Loaded(parse_config(raw, str(path)), str(path), hashlib.sha256(raw).hexdigest())


def parse_config(raw: bytes, name: str = "configuration") -> Config:
    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: byte {error.start} is not UTF-8; a TOML text file was expected") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name}: {error}; a TOML file was expected") from error
    try:
        config = msgspec.convert(table, Config, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {_readable(str(error))}") from error
    try:
        check_config(config)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    return config


def check_config(config: Config) -> None:
    """Ranges; ConfigError names the key."""
    device, record, service = config.device, config.record, config.service
    require_range("device.inputs", device.inputs, 1, 64)
    require_range("device.rate_hz", device.rate_hz, 1000, 40_000, "Hz")
    require_range("device.block_samples", device.block_samples, 1, 4096)
    if device.rate_hz % 10:
        raise ConfigError(f"device.rate_hz: {device.rate_hz} came, a multiple of 10 Hz was expected (100 ms records)")
    for key, word in (("device.driver", device.driver), ("case.template", config.case.template)):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", word):
            raise ConfigError(f"{key}: {word!r} came, 1 to 64 letters, digits, - or _ were expected")
    if not re.fullmatch(r"[ -~]{0,64}", device.serial):
        raise ConfigError(f"device.serial: {device.serial!r} came, up to 64 printable characters were expected")
    if not re.fullmatch(r"0[0-7]{3}", service.socket_mode) or int(service.socket_mode, 8) & 0o007:
        raise ConfigError(
            f'service.socket_mode: {service.socket_mode!r} came, an octal mode without rights for others was expected, '
            'e.g. "0660"'
        )
    require_range("service.max_clients", service.max_clients, 1, 1024)
    require_range("record.sync_s", record.sync_s, 0.1, 10.0, "s")
    require_range("record.segment_mib", record.segment_mib, 16, 1024, "MiB")
    require_range("record.reserve_mib", record.reserve_mib, 16, 1 << 20, "MiB")
    for key in ("socket", "state_dir"):
        text = service.socket if key == "socket" else record.state_dir
        if (text and not text.startswith("/")) or "\0" in text:
            raise ConfigError(f"{'service' if key == 'socket' else 'record'}.{key}: {text!r} came, "
                              "an absolute path was expected")  # fmt: skip
    for key, hard in HARD_LIMITS.items():
        require_range(f"limits.{key}", getattr(config.limits, key), 0.0, hard, "(limits can only be lowered)")


def _readable(text: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.device.inputs`" with the key first."""
    match = re.fullmatch(r"(.*?)(?: - at `\$\.?(.*)`)?", text, re.DOTALL)
    message, where = match.groups() if match else (text, "")
    return f"{where}: {message}" if where else message


def _read_private(path: Path, uid: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise ConfigError(f"{path}: a symbolic link came, the file itself was expected") from error
        raise ConfigError(f"{path}: {error.strerror}; a readable configuration file was expected") from error
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"{path}: not a regular file; a TOML file was expected")
        if info.st_uid not in (0, uid):
            raise ConfigError(f"{path}: it belongs to uid {info.st_uid}; root or uid {uid} was expected: chown it")
        if info.st_mode & 0o022:
            raise ConfigError(
                f"{path}: mode {stat.S_IMODE(info.st_mode):04o} lets others change it: `chmod go-w {path}` first"
            )
        if info.st_size > MAX_BYTES:
            raise ConfigError(f"{path}: {info.st_size} bytes came, at most {MAX_BYTES} were expected")
        return os.read(fd, MAX_BYTES)
    finally:
        os.close(fd)


def socket_candidates(option: str | None = None, environ: Mapping[str, str] | None = None) -> list[Path]:
    """Where the socket may be, best first.  A named one (option, then $IONMD_SOCKET) is the only candidate."""
    env = os.environ if environ is None else environ
    for named in (option, env.get("IONMD_SOCKET")):
        if named:
            return [Path(named)]
    runtime = env.get("XDG_RUNTIME_DIR")
    return [SYSTEM_SOCKET, *([Path(runtime) / "ionmd.sock"] if runtime else [])]


def state_dir_candidates(option: str | None = None, environ: Mapping[str, str] | None = None) -> list[Path]:
    """Where the record may be, best first; a named one is the only candidate."""
    env = os.environ if environ is None else environ
    # systemd gives a list separated by ':'; the first is ours
    for named in (option, env.get("STATE_DIRECTORY", "").split(":")[0]):
        if named:
            return [Path(named)]
    state_home = env.get("XDG_STATE_HOME")
    # of the two per-user places the first that is set
    user = Path(state_home) if state_home and state_home.startswith("/") else _home(env) / ".local" / "state"
    return [SYSTEM_STATE, user / "ionmd"]


def state_dir(option: str | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """--state-dir, $STATE_DIRECTORY, /var/lib/ionmd if writable, $XDG_STATE_HOME/ionmd, ~/.local/state/ionmd."""
    candidates = state_dir_candidates(option, environ)
    for path in candidates[:-1]:
        if os.access(path, os.W_OK | os.X_OK) and path.is_dir():
            return path
    return candidates[-1]


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises without a passwd entry
