"""From the action table and the user's remapping to keys, with collisions reported and never guessed away.

The user's `[keys]` table maps an action's identifier to its keys (`"review.approve" = "y"`); a mode's
identifier is `mode.<name>`. Keys of the app and of the modes are live on every screen, so they may not
collide with those of any screen; two screens may share a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textual.binding import Binding
from textual.keys import format_key

from hafs_tui.actions import ACTIONS, BY_ID, MODES, Action

RESERVED = "ctrl+q"
_GLOBAL = ("app", "mode")
_NAMES = {"?": "question_mark", "/": "slash", " ": "space", ",": "comma", ".": "full_stop"}
_SHOWN = {"question_mark": "?", "slash": "/", "escape": "esc", "backspace": "⌫", "enter": "⏎", "comma": ","}


@dataclass(frozen=True, slots=True)
class Keymap:
    """Keys of every action and mode, and what was wrong with the user's remapping (in words)."""

    keys: Mapping[str, tuple[str, ...]]
    problems: tuple[str, ...] = ()

    def shown(self, action_id: str) -> str:
        """The first key of an action as people read it: `?`, `^p`, `space`."""
        return shown_key(self.keys[action_id][0])


def shown_key(key: str) -> str:
    """A key as people read it."""
    if key.startswith("ctrl+"):
        return f"^{key.removeprefix('ctrl+')}"
    return _SHOWN.get(key) or (key if len(key) == 1 else format_key(key).lower())


def _split(keys: str) -> tuple[str, ...]:
    return tuple(_NAMES.get(key, key) for key in (part.strip() or part for part in keys.split(",")) if key)


def default_keys() -> dict[str, tuple[str, ...]]:
    """The keys of the action table, by identifier."""
    modes = {f"mode.{mode.id}": _split(mode.keys) for mode in MODES}
    return modes | {action.id: _split(action.key) for action in ACTIONS}


def make_keymap(remapped: Mapping[str, str] | None = None) -> Keymap:
    """The keymap after the user's remapping.

    An entry that names no action, or takes a key that another action of the same screen has, is left
    out and told in `problems`: the app starts with the default for it.
    """
    keys = default_keys()
    problems: list[str] = []
    wanted: dict[str, tuple[str, ...]] = {}
    for name, value in (remapped or {}).items():
        if name not in keys:
            problems.append(f"keys: there is no action {name!r}; the help (?) lists them")
        elif not _split(value):
            problems.append(f"keys: {name!r} needs at least one key")
        elif RESERVED in _split(value):
            problems.append(f"keys: {name!r} cannot have {shown_key(RESERVED)!r}: it quits, from anywhere")
        else:
            wanted[name] = _split(value)
    # All at once, so that two actions can swap their keys; those that collide go back to their default.
    while True:
        tried = keys | wanted
        clashes = [
            (first, second, key)
            for first, second, key in collisions(tried)
            if first in wanted or second in wanted
        ]
        if not clashes:
            return Keymap(tried, tuple(problems))
        first, second, key = clashes[0]
        loser = second if second in wanted else first
        winner = first if loser == second else second
        problems.append(f"keys: {loser!r} cannot have {shown_key(key)!r}: {winner!r} has it")
        del wanted[loser]


def collisions(keys: Mapping[str, Sequence[str]]) -> list[tuple[str, str, str]]:
    """Pairs of actions that share a key where both are live, with that key."""
    found: list[tuple[str, str, str]] = []
    names = list(keys)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            groups = {first.partition(".")[0], second.partition(".")[0]}
            if len(groups) == 2 and not groups & set(_GLOBAL):
                continue
            found += [(first, second, key) for key in keys[first] if key in keys[second]]
    return found


def action_bindings(actions: Sequence[Action]) -> list[Binding]:
    """Textual bindings that perform `actions`, on their default keys."""
    return [
        Binding(
            ",".join(_split(action.key)), f"perform('{action.id}')", action.label, show=False, id=action.id
        )
        for action in actions
    ]


def mode_bindings() -> list[Binding]:
    """Textual bindings that open the modes, on their default keys."""
    return [
        Binding(
            ",".join(_split(mode.keys)),
            f"open_mode('{mode.id}')",
            mode.label,
            show=False,
            id=f"mode.{mode.id}",
        )
        for mode in MODES
    ]


def changes(keymap: Keymap) -> dict[str, str]:
    """What a keymap changes of the defaults, in the form that Textual lays over bindings."""
    default = default_keys()
    return {name: ",".join(keys) for name, keys in keymap.keys.items() if keys != default[name]}


def action_of(action_id: str) -> Action:
    """The action with this identifier. Raises KeyError for one that the table does not have."""
    return BY_ID[action_id]
