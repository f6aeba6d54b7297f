"""TOML text -> a typed, checked struct.

In: a file.  Out: a TestDefinition or Template, or one ConfigError that names file, key, what came and what was
expected.  Always: unknown keys, nan, inf, booleans where numbers belong and values out of range are refused; nothing
is guessed.
"""

from __future__ import annotations

import contextlib
import math
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ionmd.catalog.locate import line_of
from ionmd.errors import ConfigError

T = TypeVar("T")
MAX_BYTES = 1 << 20  # a test file is a page of text; more is a wrong file
_AT = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def fail(file: str, key: str, came: object, expected: str) -> ConfigError:
    """The one shape of every complaint about a file: where (with the line if the key stands on one), what came, what
    was expected."""
    return ConfigError(f"{place(file, key)}: {key}: {came} came, {expected} was expected")


def place(file: str, key: str) -> str:
    """The file, with the line of the key when it stands on one."""
    line = None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        line = line_of(Path(file).read_text(encoding="utf-8"), key)
    return f"{file}:{line}" if line else file


def read_toml(path: Path) -> dict[str, Any]:
    """The file as plain data; every float in it is finite."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise fail(str(path), "file", f"{path.stat().st_size} bytes", f"TOML of at most {MAX_BYTES} bytes")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise fail(str(path), "file", "nothing (no such file)", "a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise fail(str(path), "file", str(error), "a readable UTF-8 TOML file") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise fail(str(path), "file", f"no valid TOML ({error})", "TOML 1.0") from None
    except RecursionError:
        raise fail(str(path), "file", "tables nested too deep", "the tables of docs/test-file.md") from None
    _require_finite(str(path), raw, "")
    return raw


def _require_finite(file: str, value: object, key: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise fail(file, key, value, "a finite number")
    if isinstance(value, dict):
        for name, inner in value.items():
            _require_finite(file, inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _require_finite(file, inner, f"{key}[{i}]")


def convert(file: str, raw: dict[str, Any], kind: type[T]) -> T:
    """`raw` as `kind`; msgspec's refusal becomes ours, with the value that came."""
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        text = str(error)
        at = _AT.search(text)
        path = at["path"] if at else ""
        reason = text[: at.start()] if at else text
        key = path.lstrip(".") or "top level"
        unknown = re.search(r"unknown field `([^`]+)`", reason)
        if unknown:
            full = unknown[1] if key == "top level" else f"{key}.{unknown[1]}"
            raise fail(file, full, "an unknown key", "a key of docs/test-file.md") from None
        missing = re.search(r"missing required field `([^`]+)`", reason)
        if missing:
            full = missing[1] if key == "top level" else f"{key}.{missing[1]}"
            raise fail(file, full, "nothing", "this key") from None
        expected = re.sub(r"^Expected `?(.*?)`?(, got `.*`)?$", r"\1", reason)
        raise fail(file, key, _shown(raw, path), expected) from None


def _shown(raw: object, path: str) -> str:
    """The value at a msgspec path, as it would be written."""
    value = raw
    for name, index in _STEP.findall(path):
        if name and isinstance(value, dict):
            value = value.get(name)
        elif index.isdigit() and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            break
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
