"""The commands of docs/training/LORA_TRAINING.md: plans are run, all others are parsed with their every flag."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from backend.contract.options import add_arguments, from_values, given_values
from backend.contract.recipe import SftRecipe
from hafs_tui.cli import cli

PAGE = Path(__file__).parents[2] / "docs" / "training" / "LORA_TRAINING.md"
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("line", [line for line in COMMANDS if " train plan " in line])
def test_plans_end_as_the_page_says(line: str, tmp_path: Path) -> None:
    command, _, says = line.partition("# exit ")
    ran = CliRunner().invoke(cli, ["--home", str(tmp_path), *shlex.split(command)[1:]])
    assert ran.exit_code == int(says), ran.output


@pytest.mark.parametrize("line", [line for line in COMMANDS if " train plan " not in line])
def test_commands_are_accepted_with_every_flag(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "python":
        assert words[:2] == ["-m", "backend.worker.sft"]
        parser = argparse.ArgumentParser()
        add_arguments(parser, SftRecipe)
        assert from_values(SftRecipe, given_values(parser.parse_args(words[2:]), SftRecipe)).lora_r == 64
        return
    assert program == "hafs-tui"
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    # Makes the context, which parses and checks every argument; runs nothing.
    command.make_context(command.name, words, parent=context)
