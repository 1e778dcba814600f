"""The index of everything ever accepted: which sample a text repeats, and how a sample enters it."""

from __future__ import annotations

import asyncio

from backend.quality.gates import Match
from backend.similarity.exact import sample_text
from backend.similarity.fingerprint import Fingerprint, fingerprint
from backend.similarity.minhash import bands, estimate, jaccard
from backend.store import Database, Queries, Transaction, samples
from backend.store.samples import Sample

# A signature's estimate has a standard error of 0.04: what is nearer than this is compared word by word.
_ESTIMATE_SLACK = 0.12
_PAGE = 200
_COMPARED = 50


def text_of(sample: Sample) -> str:
    return sample_text(sample.instruction, sample.input, sample.output)


async def find_duplicate(
    queries: Queries, known_by: Fingerprint, threshold: float, *, besides: int | None = None
) -> Match | None:
    """The accepted sample, other than `besides`, that a text repeats: equal after normalising, or with a
    Jaccard similarity of word shingles of at least `threshold` (0 to 1). Looks at everything ever accepted."""
    same = await samples.id_by_hash(queries, known_by.exact_hash, besides=besides)
    if same is not None:
        return Match(str(same), 1.0, exact=True)
    nearest: Match | None = None
    # Samples of one template share some bands by the hundred: only the nearest are compared word by word.
    likely = [
        (estimate(known_by.signature, theirs), sample_id)
        for sample_id, theirs in await samples.sharing_bands(queries, known_by.bands)
        if sample_id != besides
    ]
    likely = [each for each in likely if each[0] >= threshold - _ESTIMATE_SLACK]
    for _, sample_id in sorted(likely, reverse=True)[:_COMPARED]:
        other = await samples.by_id(queries, sample_id)
        if other is None:
            continue
        similarity = jaccard(known_by.text, text_of(other))
        if similarity >= threshold and (nearest is None or similarity > nearest.similarity):
            nearest = Match(str(sample_id), similarity, exact=False)
    return nearest


async def remember(transaction: Transaction, sample_id: int, known_by: Fingerprint) -> None:
    """Enter an accepted sample as it is now, so that nothing like it is accepted again."""
    await forget(transaction, sample_id)
    await samples.insert_signature(transaction, sample_id, known_by.signature, known_by.bands)


async def forget(transaction: Transaction, sample_id: int) -> None:
    """Take a sample out of the index, if it is there."""
    old = await samples.signature_of(transaction, sample_id)
    if old is not None:
        await samples.remove_signature(transaction, sample_id, bands(old))


async def index_missing(database: Database, since: int = 0) -> int:
    """Enter what was accepted another way than by a campaign (imported, or let in by a reviewer) after `since`
    of the change sequence; the number to begin with next time. The fingerprints are made in a thread."""
    newest = await samples.newest_change(database)
    while found := await samples.without_signature(database, since, _PAGE):
        known = await asyncio.to_thread(lambda page: [fingerprint(text_of(s)) for s in page], found)

        async def enter(
            transaction: Transaction, page: list[Sample] = found, known: list[Fingerprint] = known
        ) -> None:
            for sample, known_by in zip(page, known, strict=True):
                now = await samples.by_id(transaction, sample.id)
                if now is not None and now.state != "gated" and now.revision == sample.revision:
                    await remember(transaction, sample.id, known_by)

        await database.write(enter, heavy=True)
        since = found[-1].change
    return newest
