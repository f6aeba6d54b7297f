"""`ionmd tests` and `ionmd templates`: what the catalogue holds.  Needs no daemon."""

from __future__ import annotations

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
    """Check templates and test files: without names the catalogue's own.  Exit code 2 when one is wrong."""
    from ionmd import catalog
    from ionmd.errors import ConfigError

    wrong: list[str] = []
    names = list(files) or [*catalog.templates()]
    for name in names:
        try:
            catalog.resolve_template(name)
        except ConfigError as error:
            wrong.append(str(error))
    if as_json:
        show_json({"checked": names, "problems": wrong})
    else:
        for text in wrong:
            click.echo(f"ionmd: {clean(text)}", err=True)
        click.echo(f"{len(names) - len(wrong)} of {len(names)} are right")
    if wrong:
        raise SystemExit(2)


def _tree(value: object, indent: str = "") -> None:
    """Nested tables as indented lines."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict) or (isinstance(inner, list) and inner and isinstance(inner[0], dict)):
                click.echo(f"{indent}{clean(key)}")
                _tree(inner, indent + "  ")
            elif inner is not None:
                click.echo(f"{indent}{clean(key)}: {_flat(inner)}")
    elif isinstance(value, list):
        for item in value:
            click.echo(indent + "- " + ", ".join(f"{k} {_flat(v)}" for k, v in item.items() if v not in (None, "", [])))


def _flat(value: object) -> str:
    return ", ".join(clean(v) for v in value) if isinstance(value, (list, tuple)) else clean(value)
