"""Pairs: shown blind, decided once, undone without trace, exported as TRL reads them."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.contract.rows import preference_messages
from backend.preferences import PreferenceError
from backend.preferences.exporting import export
from backend.preferences.importing import import_pairs
from backend.preferences.reviewing import (
    PairView,
    accept_by_policy,
    choose,
    counts,
    every,
    next_pair,
    undo,
    view,
)
from backend.settings import Workspace, open_workspace
from backend.store import pairs


async def put_pairs(ws: Workspace, count: int, batch: str = "b", scorer: str = "llm", start: int = 0) -> None:
    async with ws.db.transaction() as transaction:
        for n in range(start, start + count):
            await pairs.insert(
                transaction, uid=f"{batch}{n}", batch=batch, prompt=f"Prompt {n}?", chosen=f"good {n}",
                rejected=f"poor {n}", margin=None if scorer == "human" else 0.5, scorer=scorer, source="m",
            )  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def side_of(shown: PairView, text: str) -> Literal["left", "right"]:
    return "left" if shown.left == text else "right"


async def test_sides_are_drawn_fairly_and_stay_whatever_is_decided(ws: Workspace) -> None:
    await put_pairs(ws, 200)
    shown = [await view(ws, i, seed=9) for i in await pairs.ids(ws.db)]
    sides = Counter(one.left_is for one in shown)
    assert min(sides.values()) > 70, sides
    assert [one.left for one in shown] != [(await view(ws, one.pair.id, seed=1)).left for one in shown]
    first = shown[0]
    after = await choose(ws, first.pair.id, side_of(first, "poor 0"), seed=9)
    assert (after.pair.chosen, after.pair.state) == ("poor 0", "decided")
    assert (after.left, after.right) == (first.left, first.right)
    row = await ws.db.fetch_one("SELECT * FROM pair_decisions")
    assert row is not None
    assert (row["left_is"], row["swapped"]) == (first.left_is, 1)


async def test_choices_move_on_to_the_next_undecided_pair(ws: Workspace) -> None:
    await put_pairs(ws, 3)
    await put_pairs(ws, 1, batch="other")
    choices: list[Literal["left", "tie", "bad"]] = ["left", "tie", "bad"]
    for choice in choices:
        shown = await next_pair(ws, batch="b")
        assert shown is not None
        await choose(ws, shown.pair.id, choice)
    assert await next_pair(ws, batch="b") is None
    assert await counts(ws) == {"pending": 1, "decided": 1, "tie": 1, "bad": 1}
    assert [pair.state for pair in await every(ws, batch="b")] == ["decided", "tie", "bad"]
    with pytest.raises(PreferenceError, match="no pair 99"):
        await choose(ws, 99, "left")


async def test_undo_takes_back_ones_own_and_leaves_the_newer_word_of_another(ws: Workspace) -> None:
    await put_pairs(ws, 1)
    shown = await view(ws, 1)
    await choose(ws, 1, side_of(shown, "poor 0"), reviewer="ann")
    await choose(ws, 1, side_of(shown, "good 0"), reviewer="bob")
    undone = await undo(ws, reviewer="ann")
    assert undone is not None
    assert (undone.pair.chosen, undone.pair.state) == ("good 0", "decided")
    undone = await undo(ws, reviewer="bob")
    assert undone is not None
    assert (undone.pair.chosen, undone.pair.state) == ("good 0", "pending")
    assert await undo(ws, reviewer="ann") is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["left", "right", "tie", "bad", "undo", "undo"]), st.integers(1, 2)),
    max_size=20,
)


@settings(deadline=None, max_examples=30)
@given(STEPS)
def test_any_sequence_ends_where_a_stack_of_snapshots_ends(steps: list[tuple[Any, int]]) -> None:
    asyncio.run(_play(steps))


async def _play(steps: list[tuple[Any, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_workspace(Path(folder)) as ws:
            await put_pairs(ws, 2)
            world = {n: ("pending", f"good {n - 1}") for n in (1, 2)}
            past: list[tuple[int, tuple[str, str]]] = []
            for choice, pair_id in steps:
                if choice == "undo":
                    undone = await undo(ws)
                    assert (undone is None) == (not past)
                    if past:
                        changed, snapshot = past.pop()
                        world[changed] = snapshot
                else:
                    past.append((pair_id, world[pair_id]))
                    shown = await choose(ws, pair_id, choice)
                    picked = {"left": shown.left, "right": shown.right}.get(choice, world[pair_id][1])
                    world[pair_id] = ("decided" if choice in ("left", "right") else choice, picked)
            for pair in await every(ws):
                assert (pair.state, pair.chosen) == world[pair.id]
                assert {pair.chosen, pair.rejected} == {f"good {pair.id - 1}", f"poor {pair.id - 1}"}


async def test_a_policy_takes_the_scorers_word_and_only_that(ws: Workspace) -> None:
    await put_pairs(ws, 3)
    await put_pairs(ws, 2, batch="people", scorer="human")
    await choose(ws, 1, "tie")
    assert await accept_by_policy(ws, "b", "demo") == 2
    assert await accept_by_policy(ws, "people", "demo") == 0
    rows = await ws.db.fetch_all("SELECT reviewer, reviewer_kind FROM pair_decisions WHERE pair_id > 1")
    assert {tuple(row) for row in rows} == {("demo", "policy")}
    assert [pair.chosen for pair in await every(ws, state="decided")] == ["good 1", "good 2"]


@pytest.mark.parametrize("conversational", [False, True])
async def test_the_export_is_what_the_trainer_reads(
    ws: Workspace, tmp_path: Path, conversational: bool
) -> None:
    await put_pairs(ws, 4)
    await put_pairs(ws, 2, batch="people", scorer="human")
    file = tmp_path / "pairs.jsonl"
    with pytest.raises(PreferenceError, match="6 wait for a decision"):
        await export(ws, file)
    assert not file.exists()
    with pytest.raises(PreferenceError, match="left to people"):
        await export(ws, file, batch="people", pending=True)
    shown = await view(ws, 2)
    await choose(ws, 2, side_of(shown, "poor 1"))
    await choose(ws, 3, "bad")
    assert await export(ws, file, conversational=conversational) == 1
    (row,) = read(file)
    assert row.keys() == {"prompt", "chosen", "rejected", "source"}
    prompt, chosen, rejected = preference_messages(row)
    texts = [part[0]["content"] for part in (prompt, chosen, rejected)]
    assert texts == ["Prompt 1?", "poor 1", "good 1"]
    assert await export(ws, file, conversational=conversational, pending=True) == 3


async def test_a_conversational_export_can_be_imported(ws: Workspace, tmp_path: Path) -> None:
    await put_pairs(ws, 3)
    await export(ws, tmp_path / "out.jsonl", conversational=True, pending=True)
    async with open_workspace(tmp_path / "other") as other:
        assert (await import_pairs(other, tmp_path / "out.jsonl")).pairs == 3
        await export(other, tmp_path / "again.jsonl", conversational=True, pending=True)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


async def test_pairs_of_the_origin_come_in_once_and_go_out_the_same(ws: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "preferences.jsonl"
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "c", "rejected": "b", "source": "judge"},
        {"prompt": "p", "chosen": "b", "rejected": "a"},
        {"instruction": "a lesson", "output": "x"},
        {"prompt": "p", "chosen": "a", "rejected": " "},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = await import_pairs(ws, file)
    assert (report.read, report.inserted, report.pairs, report.known, report.bad) == (5, 2, 2, 1, 2)
    assert [problem.line for problem in report.problems] == [4, 5]
    assert "samples import" in report.problems[0].reason
    assert (await import_pairs(ws, file)).inserted == 0
    assert {pair.batch for pair in await every(ws)} == {"preferences"}
    assert await export(ws, tmp_path / "out.jsonl", pending=True) == 2
    assert read(tmp_path / "out.jsonl") == [{**rows[0], "source": "preferences.jsonl"}, rows[1]]
