"""The click classes of the command line: commands that are loaded when used, and that all take the common
options, which may stand before the command or behind it.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from hafs_tui.cli.support import Session


def _take(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Lay a common option that stands behind the command over the one before it."""
    if value:
        assert isinstance(context.obj, Session)  # noqa: S101 - the root command makes it
        context.obj = dataclasses.replace(context.obj, **{str(parameter.name): value})


class Command(click.Command):
    """A command that takes --home and --json too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params += [
            click.Option(
                ["--home"],
                type=click.Path(file_okay=False, path_type=Path),
                expose_value=False,
                callback=_take,
                help="The workspace; else $HAFS_HOME, else ~/.context.",
            ),
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                expose_value=False,
                callback=_take,
                help="One JSON document on stdout.",
            ),
        ]


class Group(click.Group):
    """A group whose commands take the common options."""

    command_class = Command


class LazyGroup(click.Group):
    """`commands_by_name` maps a name to (module of `hafs_tui.cli`, one-line help): the helps stand here so
    that `hafs-tui --help` imports none of the commands."""

    def __init__(self, *args: Any, commands_by_name: dict[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self._table = commands_by_name

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module = import_module(f"hafs_tui.cli.{self._table[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)  # noqa: S101 - each module names its command so
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])
