"""Answers of a model behind a server: asked through the ledger, so that none is asked, or paid for, twice."""

from __future__ import annotations

import asyncio

from backend.deployment.answering import Answering, open_answering
from backend.evaluation.benchmarks import BenchmarkItem
from backend.evaluation.recording import EvaluationFailed, Given, Recorder, Wanted, keys_of
from backend.providers import ProviderError, ask
from backend.providers.ledger import Place, asked
from backend.settings import Workspace
from backend.store import requests

ATTEMPTS = 4
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
# Failures that are the model's answer to this item. Any other is ours, and never a zero.
_ANSWERS = ("refused", "empty", "truncated")


async def ask_items(ws: Workspace, recorder: Recorder, wanted: Wanted) -> None:
    """Ask every missing item, several at once, and record each outcome as it comes.

    Raises EvaluationFailed where some could not be asked (the others are stored), ModelReferenceError.
    """
    if not recorder.missing:
        return
    await _mark_unanswered(ws, recorder.evaluation_id)
    async with open_answering(ws, wanted.model.reference) as answering:
        queue: asyncio.Queue[tuple[str, BenchmarkItem]] = asyncio.Queue()
        for entry in recorder.missing:
            queue.put_nowait(entry)
        failures: list[ProviderError] = []

        async def work() -> None:
            while not queue.empty() and not any(error.stops_provider for error in failures):
                benchmark, item = queue.get_nowait()
                try:
                    given = await _ask(ws, answering, recorder.evaluation_id, benchmark, item, wanted)
                except ProviderError as error:
                    failures.append(error)
                else:
                    await recorder.record([given])

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(answering.parallel, queue.qsize())):
                    group.create_task(work())
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
    if failures:
        raise EvaluationFailed(
            f"{len(recorder.missing)} items of {wanted.model.reference} are not answered: {failures[0]}\n"
            "What was answered is kept; run the same evaluation again to go on."
        )


async def _mark_unanswered(ws: Workspace, evaluation_id: int) -> None:
    """What an earlier process of this evaluation had in flight when it was killed may have been charged."""
    async with ws.db.transaction() as transaction:
        for row in await transaction.fetch_all(
            "SELECT id FROM requests WHERE state = 'sent' AND content_key >= ? AND content_key < ?",
            keys_of(evaluation_id),
        ):
            await requests.mark_unanswered(
                transaction, row["id"], "in flight when its process ended; it may have been charged"
            )


async def _ask(
    ws: Workspace,
    answering: Answering,
    evaluation_id: int,
    benchmark: str,
    item: BenchmarkItem,
    wanted: Wanted,
) -> Given:
    """One item's answer; a refusal is an answer too, and an item that the server will not take is not run.
    Raises ProviderError when all attempts failed."""
    request = ask(answering.model, item.prompt, temperature=0.0, max_tokens=wanted.max_new_tokens)
    # Of this evaluation alone: a model of the same name may be another one next time.
    key = f"{keys_of(evaluation_id)[0]}{benchmark}:{item.id}:{request.key(answering.provider.name)}"
    pause = _FIRST_PAUSE_S
    for left in reversed(range(ATTEMPTS)):
        try:
            reply = await asked(
                ws, answering.provider, request, Place("evaluate"), content_key=key, accept_cut=True
            )
        except ProviderError as error:
            if error.kind in _ANSWERS:
                return Given(benchmark, item.id, "", error.message)
            if error.kind == "bad_request":
                return Given(benchmark, item.id, "", f"could not be asked: {error.message}", not_run=True)
            if not error.retryable or not left:
                raise
            await asyncio.sleep(min(_LONGEST_PAUSE_S, error.retry_after_s or pause))
            pause *= 2
            continue
        cut = reply.answer.finish_reason == "length"
        return Given(benchmark, item.id, reply.answer.text, "cut at the token limit" if cut else "")
    raise AssertionError("the last attempt returns or raises")
