"""Decisions about one sample: approve, reject, flag, skip, rate, edit, undo and redo.

Each call is one transaction: when it returns, the decision and what follows from it are on disk. Any sample
can be decided about, also one that a gate refused: people overrule gates, and the log shows that they did.
"""

from __future__ import annotations

from dataclasses import replace

from backend.quality.duplicates import remember
from backend.review import guidelines
from backend.review.log import STATE_OF, ReviewError, Standing, standing
from backend.settings import Workspace
from backend.similarity.exact import exact_hash, sample_text
from backend.similarity.fingerprint import fingerprint
from backend.store import Queries, Transaction, decisions, samples
from backend.store.decisions import Decision, DecisionKind, ReviewerKind
from backend.store.samples import Sample


async def approve(
    ws: Workspace, sample_id: int, *, reviewer: str | None = None, kind: ReviewerKind = "person"
) -> Decision:
    """The sample may be trained on. Raises ReviewError where there is no such sample."""
    return await _decide(ws, sample_id, "approve", reviewer, kind)


async def reject(
    ws: Workspace,
    sample_id: int,
    reason: str | None = None,
    *,
    reviewer: str | None = None,
    kind: ReviewerKind = "person",
) -> Decision:
    """The sample must not be trained on. Raises ReviewError where there is no such sample."""
    return await _decide(ws, sample_id, "reject", reviewer, kind, reason=reason)


async def flag(
    ws: Workspace,
    sample_id: int,
    reason: str | None = None,
    *,
    reviewer: str | None = None,
    kind: ReviewerKind = "person",
) -> Decision:
    """Set the sample aside for a second look. Raises ReviewError where there is no such sample."""
    return await _decide(ws, sample_id, "flag", reviewer, kind, reason=reason)


async def skip(
    ws: Workspace, sample_id: int, *, reviewer: str | None = None, kind: ReviewerKind = "person"
) -> Decision:
    """Record that the sample was seen and left as it is. Raises ReviewError where there is no such sample."""
    return await _decide(ws, sample_id, "skip", reviewer, kind)


async def rate(
    ws: Workspace,
    sample_id: int,
    rating: int,
    *,
    reviewer: str | None = None,
    kind: ReviewerKind = "person",
) -> Decision:
    """Give the sample 1 (useless) to 5 (perfect); its state stays. Raises ReviewError."""
    if not 1 <= rating <= 5:
        raise ReviewError(f"a rating of {rating}: expected 1 (useless) to 5 (perfect)")
    return await _decide(ws, sample_id, "rate", reviewer, kind, rating=rating)


async def edit(
    ws: Workspace,
    sample_id: int,
    *,
    instruction: str | None = None,
    input: str | None = None,
    output: str | None = None,
    reviewer: str | None = None,
    kind: ReviewerKind = "person",
) -> Decision:
    """Give the sample a new revision; None leaves a part as it is. The earlier revisions and the state stay.

    Raises ReviewError for an empty instruction or output, where nothing changes, or without such a sample.
    """
    async with ws.db.transaction() as transaction:
        sample = await _sample(transaction, sample_id)
        text = (
            sample.instruction if instruction is None else instruction,
            sample.input if input is None else input,
            sample.output if output is None else output,
        )
        if not text[0].strip() or not text[2].strip():
            raise ReviewError(
                f"sample {sample_id}: instruction and output must not be empty; reject it instead"
            )
        if text == (sample.instruction, sample.input, sample.output):
            raise ReviewError(f"sample {sample_id}: the edit changes nothing")
        newest = await transaction.fetch_value(
            "SELECT max(revision) FROM revisions WHERE sample_id = ?", (sample_id,)
        )
        author = reviewer or ws.settings.review.reviewer
        await samples.insert_revision(transaction, sample_id, newest + 1, *text, author)
        return await _append(
            transaction, sample, "edit", author, kind, revision_after=newest + 1,
            guidelines=await _guidelines(ws, transaction, kind),
        )  # fmt: skip


async def undo(ws: Workspace, n: int = 1, *, reviewer: str | None = None) -> list[Decision]:
    """Take back the reviewer's last `n` decisions that stand, whichever process made them; the rows that say
    so, in the order in which they were taken back. Fewer, or none, where no more are left."""
    name = reviewer or ws.settings.review.reviewer
    undone: list[Decision] = []
    async with ws.db.transaction() as transaction:
        while len(undone) < n:
            last = await decisions.last_undoable(transaction, name)
            if last is None:
                break
            undone.append(await reverse(transaction, "undo", last))
    return undone


