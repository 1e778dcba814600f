"""The two themes. Every pair of text and ground in them has a contrast of at least 4.5 (WCAG AA).

The colours are few: a ground, a panel, text, and one colour each for good, bad, warning and accent. No
screen says anything by colour alone.
"""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="hafs-dark",
    primary="#7aa2f7",
    secondary="#a9b1d6",
    accent="#e0af68",
    success="#9ece6a",
    warning="#e0af68",
    error="#ff8b98",
    foreground="#d5dbf5",
    background="#15161e",
    surface="#1b1d29",
    panel="#262938",
    dark=True,
    variables={
        "muted": "#9aa3c4",
        "cursor": "#2a3450",
        "cursor-blurred": "#262938",
        "block-cursor-foreground": "#15161e",
        "block-cursor-background": "#7aa2f7",
        "input-selection-background": "#3d59a1",
        "border": "#7aa2f7",
        "border-blurred": "#4a5070",
        "scrollbar": "#3b4261",
        "scrollbar-background": "#15161e",
    },
)

LIGHT = Theme(
    name="hafs-light",
    primary="#1f55b5",
    secondary="#4a5578",
    accent="#7a4b00",
    success="#2b6415",
    warning="#7a4b00",
    error="#a3172a",
    foreground="#1d2233",
    background="#fafafa",
    surface="#f0f1f5",
    panel="#e3e6ee",
    dark=False,
    variables={
        "muted": "#4d566f",
        "cursor": "#cbdaf7",
        "cursor-blurred": "#e3e6ee",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-background": "#1f55b5",
        "input-selection-background": "#b7cdf5",
        "border": "#1f55b5",
        "border-blurred": "#a9b0c2",
        "scrollbar": "#b6bdce",
        "scrollbar-background": "#fafafa",
    },
)

# Pairs of text and ground that our style sheets use, as names of theme colours.
_TEXTS = ("foreground", "muted", "primary", "accent", "success", "warning", "error")
_GROUNDS = ("background", "surface", "panel", "cursor-blurred", "cursor")
PAIRS = (
    *((text, ground) for text in _TEXTS for ground in _GROUNDS),
    ("block-cursor-foreground", "block-cursor-background"),
)


def colour(theme: Theme, name: str) -> str:
    """The colour of a theme by its name, as `#rrggbb`. Raises KeyError for a name it does not have."""
    return str(theme.variables[name] if name in theme.variables else vars(theme)[name])
