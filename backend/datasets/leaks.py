"""Leaks: rows that stand in more than one place of what must be kept apart. Pure; texts come in, leaks go out.

A leak is "exact" where two rows ask the same after normalising (`similarity.exact`), "near" where the
5-word shingles of their texts have a Jaccard similarity of at least `THRESHOLD` (`similarity.minhash`), and a
"canary" where a row holds the string that a benchmark carries so that it can be recognised in training data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from backend.similarity.exact import exact_hash
from backend.similarity.minhash import THRESHOLD, bands, estimate, jaccard, signature

Kind = Literal["exact", "near", "canary"]
# A signature's estimate has a standard error of 0.04: what is clearly below needs no comparison of texts.
_SLACK = 0.12


@dataclass(frozen=True, slots=True)
class Place:
    """One text and where it stands: a split or a benchmark's name, and the line there, from 1. `prompt` is
    what it asks, `text` all of it."""

    where: str
    line: int
    prompt: str
    text: str


@dataclass(frozen=True, slots=True)
class Leak:
    """The row on line `row` of `split` repeats the row on line `other` of `where`; `similarity` is 0 to 1."""

    kind: Kind
    split: str
    row: int
    where: str
    other: int
    similarity: float
    text: str


@dataclass(slots=True)
class LeakIndex:
    """What was seen so far, to be asked about the next text. Memory: about 3 kB a text and the text."""

    _places: list[tuple[Place, bytes]] = field(default_factory=list)
    _by_prompt: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _by_band: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _canaries: dict[str, str] = field(default_factory=dict)

    def add_canary(self, canary: str, where: str) -> None:
        self._canaries[canary] = where

    def add(self, place: Place) -> None:
        number = len(self._places)
        mark = signature(place.text)
        self._places.append((place, mark))
        self._by_prompt[exact_hash(place.prompt)].append(number)
        for band in bands(mark):
            self._by_band[band].append(number)

    def leaks(self, place: Place) -> Iterator[Leak]:
        """What of the texts added so far, but for those of the place's own split, `place` repeats."""
        same = [n for n in self._by_prompt.get(exact_hash(place.prompt), ()) if self._elsewhere(n, place)]
        yield from (self._leak("exact", place, n, 1.0) for n in same)
        mark = signature(place.text)
        near = {n for band in bands(mark) for n in self._by_band.get(band, ())} - set(same)
        for n in sorted(n for n in near if self._elsewhere(n, place)):
            other, other_mark = self._places[n]
            if estimate(mark, other_mark) >= THRESHOLD - _SLACK:
                similarity = jaccard(place.text, other.text)
                if similarity >= THRESHOLD:
                    yield self._leak("near", place, n, similarity)
        for canary, where in self._canaries.items():
            if canary in place.text:
                yield Leak("canary", place.where, place.line, where, 0, 1.0, canary)

    def _elsewhere(self, number: int, place: Place) -> bool:
        return self._places[number][0].where != place.where

    def _leak(self, kind: Kind, place: Place, number: int, similarity: float) -> Leak:
        other = self._places[number][0]
        return Leak(kind, place.where, place.line, other.where, other.line, similarity, place.prompt)
