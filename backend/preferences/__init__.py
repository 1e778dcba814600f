"""Preferences: candidates of a prompt, scorers, pairs with a margin, and what people say about pairs."""

from backend.preferences.errors import PreferenceError

__all__ = ["PreferenceError"]
