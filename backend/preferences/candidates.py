"""Makes candidates: several answers to each prompt, asked through the ledger, scored and stored.

Exactly once: a candidate's request carries a key of batch, prompt and number, so a batch that was cut goes on
where its rows say, pays nothing twice and stores nothing twice. What failed, or could not be scored, is
missing data: it is never a zero, and the next call tries it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backend.preferences.errors import PreferenceError
from backend.preferences.prompts import PromptItem
from backend.preferences.scorers import Scorer
from backend.providers.base import ChatRequest, Message, Provider, ProviderError
from backend.providers.ledger import Place, Reply, asked
from backend.providers.limits import RetryPolicy, with_retries
from backend.settings import Workspace
from backend.store import leases, pairs

# The same words would be cut, filtered or garbled again.
_RETRIES = RetryPolicy(output=0)
MOST_FAILURES = 100


@dataclass(frozen=True, slots=True)
class Generation:
    """How far a batch is: of `wanted` candidates, `candidates` are stored and `scored` of them have a score.
    `failures` says, for the first hundred, what is missing and why."""

    batch: str
    prompts: int
    wanted: int
    candidates: int
    scored: int
    failures: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        return self.wanted - self.candidates


OnProgress = Callable[[Generation], None]


@dataclass(frozen=True, slots=True)
class _Question:
    item: PromptItem
    number: int
    request: ChatRequest
    key: str


@dataclass(slots=True)
class _Run:
    ws: Workspace
    provider: Provider
    scorer: Scorer
    batch: str
    stored: dict[int, pairs.Candidate]
    candidates: int = 0
    scored: int = 0
    failures: list[str] = field(default_factory=list)
    ended_by: ProviderError | None = None


async def generate(
    ws: Workspace,
    provider: Provider,
    model: str,
    items: Sequence[PromptItem],
    scorer: Scorer,
    *,
    batch: str,
    candidates_per_prompt: int = 4,
    temperatures: Sequence[float] = (0.2, 0.7, 1.0),
    max_tokens: int | None = 512,
    system: str = "",
    stop: tuple[str, ...] = (),
    parallel: int = 4,
    on_progress: OnProgress | None = None,
) -> Generation:
    """Ask `candidates_per_prompt` times for each prompt, at the temperatures in turn, and score each answer.

    An answer that the token limit cut is a candidate like any other. Call it again with the same batch to go
    on. Raises PreferenceError for wrong numbers, ProviderError where the provider or the judge can answer
    nothing at all, LeaseHeldError while another process makes this batch.
    """
    if candidates_per_prompt < 2:
        raise PreferenceError(f"{candidates_per_prompt} candidates a prompt make no pair: ask for 2 or more")
    if not items or not temperatures or not batch.strip():
        raise PreferenceError("candidates need prompts, at least one temperature, and a batch's name")
    wanted = len(items) * candidates_per_prompt
    questions = (
        _question(item, number, provider, model, batch, temperatures, max_tokens, system, stop)
        for item in items
        for number in range(candidates_per_prompt)
    )
    async with leases.hold(ws.db, f"preferences:{batch}"):
        stored = {
            candidate.request_id: candidate
            for candidate in await pairs.candidates(ws.db, batch)
            if candidate.request_id is not None
        }
        run = _Run(ws, provider, scorer, batch, stored)

        def so_far() -> Generation:
            failures = tuple(run.failures[:MOST_FAILURES])
            return Generation(batch, len(items), wanted, run.candidates, run.scored, failures)

        async def work() -> None:
            for question in questions:
                await _make(run, question)
                if on_progress:
                    on_progress(so_far())
                if run.ended_by:
                    return

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(max(1, parallel)):
                    group.create_task(work())
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
        if run.ended_by:
            raise run.ended_by
        return so_far()


def _question(
    item: PromptItem,
    number: int,
    provider: Provider,
    model: str,
    batch: str,
    temperatures: Sequence[float],
    max_tokens: int | None,
    system: str,
    stop: tuple[str, ...],
) -> _Question:
    messages = (Message("user", item.prompt),)
    request = ChatRequest(
        model,
        (Message("system", system), *messages) if system else messages,
        temperature=temperatures[number % len(temperatures)],
        max_tokens=max_tokens,
        seed=number,
        stop=stop,
    )
    return _Question(item, number, request, f"candidate:{batch}:{number}:{request.key(provider.name)}")


async def _make(run: _Run, question: _Question) -> None:
    """One candidate, from the question to its row."""
    try:
        reply = await _ask(run, question)
        await _score(run, question, reply)
    except ProviderError as error:
        run.failures.append(f"candidate {question.number + 1} of {_short(question.item.prompt)!r}: {error}")
        if error.stops_provider:
            run.ended_by = error


async def _ask(run: _Run, question: _Question) -> Reply:
    async def attempt() -> Reply:
        return await asked(
            run.ws, run.provider, question.request, Place("candidate", domain=question.item.domain),
            content_key=question.key, accept_cut=True,
        )  # fmt: skip

    return await with_retries(attempt, _RETRIES)


async def _score(run: _Run, question: _Question, reply: Reply) -> None:
    before = run.stored.get(reply.request_id)
    if before is not None and before.scorer == run.scorer.name and before.score is not None:
        run.candidates += 1
        run.scored += 1
        return
    text = reply.answer.text.strip()
    score = await run.scorer.score(question.item, text)
    detail = (
        f"{score.detail}; cut at the token limit" if reply.answer.finish_reason == "length" else score.detail
    )
    async with run.ws.db.transaction() as transaction:
        if before is None:
            await pairs.insert_candidate(
                transaction,
                batch=run.batch,
                prompt_key=question.item.key,
                prompt=question.item.prompt,
                request_id=reply.request_id,
                model=question.request.model,
                temperature=question.request.temperature,
                output=text,
                scorer=run.scorer.name,
                score=score.value,
                detail=detail,
            )
        else:
            await transaction.execute(
                "UPDATE candidates SET scorer = ?, score = ?, detail = ? WHERE id = ?",
                (run.scorer.name, score.value, detail, before.id),
            )
    run.candidates += 1
    run.scored += score.value is not None
    if score.value is None and run.scorer.name != "human":
        run.failures.append(
            f"candidate {question.number + 1} of {_short(question.item.prompt)!r}: {score.detail}"
        )


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
