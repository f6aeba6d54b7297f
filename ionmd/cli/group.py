"""A click group whose verbs are imported when they are used, and whose errors are sentences with exit codes.

In: a table of verbs.  Out: exit code 0 done, 1 failed, 2 usage or configuration, 3 daemon not reachable, 4 refused.
Always: an error is one line on stderr; a traceback means a fault of the program.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from ionmd.errors import EXIT_OF_CODE, IonmdError, Refused


def exit_code(error: IonmdError) -> int:
    """What the process returns for an error; a refusal has the code of its number."""
    return EXIT_OF_CODE.get(error.code, 1) if isinstance(error, Refused) else error.exit_code


class LazyGroup(click.Group):
    def __init__(self, verbs: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self._verbs = dict(verbs)
        self.params.append(click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version,
            help="Show the version and exit.",
        ))  # fmt: skip

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(name for name in self._verbs if self._there(name))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._verbs or not self._there(name):
            return super().get_command(ctx, name)
        module, _, attribute = self._verbs[name][0].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"{module}:{attribute} is no command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            own = self.commands.get(name)
            rows.append((name, own.get_short_help_str(80) if own is not None else self._verbs[name][1]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except IonmdError as error:
            click.echo(f"ionmd: {error}", err=True)
            ctx.exit(exit_code(error))
        except BrokenPipeError:  # the reader of a pipe has gone: nothing is left to tell
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(1)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 2)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(repr(n) for n in near)}?", ctx) from None

    def _there(self, name: str) -> bool:
        return importlib.util.find_spec(self._verbs[name][0].partition(":")[0]) is not None


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from ionmd import __version__

        click.echo(f"ionmd {__version__}")
        ctx.exit()
