"""docs/cli.md and docs/config.md say what there is: verbs, options, keys with their limits; completion works."""

import re
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from ionmd.cli import VERBS, main
from ionmd.config import Config, check_config, parse_config
from ionmd.errors import ConfigError

DOCS = Path(__file__).parents[1] / "docs"
COMMON = {"--socket", "--state-dir", "--json", "--help"}


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", (DOCS / "cli.md").read_text(), re.S | re.M)
    assert found, f"docs/cli.md has no section {name}"
    return found[1]


def commands() -> list[tuple[str, click.Command]]:
    """(verb, "sub" or "", command) of everything that is there."""
    context, found = click.Context(main), []
    for verb in main.list_commands(context):
        command = main.get_command(context, verb)
        if isinstance(command, click.Group):
            inner = click.Context(command)
            found += [(f"{verb} {n}", command.get_command(inner, n)) for n in command.list_commands(inner)]
        else:
            found.append((verb, command))
    return found


@pytest.mark.parametrize(("path", "command"), commands(), ids=[p for p, _ in commands()])
def test_every_verb_and_option_is_described(path, command):
    verb = path.split()[0]
    text = section(verb)
    assert f"ionmd {path}" in text
    for option in (o for p in command.params if isinstance(p, click.Option) for o in p.opts):
        assert option in COMMON or re.search(rf"{option}\b", text), f"{path} {option}"


def test_every_verb_that_the_contract_names_is_described_once_it_is_there():
    there = {path.split()[0] for path, _ in commands()}
    assert there <= set(VERBS)
    described = set(re.findall(r"^## (\w+)$", (DOCS / "cli.md").read_text(), re.M))
    assert there <= described | {"report", "export", "evaluate"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_made_and_completes_verbs(shell):
    made = CliRunner(env={"_IONMD_COMPLETE": f"{shell}_source"}).invoke(main, [], prog_name="ionmd")
    assert made.exit_code == 0 and "ionmd" in made.output and "_IONMD_COMPLETE" in made.output
    assert f"_IONMD_COMPLETE={shell}_source" in section("Shell completion")
    word = "st" if shell == "fish" else "1"
    env = {"_IONMD_COMPLETE": f"{shell}_complete", "COMP_WORDS": "ionmd st", "COMP_CWORD": word}
    words = CliRunner(env=env).invoke(main, [], prog_name="ionmd").output
    assert all(verb in words for verb in ("start", "status", "stim", "stop"))


# ---------------------------------------------------------------- configuration


def keys() -> dict[str, object]:
    """table.key -> default, of every table of the configuration."""
    return {
        f"{table}.{key}": value
        for table, values in msgspec.to_builtins(Config()).items() for key, value in values.items()
    }  # fmt: skip


def rows() -> dict[str, list[str]]:
    """table.key -> cells of its row in docs/config.md."""
    found, table = {}, ""
    for line in (DOCS / "config.md").read_text().splitlines():
        if heading := re.fullmatch(r"## \[(\w+)\]", line):
            table = heading[1]
        elif row := re.match(r"\| `(\w+)` \|", line):
            found[f"{table}.{row[1]}"] = [c.strip().strip("`") for c in line.strip("|").split("|")]
    return found


def test_every_key_of_the_configuration_has_a_row_with_its_default():
    documented = rows()
    assert set(documented) == set(keys())
    for key, default in keys().items():
        told = documented[key][-1]
        shown = '""' if default == "" else f"{default:g}" if isinstance(default, float) else str(default)
        assert told == shown, key


def limits() -> list[tuple[str, float, float]]:
    found = []
    for key, cells in rows().items():
        if span := re.fullmatch(r"(-?[\d.]+) to (-?[\d.]+)", cells[3]):
            found.append((key, float(span[1]), float(span[2])))
    return found


@pytest.mark.parametrize(("key", "low", "high"), limits(), ids=[k for k, _, _ in limits()])
def test_the_limits_are_those_that_are_enforced(key, low, high):
    table, name = key.split(".")

    def with_value(value: float) -> bytes:
        whole = isinstance(keys()[key], int)
        return f"[{table}]\n{name} = {int(value) if whole else value}\n".encode()

    for good in (low, high):
        check_config(parse_config(with_value(good)))
    for bad in (low - 1, high + 1):
        with pytest.raises(ConfigError, match=name):
            parse_config(with_value(bad))
