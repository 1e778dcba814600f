"""The Hosts screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.widgets.table import Column, Table


class HostsScreen(ModeScreen[None]):
    """Shows nothing yet: its rows come with the store."""

    GROUP = "hosts"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("hosts")]

    def body(self) -> ComposeResult:
        yield Table([Column("Hosts")], empty="Nothing here yet.")

    async def read(self) -> None:
        return None

    def show(self, snapshot: None) -> None:
        return None
