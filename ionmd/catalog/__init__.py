"""The catalogue: one TOML file per test, one per surgery template; files of the user have the same format.

In: a name or a path.  Out: TestDefinition or Template, checked.  Always: what is returned passed every rule of
docs/test-file.md, so later stages need not ask again.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from ionmd.catalog.check import check_template, check_test
from ionmd.catalog.read import convert, fail, read_toml
from ionmd.errors import ConfigError
from ionmd.testdef import Template, TestDefinition

HERE = Path(__file__).parent
SHAPE_NAME = re.compile(r"[a-z0-9_]+")

__all__ = [
    "check_file", "files", "load_template", "load_test", "resolve_template", "resolve_test", "templates", "tests",
]  # fmt: skip


def load_test(path: str | Path) -> TestDefinition:
    """One test file.  Raises ConfigError naming file, key, what came and what was expected."""
    file = Path(path)
    raw = read_toml(file)
    _lend_shapes(raw)
    definition = convert(str(file), raw, TestDefinition)
    check_test(definition, str(file))
    return definition


def _lend_shapes(raw: dict[str, Any]) -> None:
    """Shapes that the markers name and the file does not have come from the catalogue; a wrong file stays as it is."""
    own, markers = raw.setdefault("shape", {}), raw.get("marker", [])
    if not (isinstance(own, dict) and isinstance(markers, list)):
        return
    for name in {m["shape"] for m in markers if isinstance(m, dict) and isinstance(m.get("shape"), str)}:
        file = HERE / "shapes" / f"{name}.toml"
        if name not in own and SHAPE_NAME.fullmatch(name) and file.is_file():
            own[name] = read_toml(file)


def load_template(path: str | Path) -> Template:
    """One template; the tests it names are those of the catalogue."""
    file = Path(path)
    template = convert(str(file), read_toml(file), Template)
    check_template(template, str(file), tests())
    return template


def check_file(path: str | Path) -> tuple[str, str]:
    """("test" or "template", its id) of a file that passes every rule; which it is, its [test] or [template] says."""
    raw = read_toml(Path(path))
    if ("test" in raw) is ("template" in raw):
        raise fail(str(path), "top level", "both or none of [test] and [template]", "[test] or [template]")
    if "test" in raw:
        return "test", load_test(path).test.id
    return "template", load_template(path).template.id


def files() -> list[Path]:
    """Every file that ships."""
    return [*sorted((HERE / "tests").glob("*.toml")), *sorted((HERE / "templates").glob("*.toml"))]


@cache
def _tests() -> tuple[TestDefinition, ...]:
    found = []
    for file in sorted((HERE / "tests").glob("*.toml")):
        definition = load_test(file)
        if definition.test.id != file.stem:
            raise fail(str(file), "test.id", repr(definition.test.id), f"the name of the file, {file.stem!r},")
        found.append(definition)
    return tuple(found)


@cache
def _templates() -> tuple[Template, ...]:
    return tuple(load_template(file) for file in sorted((HERE / "templates").glob("*.toml")))


def tests() -> dict[str, TestDefinition]:
    """The shipped tests by id; a new dict each time, so that a caller may change it."""
    return {d.test.id: d for d in _tests()}


def templates() -> dict[str, Template]:
    return {t.template.id: t for t in _templates()}


def resolve_test(name_or_path: str) -> TestDefinition:
    """A test of the catalogue by id, or a file: whatever has a `/` or ends in `.toml` is a path."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return load_test(name_or_path)
    found = tests().get(name_or_path)
    if found is None:
        raise ConfigError(
            f"test {name_or_path!r} came, one of {', '.join(sorted(tests()))} or a .toml file was expected"
        )
    return found


def resolve_template(name_or_path: str) -> Template:
    """A template of the catalogue by id, or a file."""
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return load_template(name_or_path)
    found = templates().get(name_or_path)
    if found is None:
        raise ConfigError(
            f"template {name_or_path!r} came, one of {', '.join(sorted(templates()))} or a .toml file was expected"
        )
    return found