async def redo(ws: Workspace, n: int = 1, *, reviewer: str | None = None) -> list[Decision]:
    """Take back the reviewer's last `n` undos. None where a new decision came after the undo."""
    name = reviewer or ws.settings.review.reviewer
    redone: list[Decision] = []
    async with ws.db.transaction() as transaction:
        while len(redone) < n:
            last = await decisions.last_redoable(transaction, name)
            if last is None:
                break
            redone.append(await reverse(transaction, "redo", last))
    return redone


async def rebuilt(ws: Workspace, sample_id: int) -> Standing:
    """What the log alone says the sample is. Raises ReviewError where there is no such sample."""
    sample = await _sample(ws.db, sample_id)
    return standing(await decisions.of_sample(ws.db, sample_id), sample.state, sample.revision)


async def reverse(transaction: Transaction, kind: DecisionKind, target: Decision) -> Decision:
    """Append the row that takes `target` back ("undo" a decision, "redo" an undo), under its reviewer's name."""
    sample = await _sample(transaction, target.sample_id)
    log = await decisions.of_sample(transaction, sample.id)
    row = replace(
        target, id=log[-1].id + 1, kind=kind, undoes=target.id, state_before=sample.state,
        revision_before=sample.revision,
    )  # fmt: skip
    after = standing([*log, row], sample.state, sample.revision)
    return await _append(
        transaction, sample, kind, target.reviewer, target.reviewer_kind,
        state_after=after.state, revision_after=after.revision, undoes=target.id,
    )  # fmt: skip


async def _decide(
    ws: Workspace,
    sample_id: int,
    decision: DecisionKind,
    reviewer: str | None,
    kind: ReviewerKind,
    *,
    reason: str | None = None,
    rating: int | None = None,
) -> Decision:
    async with ws.db.transaction() as transaction:
        sample = await _sample(transaction, sample_id)
        return await _append(
            transaction, sample, decision, reviewer or ws.settings.review.reviewer, kind,
            state_after=STATE_OF.get(decision), reason=reason, rating=rating,
            guidelines=await _guidelines(ws, transaction, kind),
        )  # fmt: skip


async def _append(
    transaction: Transaction,
    sample: Sample,
    decision: DecisionKind,
    reviewer: str,
    kind: ReviewerKind,
    *,
    state_after: samples.SampleState | None = None,
    revision_after: int | None = None,
    reason: str | None = None,
    rating: int | None = None,
    undoes: int | None = None,
    guidelines: str | None = None,
) -> Decision:
    """Append one row to the log and bring every column of the sample to what the whole log says."""
    decision_id = await decisions.append(
        transaction, sample, decision, reviewer=reviewer, reviewer_kind=kind,
        state_after=state_after or sample.state, revision_after=revision_after or sample.revision,
        reason=reason, rating=rating, undoes=undoes, guidelines=guidelines,
    )  # fmt: skip
    log = await decisions.of_sample(transaction, sample.id)
    after = standing(log, sample.state, sample.revision)
    await transaction.execute(
        "UPDATE samples SET rating = ?, decided_at = ? WHERE id = ? AND (rating IS NOT ? OR decided_at IS NOT ?)",
        (after.rating, after.decided_at, sample.id, after.rating, after.decided_at),
    )
    if after.revision != sample.revision:
        await _index_text(transaction, sample.id)
    return next(row for row in log if row.id == decision_id)


async def _guidelines(ws: Workspace, transaction: Transaction, kind: ReviewerKind) -> str | None:
    """The version of the guidelines that a person decides by; a policy reads none."""
    return None if kind == "policy" else await guidelines.keep(transaction, guidelines.current(ws))


async def _sample(queries: Queries, sample_id: int) -> Sample:
    sample = await samples.by_id(queries, sample_id)
    if sample is None:
        raise ReviewError(f"no sample {sample_id}; hafs-tui samples list shows which there are")
    return sample


async def _index_text(transaction: Transaction, sample_id: int) -> None:
    """Let duplicates be found by the sample's text as it is now, not as it was."""
    sample = await _sample(transaction, sample_id)
    text = sample_text(sample.instruction, sample.input, sample.output)
    await transaction.execute("UPDATE samples SET exact_hash = ? WHERE id = ?", (exact_hash(text), sample_id))
    if await samples.signature_of(transaction, sample_id) is not None:
        await remember(transaction, sample_id, fingerprint(text))
