"""Exact duplicates: one hash for all texts that differ only in how they are typed."""

from __future__ import annotations

import hashlib

from backend.similarity.normalise import normalise_text


def sample_text(instruction: str, input_text: str, output: str) -> str:
    """The one text by which a sample is compared with others: its parts, each on lines of its own."""
    return "\n".join(part for part in (instruction, input_text, output) if part)


def exact_hash(text: str) -> str:
    """SHA-256 of `normalise_text(text)` as 64 hex digits. Lone surrogates are hashed, never an error."""
    return hashlib.sha256(normalise_text(text).encode("utf-8", "surrogatepass")).hexdigest()
