"""A workspace: the folder in which one person's work lies, its settings, and its open database."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.settings.load import load_settings
from backend.settings.models import Settings
from backend.store import Database, open_database, requests


def home_folder(given: Path | None = None) -> Path:
    """The workspace's folder: the one given, else $HAFS_HOME, else ~/.context. Always absolute."""
    chosen = given or Path(os.environ.get("HAFS_HOME") or "~/.context")
    return chosen.expanduser().absolute()


@dataclass(frozen=True, slots=True)
class Workspace:
    """What functions of the backend work in. The properties are folders and files under `home`."""

    home: Path
    settings: Settings
    db: Database

    @property
    def config(self) -> Path:
        return self.home / "config"

    @property
    def training(self) -> Path:
        return self.home / "training"

    @property
    def datasets(self) -> Path:
        return self.training / "datasets"

    @property
    def evaluations(self) -> Path:
        return self.training / "evaluations"

    @property
    def benchmarks(self) -> Path:
        return self.training / "benchmarks"

    @property
    def models(self) -> Path:
        """Models that were fetched from hosts or made here: bases, merged folders, GGUF files."""
        return self.training / "models"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def host_root(self) -> Path:
        """The root of the host "local": what its agent, jobs and outputs lie under."""
        return self.home / "host"

    @property
    def known_hosts(self) -> Path:
        return self.config / "known_hosts"

    def campaign_folder(self, name: str) -> Path:
        return self.training / name


def database_path(home: Path) -> Path:
    return home / "training" / "hafs.db"


@asynccontextmanager
async def open_workspace(home: Path | None = None) -> AsyncIterator[Workspace]:
    """Open the workspace for a block, and settle what processes that were killed left in flight.

    Raises SettingsError or StoreError, each with its remedy.
    """
    folder = home_folder(home)
    settings = load_settings(folder / "config")
    database = await open_database(database_path(folder))
    try:
        await requests.settle_left(database)
        yield Workspace(folder, settings, database)
    finally:
        await database.close()
