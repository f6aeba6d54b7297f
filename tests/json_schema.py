"""JSON Schema, as far as `describe` uses it; a keyword that is not here fails, so that nothing is checked by accident.

`closed`: members that the schema does not name are wrong as well.  A client must ignore them; our own server must not
send what it does not publish.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_SAYS_NOTHING = {"title", "description", "default", "$defs"}
_TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
    "number": (int, float),
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], closed: bool = True, at: str = "$") -> list[str]:
    """What is wrong with `value`; empty when it is valid.  `root` holds `$defs`."""
    return list(_check(value, schema, root, closed, at))


def _check(value: Any, schema: dict[str, Any], root: dict[str, Any], closed: bool, at: str) -> Iterator[str]:
    for keyword, wanted in schema.items():
        if keyword in _SAYS_NOTHING or keyword in ("properties", "required", "additionalProperties", "items"):
            continue
        if keyword == "$ref":
            yield from _check(value, root["$defs"][wanted.removeprefix("#/$defs/")], root, closed, at)
        elif keyword == "anyOf":
            tried = [problems(value, option, root, closed, at) for option in wanted]
            if all(tried):
                best = min(tried, key=len)
                yield f"{at}: none of {len(wanted)} fits; closest: {best[0]}"
        elif keyword == "type":
            yield from _type(value, wanted, at)
        elif keyword == "enum":
            if value not in wanted:
                yield f"{at}: {value!r} is none of {wanted}"
        elif keyword == "pattern":
            if isinstance(value, str) and not re.search(wanted, value):
                yield f"{at}: {value!r} does not match {wanted}"
        elif keyword in _LIMITS:
            kind, measure, holds, word = _LIMITS[keyword]
            if isinstance(value, kind) and not isinstance(value, bool) and not holds(measure(value), wanted):
                yield f"{at}: {measure(value)} is {word} {wanted}"
        elif keyword == "propertyNames":
            for name in value if isinstance(value, dict) else ():
                yield from _check(name, wanted, root, closed, f"{at}.{name}")
        elif keyword == "prefixItems":
            if isinstance(value, list):
                for i, (item, one) in enumerate(zip(value, wanted, strict=False)):
                    yield from _check(item, one, root, closed, f"{at}[{i}]")
        else:
            raise NotImplementedError(f"schema keyword {keyword}")
    if isinstance(value, dict) and schema.get("type") == "object":
        yield from _members(value, schema, root, closed, at)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for i, item in enumerate(value):
            yield from _check(item, schema["items"], root, closed, f"{at}[{i}]")


def _type(value: Any, wanted: str, at: str) -> Iterator[str]:
    fits = isinstance(value, _TYPES[wanted]) and not (wanted in ("integer", "number") and isinstance(value, bool))
    if not fits:
        yield f"{at}: {value!r} is no {wanted}"


def _members(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], closed: bool, at: str
             ) -> Iterator[str]:  # fmt: skip
    named, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name in schema.get("required", []):
        if name not in value:
            yield f"{at}: {name} is missing"
    for name, item in value.items():
        if name in named:
            yield from _check(item, named[name], root, closed, f"{at}.{name}")
        elif isinstance(others, dict):
            yield from _check(item, others, root, closed, f"{at}.{name}")
        elif others is False or (closed and others is None and named):
            yield f"{at}: {name} is not in the schema"


_SIZED = (str, list, dict)
_LIMITS: dict[str, Any] = {
    "minimum": ((int, float), lambda v: v, lambda v, w: v >= w, "below"),
    "maximum": ((int, float), lambda v: v, lambda v, w: v <= w, "above"),
    "exclusiveMinimum": ((int, float), lambda v: v, lambda v, w: v > w, "not above"),
    "exclusiveMaximum": ((int, float), lambda v: v, lambda v, w: v < w, "not below"),
    "minLength": (str, len, lambda v, w: v >= w, "shorter than"),
    "maxLength": (str, len, lambda v, w: v <= w, "longer than"),
    "minItems": (list, len, lambda v, w: v >= w, "fewer than"),
    "maxItems": (list, len, lambda v, w: v <= w, "more than"),
}
