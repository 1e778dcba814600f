"""Makes the pictures of the README: `docs/images/overview.svg` and `docs/images/review.svg`.

    .venv/bin/python tools/screenshots.py WORKSPACE

WORKSPACE is what a demo left (`make demo HEADLESS=1` prints its folder); it is copied and not changed. In the
copy one more campaign is run on the embedded model, so the pictures show real rows of all stages, one of them
at work, and no path of this machine.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from backend.generation.campaigns import NewCampaign, create
from backend.generation.engine import run_campaign
from backend.generation.progress import progress_of
from backend.hosts.gauges import read_gauges
from backend.providers.embedded import BUNDLED_MODEL
from backend.settings import Workspace, open_workspace
from backend.settings.workspace import database_path
from hafs_tui.app import HafsApp
from hafs_tui.background import Background

IMAGES = Path(__file__).parent.parent / "docs" / "images"
CAMPAIGN, TARGET, ENOUGH = "second-round", 60, 24
SETTINGS = '[review]\nreviewer = "me"\n'


async def main(demo: Path) -> None:
    """Copy the workspace, let a campaign work in it, and keep what the app shows."""
    if not database_path(demo).is_file():
        raise SystemExit(f"{demo} is no workspace: it has no {database_path(Path())}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        (copy / "config").mkdir()
        (copy / "config" / "settings.toml").write_text(SETTINGS, "utf-8")
        database_path(copy).parent.mkdir()
        async with open_workspace(demo) as source:
            await source.db.backup(database_path(copy))
        async with open_workspace(copy) as ws, Background() as background:
            await create(
                ws,
                NewCampaign(
                    name=CAMPAIGN, provider="embedded", model=BUNDLED_MODEL, target=TARGET, domains=("opcodes",), seed=7
                ),
            )  # fmt: skip
            background.start(CAMPAIGN, run_campaign(ws, CAMPAIGN))
            await take_pictures(ws, HafsApp(ws, background))


async def take_pictures(ws: Workspace, app: HafsApp) -> None:
    """The Overview while the campaign works, then the reviewer after three decisions."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    while (await progress_of(ws, CAMPAIGN)).accepted < ENOUGH:  # noqa: ASYNC110 - rows are the news
        await asyncio.sleep(0.5)
    async with app.run_test(size=(120, 40)) as pilot:
        app.gauges.add(await read_gauges(ws, "local"))
        await until(pilot, lambda: app.mode_screen is not None and app.mode_screen.snapshot is not None)
        await asyncio.sleep(1.5)  # the gauges are drawn once a second
        keep(app, "overview")
        await pilot.press("3")
        await until(pilot, lambda: app.mode_screen is not None and app.mode_screen.GROUP == "review")
        await until(pilot, lambda: app.mode_screen is not None and app.mode_screen.snapshot is not None)
        for key in "aaxa":
            await asyncio.sleep(0.5)
            await pilot.press(key)
        await asyncio.sleep(1.5)
        keep(app, "review")


async def until(pilot: Pilot[Any], holds: Callable[[], bool]) -> None:
    """Wait until `holds()`; give up after 20 s."""
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("the screen never came to what was expected")
        await pilot.pause()


def keep(app: HafsApp, name: str) -> None:
    """Write the screen as `docs/images/NAME.svg`, without the fonts that it would fetch from the network."""
    svg = re.sub(r"@font-face \{.*?\}", "", app.export_screenshot(simplify=True), flags=re.DOTALL)
    (IMAGES / f"{name}.svg").write_text(svg, "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    asyncio.run(main(Path(sys.argv[1])))
