"""Decisions: what a sample is always follows from its log, whatever was decided, undone and redone."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.review import ReviewError, deciding
from backend.review.card import card
from backend.settings import Workspace, open_workspace
from backend.similarity.exact import exact_hash, sample_text
from backend.similarity.minhash import bands, signature
from backend.store import decisions, samples
from backend.store.samples import Filter, Sample
from tests.fixtures.made_samples import put_sample, put_samples


async def sample_of(ws: Workspace, sample_id: int) -> Sample:
    found = await samples.by_id(ws.db, sample_id)
    assert found is not None
    return found


async def test_each_decision_moves_the_sample_and_is_logged_under_the_reviewer(ws: Workspace) -> None:
    a, b, c, d = await put_samples(ws, 4)
    await deciding.approve(ws, a)
    await deciding.reject(ws, b, "does not assemble")
    await deciding.flag(ws, c, reviewer="mia")
    await deciding.skip(ws, d)
    await deciding.rate(ws, d, 4, reviewer="nightly", kind="policy")
    states = [(await sample_of(ws, one)).state for one in (a, b, c, d)]
    assert states == ["approved", "rejected", "flagged", "pending"]
    assert (await decisions.of_sample(ws.db, b))[0].reason == "does not assemble"
    assert (await decisions.of_sample(ws.db, a))[0].reviewer == ws.settings.review.reviewer
    assert (await decisions.of_sample(ws.db, c))[0].reviewer == "mia"
    rated = await sample_of(ws, d)
    assert (rated.rating, rated.decided_at) == (4, None), "a skip and a rating decide nothing"
    assert (await decisions.of_sample(ws.db, d))[1].reviewer_kind == "policy"


async def test_a_gated_sample_may_be_overruled_and_goes_back_to_gated(ws: Workspace) -> None:
    sample_id = await put_sample(ws, "g", state="gated")
    decision = await deciding.approve(ws, sample_id)
    assert (decision.state_before, decision.state_after) == ("gated", "approved")
    await deciding.undo(ws)
    again = await sample_of(ws, sample_id)
    assert (again.state, again.decided_at) == ("gated", None)


async def test_an_edit_is_a_new_revision_and_undoing_it_brings_the_old_text_back(ws: Workspace) -> None:
    sample_id = await put_sample(ws, "e", output="LDA #$01 zebra", instruction="Load one.")
    old = sample_text("Load one.", "", "LDA #$01 zebra")
    async with ws.db.transaction() as transaction:
        await samples.insert_signature(transaction, sample_id, signature(old), bands(signature(old)))
    await deciding.edit(ws, sample_id, output="LDA #$02 giraffe")
    now = await sample_of(ws, sample_id)
    assert (now.output, now.revision, now.state) == ("LDA #$02 giraffe", 2, "pending")
    new = sample_text(now.instruction, now.input, now.output)
    assert now.exact_hash == exact_hash(new)
    assert await samples.sharing_bands(ws.db, bands(signature(new))) == [(sample_id, signature(new))]
    assert await samples.ids(ws.db, Filter(text="giraffe")) == [sample_id]
    assert await samples.ids(ws.db, Filter(text="zebra")) == []

    await deciding.undo(ws)
    back = await sample_of(ws, sample_id)
    assert (back.output, back.revision, back.exact_hash) == ("LDA #$01 zebra", 1, exact_hash(old))
    assert await samples.ids(ws.db, Filter(text="zebra")) == [sample_id]
    assert [r.output for r in (await card(ws, sample_id)).revisions] == ["LDA #$01 zebra", "LDA #$02 giraffe"]

    await deciding.edit(ws, sample_id, instruction="Load three.")
    assert (await sample_of(ws, sample_id)).revision == 3, "an undone revision's number is never used again"


@pytest.mark.parametrize("change", [{"output": " "}, {"instruction": ""}, {"output": "LDA #$01"}])
async def test_an_edit_to_nothing_is_refused_and_leaves_no_trace(
    ws: Workspace, change: dict[str, str]
) -> None:
    sample_id = await put_sample(ws, "e")
    with pytest.raises(ReviewError, match=f"sample {sample_id}"):
        await deciding.edit(ws, sample_id, **change)  # type: ignore[arg-type]
    seen = await card(ws, sample_id)
    assert (len(seen.revisions), seen.decisions) == (1, [])


async def test_an_unknown_sample_and_a_wrong_rating_say_what_is_wrong(ws: Workspace) -> None:
    with pytest.raises(ReviewError, match="no sample 99"):
        await deciding.approve(ws, 99)
    with pytest.raises(ReviewError, match=r"1 .* to 5"):
        await deciding.rate(ws, 99, 6)


async def test_undo_and_redo_go_over_restarts_and_a_new_decision_ends_redo(tmp_path: Path) -> None:
    async with open_workspace(tmp_path) as ws:
        ids = await put_samples(ws, 3)
        for sample_id in ids:
            await deciding.approve(ws, sample_id)
    async with open_workspace(tmp_path) as ws:
        assert [d.sample_id for d in await deciding.undo(ws, 2)] == ids[:0:-1]
    async with open_workspace(tmp_path) as ws:
        assert [d.sample_id for d in await deciding.redo(ws, 5)] == ids[1:]
        await deciding.undo(ws, 2)
        await deciding.reject(ws, ids[1])
        assert await deciding.redo(ws) == []
        assert len(await deciding.undo(ws, 100)) == 2, "the rejection and the first approval were left"
        assert [(await sample_of(ws, i)).state for i in ids] == ["pending"] * 3


async def test_undo_takes_back_ones_own_and_leaves_the_newer_word_of_another(ws: Workspace) -> None:
    (sample_id,) = await put_samples(ws, 1)
    await deciding.approve(ws, sample_id, reviewer="ann")
    await deciding.reject(ws, sample_id, reviewer="bob")
    await deciding.undo(ws, reviewer="ann")
    assert (await sample_of(ws, sample_id)).state == "rejected"
    await deciding.undo(ws, reviewer="bob")
    assert (await sample_of(ws, sample_id)).state == "pending", "ann's word was taken back before"
    await deciding.redo(ws, reviewer="ann")
    assert (await sample_of(ws, sample_id)).state == "approved"


async def test_undo_after_gates_moved_the_sample_returns_to_where_they_put_it(ws: Workspace) -> None:
    sample_id = await put_sample(ws, "m", state="gated")
    await deciding.approve(ws, sample_id)
    await deciding.undo(ws)
    async with ws.db.transaction() as transaction:
        await transaction.execute("UPDATE samples SET state = 'pending' WHERE id = ?", (sample_id,))
    await deciding.approve(ws, sample_id)
    await deciding.undo(ws)
    assert (await sample_of(ws, sample_id)).state == "pending"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["approve", "reject", "flag", "skip", "rate", "edit", "undo", "undo", "redo", "restart"]
        ),
        st.integers(0, 1),
        st.integers(1, 5),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=40)
@given(STEPS)
def test_any_sequence_ends_where_a_stack_of_snapshots_ends(steps: list[tuple[str, int, int]]) -> None:
    """One reviewer: undo and redo are those of any editor. The oracle knows nothing of logs."""
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        async with open_workspace(home) as ws:
            ids = await put_samples(ws, 2)
            world = {i: ("pending", None, (await sample_of(ws, i)).output) for i in ids}
        past: list[tuple[int, tuple[str, int | None, str]]] = []
        future: list[tuple[int, tuple[str, int | None, str]]] = []
        position = 0
        while position < len(steps):
            async with open_workspace(home) as ws:
                for number, (kind, which, rating) in enumerate(steps[position:], position):
                    position = number + 1
                    if kind == "restart":
                        break
                    await _step(ws, kind, ids[which], rating, number, world, past, future)
                for i in ids:
                    now = await sample_of(ws, i)
                    assert (now.state, now.rating, now.output) == world[i]
                    rebuilt = await deciding.rebuilt(ws, i)
                    assert (rebuilt.state, rebuilt.rating, rebuilt.revision, rebuilt.decided_at) == (
                        now.state, now.rating, now.revision, now.decided_at,
                    )  # fmt: skip


async def _step(
    ws: Workspace,
    kind: str,
    sample_id: int,
    rating: int,
    number: int,
    world: dict[int, tuple[str, int | None, str]],
    past: list[tuple[int, tuple[str, int | None, str]]],
    future: list[tuple[int, tuple[str, int | None, str]]],
) -> None:
    if kind in ("undo", "redo"):
        source, target = (past, future) if kind == "undo" else (future, past)
        done = await (deciding.undo(ws) if kind == "undo" else deciding.redo(ws))
        assert len(done) == bool(source)
        if source:
            changed, snapshot = source.pop()
            target.append((changed, world[changed]))
            world[changed] = snapshot
        return
    state, rated, output = world[sample_id]
    past.append((sample_id, world[sample_id]))
    future.clear()
    if kind == "edit":
        output = f"revision by step {number}"
        await deciding.edit(ws, sample_id, output=output)
    elif kind == "rate":
        rated = rating
        await deciding.rate(ws, sample_id, rating)
    else:
        await getattr(deciding, kind)(ws, sample_id)
        state = {"approve": "approved", "reject": "rejected", "flag": "flagged"}.get(kind, state)
    world[sample_id] = (state, rated, output)
