"""`channels` expressions: a derivation as arithmetic over the columns of a file.

In: text such as `CP4 - Fpz` or `(A1 + A2) / 2`.  Out: a small tree that is evaluated over named columns.
Grammar: names, numbers, + - * / and parentheses; a name with other characters than letters, digits, `_ . ' #` stands in
double quotes.  Own parser: the text comes from files of others, so nothing of it is ever executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ionmd.errors import ConfigError

Array = npt.NDArray[np.float64]
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.'#])"
    r"|(?P<name>[^\W\d][\w.'#]*|\d[\w.'#]*[^\W\d][\w.'#]*)"
    r'|"(?P<quoted>[^"]+)"|(?P<op>[-+*/()]))'
)
MAX_LENGTH = 2000
MAX_DEPTH = 50


@dataclass(frozen=True)
class Expression:
    """`names` are the columns it needs, in order of first use."""

    text: str
    names: tuple[str, ...]
    _evaluate: Callable[[Mapping[str, Array]], Array | float]

    def __call__(self, columns: Mapping[str, Array]) -> Array:
        """The value over `columns` (float64[sample] each).  A constant expression is refused by `parse`."""
        return np.asarray(self._evaluate(columns), dtype=np.float64)


def parse(text: str) -> Expression:
    """Raises ConfigError with the place of the first mistake."""
    return _Parser(text).run()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.names: dict[str, None] = {}
        self.tokens: list[tuple[str, str, int]] = []
        self.at = 0
        self.depth = 0
        if len(text) > MAX_LENGTH:
            raise ConfigError(f"expression of {len(text)} characters came, at most {MAX_LENGTH} were expected")
        place = 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None or match.lastgroup is None:
                raise self._wrong(place, "a name, a number, + - * / or a parenthesis")
            self.tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
            place = match.end()

    def _wrong(self, place: int, expected: str) -> ConfigError:
        came = repr(self.text[place : place + 12]) if place < len(self.text) else "the end"
        return ConfigError(f"expression {self.text!r}: {came} came at character {place + 1}, {expected} was expected")

    def _peek(self) -> tuple[str, str, int]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "", len(self.text))

    def _take(self) -> tuple[str, str, int]:
        token = self._peek()
        self.at += 1
        return token

    def run(self) -> Expression:
        evaluate = self._sum()
        kind, _, place = self._peek()
        if kind != "end":
            raise self._wrong(place, "an operator or the end")
        if not self.names:
            raise ConfigError(f"expression {self.text!r}: no column in it, at least one name was expected")
        return Expression(self.text, tuple(self.names), evaluate)

    def _sum(self) -> Callable[[Mapping[str, Array]], Array | float]:
        left = self._product()
        while self._peek()[1] in ("+", "-") and self._peek()[0] == "op":
            sign = 1.0 if self._take()[1] == "+" else -1.0
            left = _join(left, self._product(), sign)
        return left

    def _product(self) -> Callable[[Mapping[str, Array]], Array | float]:
        left = self._unary()
        while self._peek()[0] == "op" and self._peek()[1] in ("*", "/"):
            _, op, place = self._take()
            right = self._unary()
            if op == "/" and _constant(right) == 0.0:
                raise self._wrong(place, "a divisor other than zero")
            left = _times(left, right) if op == "*" else _over(left, right)
        return left

    def _unary(self) -> Callable[[Mapping[str, Array]], Array | float]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"expression {self.text[:40]!r}...: nested deeper than {MAX_DEPTH}")
        kind, value, place = self._take()
        try:
            if kind == "op" and value in "+-":
                inner = self._unary()
                return inner if value == "+" else (lambda columns: -inner(columns))
            if kind == "op" and value == "(":
                inner = self._sum()
                closing = self._take()
                if closing[:2] != ("op", ")"):
                    raise self._wrong(closing[2], "a closing parenthesis")
                return inner
            if kind == "number":
                number = float(value)
                if not math.isfinite(number):
                    raise self._wrong(place, "a finite number")
                return lambda columns: number
            if kind in ("name", "quoted"):
                self.names[value] = None
                return lambda columns: columns[value]
            raise self._wrong(place, "a name, a number or an opening parenthesis")
        finally:
            self.depth -= 1


_Node = Callable[[Mapping[str, Array]], "Array | float"]


def _join(left: _Node, right: _Node, sign: float) -> _Node:
    return lambda columns: left(columns) + sign * right(columns)


def _times(left: _Node, right: _Node) -> _Node:
    return lambda columns: left(columns) * right(columns)


def _over(left: _Node, right: _Node) -> _Node:
    return lambda columns: left(columns) / right(columns)


def _constant(node: _Node) -> float | None:
    try:
        value = node({})
    except KeyError:
        return None
    return float(value) if isinstance(value, float) else None
