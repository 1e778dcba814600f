"""The command palette, made from the action table: what cannot be done now is listed with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from hafs_tui.actions import ACTIONS, MODES, unmet

if TYPE_CHECKING:
    from hafs_tui.app import HafsApp


class ActionCommands(Provider):
    """Every action of every mode, the open mode's first."""

    @property
    def _hafs(self) -> HafsApp:
        return cast("HafsApp", self.app)

    def _entries(self) -> Iterator[tuple[str, str, str]]:
        """(identifier, title, help) of each action; all text is ours."""
        screen = self._hafs.mode_screen
        group = screen.GROUP if screen is not None else ""
        labels = {mode.id: mode.label for mode in MODES} | {"app": "hafs-tui"}
        for action in sorted(ACTIONS, key=lambda action: action.group != group):
            need = unmet(action, screen.holds()) if screen is not None and action.group == group else None
            key = self._hafs.keymap.shown(action.id)
            text = f"{action.help} ({key})" if need is None else f"Not now: {need.value} ({key})"
            yield action.id, f"{labels[action.group]}: {action.label}", text
        for mode in MODES:
            yield f"mode.{mode.id}", f"Open {mode.label}", mode.help

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for identifier, title, text in self._entries():
            score = matcher.match(title)
            if score > 0:
                perform = partial(self._hafs.perform, identifier)
                yield Hit(score, matcher.highlight(title), perform, help=text)

    async def discover(self) -> Hits:
        for identifier, title, text in self._entries():
            yield DiscoveryHit(title, partial(self._hafs.perform, identifier), help=text)
