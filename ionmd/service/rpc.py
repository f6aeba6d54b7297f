"""One line of bytes -> a checked request, or the error reply that refuses it.

Strict on purpose: Python's own json takes NaN, 1e999 and duplicate keys, and `nan > limit` is False.  Depth is
measured before parsing, in one linear pass, so that 64 KiB of brackets cost microseconds.  A request that fails
here reached nobody.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import msgspec

from ionmd.errors import (
    INTERLOCK,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LIMIT,
    METHOD_NOT_FOUND,
    NO_DEVICE,
    PARSE_ERROR,
    ConfigError,
    DeviceGone,
    DeviceRefused,
    IonmdError,
    Refused,
)
from ionmd.service.schema import MAX_DEPTH, METHODS, Method, Params

RequestId = int | str | None

_STRUCTURE = re.compile(rb'[\[\]{}"\\]')
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1


class RpcError(Exception):
    """A reply with `error`; `id` is None when the line did not even say one."""

    def __init__(self, code: int, message: str, id: RequestId = None, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.id = id
        self.data = data


class Request(msgspec.Struct, frozen=True):
    id: RequestId
    notification: bool
    method: str
    params: dict[str, Any]


def _depth(line: bytes) -> int:
    """Deepest nesting outside strings; stops counting beyond the limit."""
    depth = deepest = 0
    in_string = False
    skip = -1
    for found in _STRUCTURE.finditer(line):
        at = found.start()
        if at == skip:
            continue
        char = line[at]
        if in_string:
            if char == 0x5C:  # backslash: the next byte is no quote
                skip = at + 1
            elif char == 0x22:
                in_string = False
        elif char == 0x22:
            in_string = True
        elif char in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif char in b"]}":
            depth -= 1
    return deepest


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number out of range: {text[:32]}")
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 20 else None
    if value is None or not (_INT_MIN <= value <= _INT_MAX):
        raise ValueError(f"integer beyond 64 bits: {text[:24]}...")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:64]!r} came twice")
    return table


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a string holds NUL")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("a string holds half of a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


def strict_loads(line: bytes) -> Any:
    """The JSON value of one line.  Raises ValueError for anything RFC 8259 and docs/socket.md do not allow."""
    if _depth(line) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    value = json.loads(
        line.decode("utf-8"),
        parse_constant=_no_constant,
        parse_float=_finite,
        parse_int=_integer,
        object_pairs_hook=_unique,
    )
    _check_text(value)
    return value


def parse_request(value: Any) -> Request:
    """A decoded line as a request.  Raises RpcError -32600 or -32602."""
    if isinstance(value, list):
        raise RpcError(INVALID_REQUEST, "an array came; batches are not taken, send one request per line")
    if not isinstance(value, dict):
        raise RpcError(INVALID_REQUEST, "one JSON object per line was expected")
    notification = "id" not in value
    id = value.get("id")
    if not notification and (isinstance(id, bool) or not isinstance(id, (int, str)) or len(str(id)) > 128):
        raise RpcError(INVALID_REQUEST, "id: an integer or a string of at most 128 characters was expected")
    if value.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, 'the member "jsonrpc":"2.0" was expected', id)
    method = value.get("method")
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "method: a string was expected", id)
    params = value.get("params", {})
    if not isinstance(params, dict):
        raise RpcError(INVALID_PARAMS, "params: an object was expected, parameters go by name", id)
    return Request(id, notification, method, params)


def find_method(request: Request) -> Method:
    method = METHODS.get(request.method)
    if method is None:
        name = request.method[:64]
        raise RpcError(METHOD_NOT_FOUND, f"no method {name!r}; `describe` lists them", request.id)
    return method


def checked_params(request: Request, method: Method) -> Params:
    try:
        return msgspec.convert(request.params, method.params, strict=True)
    except msgspec.ValidationError as error:
        raise RpcError(INVALID_PARAMS, f"{request.method}: {error}; `describe` has the schema", request.id) from None


# ---------------------------------------------------------------- answers

_encoder = msgspec.json.Encoder(enc_hook=lambda value: _to_plain(value))
encode = _encoder.encode


def _to_plain(value: object) -> object:
    """numpy scalars and paths that slipped into a result; anything else is our mistake."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"cannot encode {type(value).__name__}")


def result_line(id: RequestId, result: bytes) -> bytes:
    """`result` is already JSON."""
    return b'{"jsonrpc":"2.0","id":' + encode(id) + b',"result":' + result + b"}\n"


def error_line(error: RpcError) -> bytes:
    body: dict[str, object] = {"code": error.code, "message": str(error)}
    if error.data:
        body["data"] = error.data
    return b'{"jsonrpc":"2.0","id":' + encode(error.id) + b',"error":' + encode(body) + b"}\n"


def notification_line(method: str, params: object) -> bytes:
    return b'{"jsonrpc":"2.0","method":' + encode(method) + b',"params":' + encode(params) + b"}\n"


def error_of(exception: BaseException, id: RequestId) -> RpcError:
    """The reply for what a backend raised.  Anything unforeseen says no more than that it happened."""
    if isinstance(exception, Refused):
        return RpcError(exception.code, str(exception), id, exception.data)
    if isinstance(exception, ConfigError):
        return RpcError(INVALID_PARAMS, str(exception), id)
    if isinstance(exception, DeviceGone):
        return RpcError(NO_DEVICE, str(exception), id)
    if isinstance(exception, DeviceRefused):
        code = LIMIT if exception.reason in ("LIMIT", "RANGE") else INTERLOCK
        return RpcError(code, str(exception), id, {"reason": exception.reason})
    if isinstance(exception, IonmdError):
        return RpcError(INTERNAL_ERROR, str(exception), id)
    return RpcError(INTERNAL_ERROR, "the daemon failed on this request; its log has the reason", id)


def parse_line(line: bytes) -> Any:
    """`strict_loads` with the protocol's own error."""
    try:
        return strict_loads(line)
    except UnicodeDecodeError as error:
        raise RpcError(PARSE_ERROR, f"not UTF-8 at byte {error.start}; one JSON object per line was expected") from None
    except (ValueError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, f"not strict JSON: {error}") from None
