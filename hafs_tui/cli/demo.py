"""`hafs-tui demo`: the whole loop in a workspace of its own, in the app or without a screen."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hafs_tui.cli.groups import Command
from hafs_tui.cli.support import Session, run_async

if TYPE_CHECKING:
    from backend.demo.loop import Stage


@click.command(cls=Command, epilog="Example: hafs-tui demo --headless --fast")
@click.option("--headless", is_flag=True, help="Without a screen: each stage's result is printed.")
@click.option(
    "--fast", is_flag=True, help="Fewer samples and steps: a few minutes, and no promise of a clear verdict."
)
@click.option(
    "--host",
    default="local",
    show_default=True,
    help="Train and evaluate on this host of --home's hosts.toml.",
)
@click.pass_obj
def command(session: Session, headless: bool, fast: bool, host: str) -> None:
    """Generate, review, SFT, evaluate, prefer, DPO and deploy, on the embedded model."""
    home = demo_home(session)
    if not headless:
        from hafs_tui.run import Demo, run_app

        sys.exit(run_app(home, Demo(host, fast)))
    run_async(lambda: _headless(session, home, host, fast))


def demo_home(session: Session) -> Path:
    """A new folder beside the person's own work, whose hosts it knows: demo/<stamp> in the workspace."""
    from backend.settings import home_folder

    base = home_folder(session.home)
    home = base / "demo" / time.strftime("%Y%m%d_%H%M%S")
    (home / "config").mkdir(parents=True)
    for name in ("hosts.toml", "known_hosts"):
        if (base / "config" / name).is_file():
            (home / "config" / name).write_bytes((base / "config" / name).read_bytes())
    return home


async def _headless(session: Session, home: Path, host: str, fast: bool) -> None:
    from backend.demo.loop import run_demo
    from backend.settings import open_workspace

    started = time.monotonic()
    session.tell(f"workspace: {home}")

    def done(stage: Stage) -> None:
        session.tell(f"{stage.name} ({stage.seconds:.0f} s): {stage.summary}\n")

    async with open_workspace(home) as ws:
        stages = await run_demo(ws, host=host, fast=fast, tell=session.tell, on_stage=done)
    seconds = time.monotonic() - started
    text = "\n".join(f"{s.name} ({s.seconds:.0f} s): {s.summary}" for s in stages)
    text += f"\n\nthe whole loop took {seconds:.0f} s; look at it: hafs-tui --home {home}"
    session.show({"workspace": home, "seconds": seconds, "stages": stages}, text)
