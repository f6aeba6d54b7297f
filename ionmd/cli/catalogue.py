"""`ionmd tests` and `ionmd templates`: what the catalogue holds.  Needs no daemon."""

from __future__ import annotations

from typing import Any

import click

from ionmd.cli.common import as_json, clean, places, show_json, table


@click.group()
def tests() -> None:
    """The tests of the catalogue."""


@tests.command("list")
@as_json
@places
def tests_list(as_json: bool, **_: object) -> None:
    """Every test: id, modality, side, title."""
    from ionmd import catalog

    found = [d.test for d in catalog.tests().values()]
    if as_json:
        show_json({"tests": [{"id": t.id, "modality": t.modality, "side": t.side, "title": t.title} for t in found]})
        return
    table([(t.id, t.modality, t.side, t.title) for t in found], ("TEST", "MODALITY", "SIDE", "TITLE"))


@tests.command("show")
@click.argument("test")
@as_json
@places
def tests_show(test: str, as_json: bool, **_: object) -> None:
    """One test, every key with its value; TEST is an id or a .toml file."""
    import msgspec

    from ionmd import catalog

    definition = msgspec.to_builtins(catalog.resolve_test(test))
    if as_json:
        show_json(definition)
    else:
        _tree(definition)


@click.group()
def templates() -> None:
    """The surgery templates of the catalogue."""


@templates.command("list")
@as_json
@places
def templates_list(as_json: bool, **_: object) -> None:
    """Every template: id, title, tests."""
    from ionmd import catalog

    found = list(catalog.templates().values())
    if as_json:
        rows = [{"id": t.template.id, "title": t.template.title, "tests": t.tests} for t in found]
        show_json({"templates": rows})
        return
    table([(t.template.id, t.template.title, ", ".join(t.tests)) for t in found], ("TEMPLATE", "TITLE", "TESTS"))


@templates.command("show")
@click.argument("template")
@as_json
@places
def templates_show(template: str, as_json: bool, **_: object) -> None:
    """One template: electrodes, outputs, tests, controls, checklist."""
    import msgspec

    from ionmd import catalog

    found = msgspec.to_builtins(catalog.resolve_template(template))
    if as_json:
        show_json(found)
    else:
        _tree(found)


@templates.command("check")
@click.argument("files", nargs=-1, metavar="[FILE...]")
@as_json
@places
def templates_check(files: tuple[str, ...], as_json: bool, **_: object) -> None:
    """Check templates and test files: ids of templates or .toml files; without names all that ship.  Exit code 2 when
    one is wrong."""
    from ionmd import catalog
    from ionmd.errors import ConfigError

    wrong: list[str] = []
    rows: list[tuple[str, ...]] = []
    names = list(files) or [str(f) for f in catalog.files()]
    for name in names:
        try:
            if "/" in name or name.endswith(".toml"):
                kind, identity = catalog.check_file(name)
            else:
                kind, identity = "template", catalog.resolve_template(name).template.id
            rows.append(("ok", kind, identity))
        except ConfigError as error:
            wrong.append(str(error))
    if as_json:
        show_json({"checked": names, "problems": wrong})
    else:
        for text in wrong:
            click.echo(f"ionmd: {clean(text)}", err=True)
        for row in rows:
            click.echo("  ".join(clean(c).ljust(w) for c, w in zip(row, (2, 8, 0), strict=True)))
        click.echo(f"{len(rows)} of {len(names)} are right")
    if wrong:
        raise SystemExit(2)


def _tree(value: dict[str, Any], indent: str = "") -> None:
    """Tables as indented keys, lists of tables as columns; what is empty is left out."""
    width = max((len(k) for k, v in value.items() if _shown(v) and not _nested(v)), default=0)
    for key, inner in value.items():
        if not _shown(inner):
            continue
        if isinstance(inner, dict):
            click.echo(f"{indent}{click.style(clean(key), bold=True)}")
            _tree(inner, indent + "  ")
        elif _nested(inner):
            click.echo(f"{indent}{click.style(clean(key), bold=True)}")
            columns = [k for k in inner[0] if any(_shown(row.get(k)) for row in inner)]
            columns += [k for row in inner[1:] for k in row if k not in inner[0] and _shown(row[k])]
            columns = list(dict.fromkeys(columns))
            table([tuple(_flat(row.get(k)) for k in columns) for row in inner], tuple(columns), indent + "  ")
        elif indent == "" and isinstance(inner, list):
            click.echo(click.style(clean(key), bold=True))
            for item in inner:
                click.echo(f"  {_flat(item)}")
        else:
            click.echo(f"{indent}{clean(key).ljust(width)}  {_flat(inner)}")


def _nested(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _shown(value: object) -> bool:
    return value is not None and value not in ("", [], {})


def _flat(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        if len(value) == 2 and all(isinstance(v, (int, float)) for v in value):
            return f"{value[0]:g} to {value[1]:g}"
        return ", ".join(_flat(v) for v in value)
    return "" if value is None else clean(value)
