"""The command line: what the app does, without a screen. Names are a contract: scripts use them.

Importing this costs click alone; a command's module is loaded when the command runs, and what it needs of
the backend when its body runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hafs_tui.cli.groups import LazyGroup
from hafs_tui.cli.support import Session

COMMANDS = {
    "demo": ("demo", "Run the whole loop in a workspace of its own, on the embedded model."),
    "doctor": ("doctor", "Say what is there, what is missing for which feature, and what brings it."),
    "campaign": ("campaign", "Generate samples: create, run, pause, show, compare."),
    "samples": (
        "samples",
        "Review samples: list, show, search, approve, reject, flag, rate, edit, undo, import, export.",
    ),
    "dataset": ("dataset", "Freeze samples into dataset versions: build, list, show, check, import, export."),
    "host": ("host", "Machines that train and serve: add, list, probe, gpus, put, get, shell."),
    "job": ("job", "Jobs of any kind on a host: launch, list, show, follow, cancel."),
    "train": ("train", "Fine-tune: sft, dpo, list, show, resume, metrics."),
    "eval": ("evaluate", "Evaluate and compare: run, compare, check, list, show."),
    "preferences": ("preferences", "Preference pairs: generate, list, show, choose, import, export."),
    "deploy": ("deploy", "From a model to an answer: hf, gguf, ollama, status, stop, rollback, chat."),
    "models": ("models", "The registry: list, show, prepare."),
    "lineage": ("lineage", "What a model, sample or benchmark item came from."),
    "backup": ("backup", "Write a consistent copy of the database to a file."),
    "prune": ("prune", "Show, or remove, old files that can be made again."),
}


@click.group(
    cls=LazyGroup,
    commands_by_name=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: hafs-tui demo --headless",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="The workspace; else $HAFS_HOME, else ~/.context.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON document on stdout; logs and errors on stderr."
)
@click.version_option(package_name="hafs-tui", prog_name="hafs-tui")
@click.pass_context
def cli(context: click.Context, home: Path | None, as_json: bool) -> None:
    """Take a language model through its whole life: generate, review, fine-tune, evaluate, prefer, deploy.

    Without a command, the app opens.
    """
    context.obj = Session(home, as_json)
    if context.invoked_subcommand is None:
        if as_json:
            raise click.UsageError("--json needs a command; without one, the app opens")
        if not (sys.stdin.isatty() and sys.stderr.isatty()):  # where the app reads and draws
            raise click.UsageError("the app needs a terminal; every action is a command too")
        from hafs_tui.run import run_app

        sys.exit(run_app(context.obj.home))


def main() -> None:
    """The program's entry point."""
    cli.main(prog_name="hafs-tui")
