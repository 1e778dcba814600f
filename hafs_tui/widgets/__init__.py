"""Widgets that more than one screen uses. Each takes text raw and sanitizes it itself."""
