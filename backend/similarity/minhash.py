"""Near duplicates: MinHash signatures over word shingles, and the bands that find them in an index.

Texts are sets of 5-word shingles after `normalise_text`. A signature of 160 minima estimates the Jaccard
similarity of two sets (Broder 1997), and 32 bands of 5 minima find the candidates: two texts of similarity
s share at least one band with probability 1 - (1 - s^5)^32 (Leskovec, Rajaraman, Ullman, "Mining of Massive
Datasets", 3.4), that is 0.4 % at s = 0.17, 63 % at 0.5, 99.7 % at 0.7 and all but 2 in a million at 0.8. A candidate
is confirmed by `jaccard` of the texts themselves, so what is called a duplicate never rests on an estimate.

The signatures are datasketch's; its in-memory index is not used (840 MB for 100,000 texts): the band keys
are 64-bit integers that fit an INTEGER column of SQLite.
"""

from __future__ import annotations

import hashlib
import operator
import re
from functools import cache
from typing import TYPE_CHECKING

from backend.similarity.normalise import normalise_text

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE_WORDS = 5
BANDS = 32
ROWS = 5
PERMUTATIONS = BANDS * ROWS
THRESHOLD = 0.7

# Scripts that are written without spaces: each character is a word, or a page would be a single shingle.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def shingles(text: str) -> frozenset[str]:
    """The 5-word shingles of `text` after normalising. A text of one to four words is one shingle; a text
    without words has none."""
    normal = normalise_text(text)
    words = normal.split() if normal.isascii() else _WORDS.findall(normal)
    if not words:
        return frozenset()
    starts = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in starts)


@cache
def _empty() -> MinHash:
    # datasketch takes half a second to import, for what most commands never ask; drawing the permutations
    # costs as much as a signature. Both are done once, at the first signature.
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, scheme="affine32")


def warm_up() -> None:
    """Import datasketch and draw the permutations, half a second: call it in a thread before an event loop
    makes its first signature."""
    _empty()


def signature(text: str) -> bytes:
    """The MinHash signature of `text`: 160 minima as little-endian uint32, 640 bytes.

    The same on every machine and for ever (datasketch's affine32 scheme with seed 1); stored signatures
    depend on it. About 0.1 ms for 100 words, after `warm_up`.
    """
    sketch = _empty().copy()
    sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in shingles(text)])
    return sketch.hashvalues.astype("<u4").tobytes()  # type: ignore[no-any-return]


def bands(signature: bytes) -> list[int]:
    """The 32 band keys of a signature as signed 64-bit integers, for SQLite. A key holds its band's number,
    so keys of different bands are never compared by accident.

    Raises ValueError for a signature of another length.
    """
    _minima(signature)
    width = ROWS * 4
    return [
        int.from_bytes(
            hashlib.blake2b(
                band.to_bytes(2, "little") + signature[band * width : (band + 1) * width], digest_size=8
            ).digest(),
            "little",
            signed=True,
        )
        for band in range(BANDS)
    ]


def estimate(first: bytes, second: bytes) -> float:
    """The Jaccard similarity that two signatures suggest, 0 to 1; its standard error is at most 0.04.

    Raises ValueError for a signature of another length.
    """
    equal: int = sum(map(operator.eq, _minima(first), _minima(second)))
    return equal / PERMUTATIONS


def jaccard(first: str, second: str) -> float:
    """The Jaccard similarity of the shingles of two texts, 0 to 1; 1 for two texts without any word."""
    mine, theirs = shingles(first), shingles(second)
    union = len(mine | theirs)
    return len(mine & theirs) / union if union else 1.0


def _minima(signature: bytes) -> memoryview:
    if len(signature) != PERMUTATIONS * 4:
        raise ValueError(
            f"a signature of {len(signature)} bytes, not {PERMUTATIONS * 4}: it was made by another scheme, "
            "rebuild the index"
        )
    return memoryview(signature).cast("I")
