"""Talks to a model: each exchange is stored, and can be rated."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Literal

from backend.deployment.answering import Answering, open_answering
from backend.providers import ChatRequest, Message, ProviderError
from backend.registry.references import resolve
from backend.settings import Workspace
from backend.store import deployments, requests


class Chat:
    """A conversation with one model, for as long as `open_chat` holds it. `history` has its turns so far;
    `exchange_id` is the last exchange's row, to be rated."""

    def __init__(
        self,
        ws: Workspace,
        answering: Answering,
        deployment_id: int | None,
        system: str,
        max_tokens: int,
        temperature: float | None,
    ) -> None:
        self.history: list[Message] = [Message("system", system)] if system else []
        self.exchange_id: int | None = None
        self._ws = ws
        self._answering = answering
        self._deployment_id = deployment_id
        self._max_tokens = max_tokens
        self._temperature = temperature

    async def say(self, message: str) -> AsyncGenerator[str, None]:
        """The reply to a message, piece by piece. A reply that was left early is neither stored nor remembered.

        Raises ProviderError; the request's row then says why.
        """
        turn = Message("user", message)
        request = ChatRequest(
            self._answering.model,
            (*self.history, turn),
            temperature=self._temperature,
            max_tokens=self._max_tokens,
        )
        request_id = await self._sent(request)
        pieces: list[str] = []
        try:
            async with aclosing(self._answering.provider.stream(request)) as stream:
                async for piece in stream:
                    pieces.append(piece)
                    yield piece
        except ProviderError as error:
            async with self._ws.db.transaction() as transaction:
                await requests.record_failure(transaction, request_id, error.kind, error.message)
            raise
        except BaseException:
            async with self._ws.db.transaction() as transaction:
                await requests.mark_unanswered(transaction, request_id, "left before its end")
            raise
        await self._stored(request_id, turn, "".join(pieces))

    async def _sent(self, request: ChatRequest) -> int:
        async with self._ws.db.transaction() as transaction:
            return await requests.insert_sent(
                transaction,
                purpose="chat",
                content_key=f"chat:{uuid.uuid4().hex}",
                provider=self._answering.provider.name,
                model=request.model,
                prompt=request.canonical(),
                campaign_id=None,
                domain=None,
                ordinal=None,
                routing=None,
            )

    async def _stored(self, request_id: int, turn: Message, reply: str) -> None:
        async with self._ws.db.transaction() as transaction:
            await requests.record_answer(transaction, request_id, reply.encode())
            await requests.mark_judged(transaction, request_id)
            self.exchange_id = await deployments.insert_exchange(
                transaction, self._deployment_id, turn.content, reply, request_id
            )
        self.history += [turn, Message("assistant", reply)]


@asynccontextmanager
async def open_chat(
    ws: Workspace, model: str, *, system: str = "", max_tokens: int = 512, temperature: float | None = None
) -> AsyncIterator[Chat]:
    """A conversation with a deployment (by its name) or with anything that answers (by its reference).

    A GGUF that nobody serves is served for the block. Raises ModelReferenceError, ProviderError, HostError.
    """
    row = await deployments.current(ws.db, model.removeprefix("deployment:"))
    reference = f"deployment:{row.name}" if row is not None else (await resolve(ws, model)).reference
    async with open_answering(ws, reference) as answering:
        yield Chat(ws, answering, row.id if row else None, system, max_tokens, temperature)


@asynccontextmanager
async def chat(
    ws: Workspace, model: str, message: str, *, system: str = "", max_tokens: int = 512
) -> AsyncIterator[AsyncGenerator[str, None]]:
    """One message and its reply, piece by piece. For several, `open_chat` keeps server and history."""
    async with (
        open_chat(ws, model, system=system, max_tokens=max_tokens) as conversation,
        aclosing(conversation.say(message)) as reply,
    ):
        yield reply


async def rate(ws: Workspace, exchange_id: int, rating: Literal[-1, 1]) -> None:
    """Say whether a reply was good (1) or bad (-1); the last word counts."""
    async with ws.db.transaction() as transaction:
        await deployments.rate_exchange(transaction, exchange_id, rating)
