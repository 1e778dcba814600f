"""The ledger: what was paid for is kept, and read once, however its process ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backend.providers import ChatRequest, ProviderConfig, RawReply, ask, open_provider
from backend.providers.ledger import Place, asked
from backend.providers.pricing import PriceError
from backend.settings import Workspace, open_workspace
from backend.store import leases, requests
from backend.store.requests import Purpose
from tests.servers.openai_server import OpenAIServer

QUESTION = ask("m", "Say hello")
JUDGE = Place("judge")


async def test_an_answer_that_has_come_is_stored_although_its_task_is_cancelled(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with OpenAIServer(reply=lambda _: "hello") as server:
        provider = open_provider(ProviderConfig("openai", server.base_url))
        came, locked = asyncio.Event(), asyncio.Event()
        send = provider.send

        async def send_and_wait(request: ChatRequest) -> RawReply:
            raw = await send(request)
            came.set()
            await locked.wait()
            return raw

        monkeypatch.setattr(provider, "send", send_and_wait)
        task = asyncio.create_task(asked(ws, provider, QUESTION, JUDGE))
        async with asyncio.timeout(20):
            await came.wait()
            async with ws.db.transaction():  # another writer is at work while the answer comes
                locked.set()
                for _ in range(5):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.gather(task, return_exceptions=True)
        row = await requests.by_id(ws.db, 1)
        assert task.cancelled()
        assert row is not None
        assert (row.state, row.prompt_tokens) == ("answered", None)
        reply = await asked(ws, provider, QUESTION, JUDGE)
        assert (reply.answer.text, reply.reused, len(server.paid)) == ("hello", True, 1)
        row = await requests.by_id(ws.db, 1)
        assert row is not None
        assert row.prompt_tokens == 2, "what the first process had no time to read is counted now"
        await provider.aclose()


async def test_a_stored_answer_that_is_no_good_is_asked_for_again(ws: Workspace) -> None:
    async with OpenAIServer(reply=lambda _: "hello") as server:
        provider = open_provider(ProviderConfig("openai", server.base_url))
        async with ws.db.transaction() as transaction:
            number = await requests.insert_sent(
                transaction, purpose="judge", content_key=QUESTION.key("openai"), provider="openai", model="m",
                prompt="",
            )  # fmt: skip
            await requests.record_answer(transaction, number, b"<html>")
        with pytest.raises(Exception, match="web page"):
            await asked(ws, provider, QUESTION, JUDGE)
        assert (await asked(ws, provider, QUESTION, JUDGE)).answer.text == "hello"
        await provider.aclose()


async def test_a_broken_price_file_is_told_before_anything_is_paid(ws: Workspace) -> None:
    file = Path(ws.home) / "config" / "prices.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("[[price]]\nprovider = 1\n")
    async with OpenAIServer(reply=lambda _: "hello") as server:
        provider = open_provider(ProviderConfig("openai", server.base_url))
        with pytest.raises(PriceError, match="provider"):
            await asked(ws, provider, QUESTION, JUDGE)
        assert not server.journal
        await provider.aclose()


async def test_what_a_dead_process_left_in_flight_is_settled_when_the_workspace_is_opened(
    ws: Workspace,
) -> None:
    async with ws.db.transaction() as transaction:
        purposes: tuple[Purpose, ...] = ("judge", "candidate", "chat")
        for number, purpose in enumerate(purposes):
            await requests.insert_sent(
                transaction,
                purpose=purpose,
                content_key=f"k{number}",
                provider="openai",
                model="m",
                prompt="",
            )
        dead = leases.this_process().rsplit(":", 1)[0] + ":1.00"
        await transaction.execute("UPDATE requests SET owner = ? WHERE id < 3", (dead,))
    async with open_workspace(ws.home) as again:
        rows = [await requests.by_id(again.db, number) for number in (1, 2, 3)]
    assert [row.state for row in rows if row] == ["unanswered", "unanswered", "sent"]
    assert "may have been charged" in str(rows[0] and rows[0].error_message)
