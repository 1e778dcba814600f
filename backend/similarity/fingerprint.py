"""What a text is known by among all others: its exact hash, its MinHash signature and its bands."""

from __future__ import annotations

from dataclasses import dataclass

from backend.similarity import minhash
from backend.similarity.exact import exact_hash


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`text` is a sample's text (`exact.sample_text`), the rest is made from it."""

    text: str
    exact_hash: str
    signature: bytes
    bands: tuple[int, ...]


def fingerprint(text: str) -> Fingerprint:
    """About 0.1 ms for 100 words, after `minhash.warm_up`."""
    signature = minhash.signature(text)
    return Fingerprint(text, exact_hash(text), signature, tuple(minhash.bands(signature)))
