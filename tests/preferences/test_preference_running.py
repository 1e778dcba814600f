"""The whole stage in one call, by references as a form and the command line give them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.datasets.building import build
from backend.preferences import PreferenceError
from backend.preferences.exporting import export
from backend.preferences.running import generate_pairs
from backend.review.bulk import approve_by_policy
from backend.settings import open_workspace
from backend.store import pairs
from backend.store.samples import Filter
from tests.fixtures.made_samples import put_sample
from tests.servers.openai_server import OpenAIServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    asked: dict[str, int] = {}

    def reply(prompt: str) -> str:
        if "ANSWER TO GRADE" in prompt:
            return json.dumps(
                {"reason": "", "score": 9 if "right" in prompt.split("ANSWER TO GRADE")[1] else 3}
            )
        asked[prompt] = asked.get(prompt, 0) + 1
        return "the right answer" if asked[prompt] == 1 else f"wrong answer {asked[prompt]}"

    return OpenAIServer(reply=reply)


@pytest.mark.parametrize(("scorer", "pairs_per_prompt"), [("llm", 1), ("reference", 1), ("human", 2)])
async def test_each_scorer_from_prompts_to_pairs(
    tmp_path: Path, server: OpenAIServer, scorer: str, pairs_per_prompt: int
) -> None:
    home = tmp_path / "home"
    (home / "config").mkdir(parents=True)
    async with server:
        (home / "config" / "settings.toml").write_text(
            f'[providers.openai]\nbase_url = "{server.base_url}"\n'
        )
        async with open_workspace(home) as ws:
            for n in range(20):
                await put_sample(ws, f"s{n}", output="the right answer", domain="words")
            await approve_by_policy(ws, Filter(), "test")
            await build(ws, "pilot")
            seen: list[tuple[int, int]] = []
            call = {
                "model": "api:openai/m", "dataset": "pilot", "num_samples": 6, "scorer": scorer,
                "judge": "api:openai/judge",
            }  # fmt: skip
            made = await generate_pairs(ws, **call, on_progress=lambda *done: seen.append(done))  # type: ignore[arg-type]
            assert (made.generation.prompts, made.generation.candidates) == (6, 24)
            assert seen[-1] == (24, 24)
            assert made.pairing.pairs == 6 * pairs_per_prompt
            if scorer != "human":
                assert {pair.chosen for pair in await pairs.every(ws.db)} == {"the right answer"}
                assert await export(ws, tmp_path / "pairs.jsonl", batch=made.pairing.batch, pending=True) == 6
            paid = len(server.paid)
            again = await generate_pairs(ws, **call)  # type: ignore[arg-type]
            assert (again.pairing.pairs, again.pairing.known, len(server.paid)) == (
                0,
                made.pairing.pairs,
                paid,
            )
            anew = await generate_pairs(ws, **{**call, "dataset": None, "batch": "anew"})  # type: ignore[arg-type]
            assert anew.generation.candidates == 24
            assert len(server.paid) > paid


async def test_the_judge_must_be_named(tmp_path: Path) -> None:
    async with open_workspace(tmp_path) as ws:
        with pytest.raises(PreferenceError, match="--judge"):
            await generate_pairs(ws, model="api:openai/m", num_samples=1, scorer="llm")
