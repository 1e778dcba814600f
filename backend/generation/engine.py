"""Runs a campaign: asks, judges and stores until every domain has its target.

Exactly once: a question is a row before it is sent, its raw answer is a row before it is judged, and
sample, gates and counters are one transaction. A run that starts after a crash first settles what the last
one left: answers that were stored are judged without asking again, questions that were in flight are
listed as possibly charged and asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from backend.execution.pool import Execution, open_execution
from backend.execution.tools import find_tools
from backend.generation.domains import Domain, load_domains
from backend.generation.journal import Journal, open_journal
from backend.generation.judging import judge
from backend.generation.plan import Question, ordinals, question
from backend.generation.routes import Readings, Route, Routes, open_routes
from backend.providers import Provider, ProviderError
from backend.providers.ledger import Place, Reading, Stored, read, record, sent, stored_of
from backend.providers.limits import RetryPolicy, with_retries
from backend.quality.duplicates import index_missing
from backend.settings import SettingsError, Workspace
from backend.similarity import minhash
from backend.store import StoreError, campaigns, leases, requests
from backend.store.campaigns import Campaign, CampaignState
from backend.store.requests import Spent

# After so many questions in a row that got no answer at all, the provider is taken to be down.
MOST_FAILURES_IN_A_ROW = 5
# How often the wishes of other processes are looked for.
LOOK_S = 0.2
# How often what others accepted (imports, reviewers) is entered into the index of near duplicates.
INDEX_S = 5.0
# While an answer is stored and judged, the next question of its slot is in flight already.
WORKERS_FOR_EACH_SLOT = 2
# The same words would be cut, filtered or garbled again: the next seed is asked instead.
_RETRIES = RetryPolicy(output=0)


class CampaignError(Exception):
    """A campaign cannot be made or run; the message says why and what to do."""


class _RunEnds(Exception):
    """A question is left for the next run."""


@dataclass(slots=True)
class _Share:
    """One domain's part of a run: what is still wanted and what to ask next."""

    domain: Domain
    target: int
    accepted: int
    next_ordinal: int
    again: deque[int] = field(default_factory=deque)
    in_flight: int = 0

    @property
    def wants(self) -> bool:
        """Whether one more question may be sent without overshooting the target."""
        return self.accepted + self.in_flight < self.target and not self.exhausted

    @property
    def exhausted(self) -> bool:
        return not self.again and self.next_ordinal >= ordinals(self.domain)

    @property
    def finished(self) -> bool:
        return self.accepted >= self.target or (self.exhausted and self.in_flight == 0)

    def take(self) -> int:
        self.in_flight += 1
        if self.again:
            return self.again.popleft()
        self.next_ordinal += 1
        return self.next_ordinal - 1


@dataclass(slots=True)
class _Run:
    """What the workers of one run share."""

    ws: Workspace
    campaign: Campaign
    routes: Routes
    shares: dict[str, _Share]
    journal: Journal
    execution: Execution
    requests: int
    cost_usd: float
    slots: asyncio.Semaphore = field(init=False)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    end: CampaignState | None = None
    reason: str | None = None
    failures_in_a_row: int = 0
    look_again_at: float = 0.0
    budget_usd: float | None = None
    budget_requests: int | None = None

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.campaign.parallel)

    def stop(self, state: CampaignState, reason: str | None) -> None:
        if self.end is None:
            self.end, self.reason = state, reason


async def run_campaign(
    ws: Workspace, name: str, *, provider: Provider | None = None, readings: Readings | None = None
) -> Campaign:
    """Run the campaign until it is done, paused, cancelled, out of budget or failed; its row afterwards.

    `provider` takes the place of the one that the campaign's settings open, `readings` of what the GPU of a
    hybrid campaign's host says. Cancelling the call leaves the campaign paused, with what was in flight
    listed as possibly charged.

    Raises CampaignError for an unknown or ended campaign, LeaseHeldError when another process runs it,
    ProviderError when the provider cannot be opened, SettingsError for a broken domain, StoreError when the
    database cannot be written.
    """
    campaign = await campaigns.by_name(ws.db, name)
    if campaign is None:
        raise CampaignError(f"there is no campaign {name}; make it with: hafs-tui campaign create {name} ...")
    if campaign.state in ("done", "cancelled"):
        raise CampaignError(f"campaign {name} is {campaign.state}; raise its target or create another")
    async with leases.hold(ws.db, f"campaign:{name}"):
        try:
            async with open_routes(ws, campaign, provider=provider, readings=readings) as routes:
                await _run(ws, campaign, routes)
        except asyncio.CancelledError:
            # Where the lease is lost, the row is another process's now.
            if await leases.holder(ws.db, f"campaign:{name}") in (None, leases.this_process()):
                await _set_state(ws, campaign.id, "paused", "stopped with the program; run it again to go on")
            raise
        except StoreError:
            raise  # the row cannot be written either
        except Exception as error:
            await _set_state(ws, campaign.id, "failed", str(error) or type(error).__name__)
            raise
    ended = await campaigns.by_name(ws.db, name)
    assert ended is not None  # noqa: S101 - campaigns are never deleted
    return ended


async def _set_state(ws: Workspace, campaign_id: int, state: CampaignState, reason: str | None) -> None:
    async with ws.db.transaction() as transaction:
        await campaigns.set_state(transaction, campaign_id, state, reason)


async def _run(ws: Workspace, campaign: Campaign, routes: Routes) -> None:
    domains = await asyncio.to_thread(load_domains, ws.config)
    await asyncio.to_thread(minhash.warm_up)
    async with (
        open_journal(ws, campaign) as journal,
        open_execution(find_tools(ws.settings.tools)) as execution,
    ):
        await _set_state(ws, campaign.id, "running", None)
        journal.info(
            f"Starting campaign {campaign.name}: {campaign.provider}/{campaign.model}, target {campaign.target}"
        )
        again = await _settle_in_flight(ws, campaign, journal)
        shares = await _shares(ws, campaign, domains, again)
        spent: Spent = await requests.spent(ws.db, campaign.id)
        run = _Run(ws, campaign, routes, shares, journal, execution, spent.requests, spent.cost_usd)
        indexed = await index_missing(ws.db)
        await _judge_stored(run)
        for share in shares.values():
            share.accepted = await _accepted(ws, campaign.id, share.domain.name)
        indexing = asyncio.create_task(_index_others(ws, indexed), name=f"{campaign.name} index")
        try:
            async with asyncio.TaskGroup() as workers:
                for number in range(campaign.parallel * WORKERS_FOR_EACH_SLOT):
                    workers.create_task(_work(run), name=f"{campaign.name} worker {number}")
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
        finally:
            indexing.cancel()
            await asyncio.wait([indexing])
        if not indexing.cancelled():
            await indexing  # it never ends by itself, so this says why it did
        await _conclude(run)


async def _index_others(ws: Workspace, since: int) -> None:
    """Enter what imports and reviewers accept meanwhile into the index of near duplicates, until cancelled."""
    while True:
        await asyncio.sleep(INDEX_S)
        since = await index_missing(ws.db, since)


async def _settle_in_flight(ws: Workspace, campaign: Campaign, journal: Journal) -> dict[str, deque[int]]:
    """Mark what an earlier run left in flight, and gather every ordinal that never got an answer."""
    async with ws.db.transaction() as transaction:
        for request in await requests.in_flight(transaction, campaign.id):
            await requests.mark_unanswered(
                transaction, request.id, "in flight when the program ended; it may have been charged"
            )
            journal.warning(
                f"request {request.id} was in flight when the program ended: it may have been charged"
            )
        again: dict[str, deque[int]] = {}
        for domain, ordinal in await requests.never_answered(transaction, campaign.id):
            again.setdefault(domain, deque()).append(ordinal)
    return again


async def _shares(
    ws: Workspace, campaign: Campaign, domains: dict[str, Domain], again: dict[str, deque[int]]
) -> dict[str, _Share]:
    shares = {}
    for row in await campaigns.domains(ws.db, campaign.id):
        if row.domain not in domains:
            raise SettingsError(
                f"campaign {campaign.name}: there is no domain {row.domain}; known: {', '.join(domains)}"
            )
        shares[row.domain] = _Share(
            domain=domains[row.domain],
            target=row.target,
            accepted=row.accepted,
            next_ordinal=await requests.next_ordinal(ws.db, campaign.id, row.domain),
            again=again.get(row.domain, deque()),
        )
    return shares


async def _accepted(ws: Workspace, campaign_id: int, domain: str) -> int:
    rows = await campaigns.domains(ws.db, campaign_id)
    return next(row.accepted for row in rows if row.domain == domain)


async def _judge_stored(run: _Run) -> None:
    """Judge the answers that an earlier run stored and did not get to."""
    for request in await requests.answered_unjudged(run.ws.db, run.campaign.id):
        share = run.shares.get(request.domain or "")
        if share is None or request.ordinal is None or request.raw is None:
            continue
        asked_about = question(run.campaign, share.domain, request.ordinal)
        if asked_about.key != request.content_key:
            await _set_aside(run, request.id, "the domain was changed before this answer was judged")
            continue
        try:
            reading = await _read(run, stored_of(request))
        except ProviderError as error:
            run.journal.warning(f"{share.domain.name} request {request.id}: {error.kind}: {error.message}")
            continue
        await _judge(run, share, asked_about, reading)


async def _set_aside(run: _Run, request_id: int, why: str) -> None:
    """An answer to a question that is not the domain's any more: its raw bytes stay, it becomes no sample."""
    async with run.ws.db.transaction() as transaction:
        await requests.record_failure(transaction, request_id, "stale", why)
    run.journal.warning(f"request {request_id}: {why}")


async def _work(run: _Run) -> None:
    while (share := await _next_share(run)) is not None:
        asked_about = None
        try:
            asked_about = question(run.campaign, share.domain, share.take())
            reading = await _ask(run, asked_about, share.again.append)
            if reading is not None:
                await _judge(run, share, asked_about, reading)
        except StoreError as error:
            run.stop("paused", str(error))
            raise
        finally:
            async with run.changed:
                share.in_flight -= 1
                run.changed.notify_all()


async def _next_share(run: _Run) -> _Share | None:
    """The domain that is furthest behind and wants a question, waiting while those in flight may still
    meet the targets; None when the run is over."""
    async with run.changed:
        while True:
            await _heed(run)
            if run.end is not None or all(share.finished for share in run.shares.values()):
                run.changed.notify_all()
                return None
            wanting = [share for share in run.shares.values() if share.wants]
            if wanting:
                return min(wanting, key=lambda share: (share.accepted + share.in_flight) / share.target)
            await run.changed.wait()


async def _heed(run: _Run) -> None:
    """Notice wishes from other processes, and budgets that are spent."""
    if time.monotonic() >= run.look_again_at:
        run.look_again_at = time.monotonic() + LOOK_S
        row = await campaigns.by_name(run.ws.db, run.campaign.name)
        assert row is not None  # noqa: S101 - campaigns are never deleted
        run.budget_usd, run.budget_requests = row.budget_usd, row.budget_requests
        if row.wish == "pause":
            run.stop("paused", None)
        elif row.wish == "cancel":
            run.stop("cancelled", None)
    _keep_to_budget(run)


def _keep_to_budget(run: _Run) -> None:
    """The counts are this run's own: nobody else asks for a campaign whose lease it holds."""
    if run.budget_usd is not None and run.cost_usd >= run.budget_usd:
        run.stop(
            "paused",
            f"the budget of ${run.budget_usd:g} is spent (${run.cost_usd:.4f}); raise it to go on",
        )
    if run.budget_requests is not None and run.requests >= run.budget_requests:
        run.stop("paused", f"the budget of {run.budget_requests} requests is spent; raise it to go on")


@asynccontextmanager
async def _slot(run: _Run, route: Route, begun: Callable[[], None]) -> AsyncIterator[None]:
    """A place in flight. Raises _RunEnds where the run ended, or its budget was spent, before it was free."""
    limit = route.entrance.limit
    async with run.slots, limit.slot(partial(_sleep_or_end, run), run.campaign.priority):
        _keep_to_budget(run)
        if run.end is not None:
            raise _RunEnds
        run.requests += 1
        begun()
        yield


async def _ask(run: _Run, asked_about: Question, again: Callable[[int], None]) -> Reading | None:
    """The answer, after as many repeats as the retry budgets allow; None when the question is given up, or
    put back by `again` because another provider may answer it."""
    place = Place("generate", run.campaign.id, asked_about.domain.name, asked_about.ordinal)
    route = run.routes.api
    failed_locally: str | None = None

    async def attempt() -> Reading:
        nonlocal route
        if run.end is not None:
            raise _RunEnds
        route, why = run.routes.choose(asked_about.ordinal, after=failed_locally)
        request = replace(asked_about.request, model=route.model)
        entrance = route.entrance
        ticket = await entrance.window.admit(request.least_tokens, partial(_sleep_or_end, run))
        async with entrance.limit.turn(run.campaign.priority) as begun:
            stored = await sent(
                run.ws,
                route.provider,
                request,
                replace(place, routing=why),
                content_key=asked_about.key,
                slot=_slot(run, route, begun),
            )
        reading = await _read(run, stored)
        if reading.answer is not None:
            usage = reading.answer.usage
            entrance.window.used(ticket, usage.prompt_tokens + usage.completion_tokens)
        return reading

    def told(error: ProviderError, wait_s: float) -> None:
        nonlocal failed_locally
        if route.side == "local":
            failed_locally = error.kind
        run.journal.warning(
            f"{place.domain} {asked_about.seed.id}: {error.kind}, again in {wait_s:.1f} s: {error.message}"
        )

    try:
        reading = await with_retries(attempt, _RETRIES, on_repeat=told, sleep=partial(_heedful_sleep, run))
    except _RunEnds:
        return None
    except ProviderError as error:
        run.journal.warning(f"{place.domain} {asked_about.seed.id}: {error.kind}: {error.message}")
        if error.stops_provider and run.routes.switch_off(route, error):
            again(asked_about.ordinal)
            return None
        if error.stops_provider:
            run.stop("failed", str(error))
        _count_failure(run, error)
        return None
    run.failures_in_a_row = 0
    return reading


async def _read(run: _Run, stored: Stored) -> Reading:
    """Read a stored answer. Raises ProviderError for one that is no good, which is recorded; a good one is
    recorded when it is judged, in the same transaction."""
    reading = read(run.ws, run.routes.of(stored.provider).provider, stored)
    run.cost_usd += 0.0 if stored.is_read else reading.cost_usd or 0.0
    if reading.problem is not None:
        await run.ws.db.write(lambda transaction: record(transaction, reading))
        raise reading.problem
    return reading


async def _heedful_sleep(run: _Run, seconds: float) -> None:
    """Wait, but not longer than until somebody asks the campaign to stop."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while run.end is None and (left := until - loop.time()) > 0:
        await asyncio.sleep(min(left, 1.0))
        await _heed(run)


async def _sleep_or_end(run: _Run, seconds: float) -> None:
    """Wait for a pause that the provider asked for, which may be hours. Raises _RunEnds when the run is over."""
    await _heedful_sleep(run, seconds)
    if run.end is not None:
        raise _RunEnds


def _count_failure(run: _Run, error: ProviderError) -> None:
    if error.budget == "output" or error.kind == "refused":
        run.failures_in_a_row = 0
        return
    run.failures_in_a_row += 1
    if run.failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
        run.stop("paused", f"{run.failures_in_a_row} questions in a row got no answer; the last: {error}")


async def _judge(run: _Run, share: _Share, asked_about: Question, reading: Reading) -> None:
    sample = await judge(run.ws, run.campaign, asked_about, reading, run.execution)
    if sample.state == "gated":
        run.journal.info(
            f"{share.domain.name} {asked_about.seed.id}: rejected by a gate (sample {sample.id})"
        )
        return
    share.accepted += 1
    run.journal.accepted(sample)
    run.journal.info(
        f"Progress: {share.accepted}/{share.target} {share.domain.name} samples (sample {sample.id})"
    )


async def _conclude(run: _Run) -> None:
    short = [share for share in run.shares.values() if share.accepted < share.target]
    if run.end is None:
        async with run.ws.db.transaction() as transaction:
            for share in short:
                await campaigns.set_exhausted(transaction, run.campaign.id, share.domain.name)
        missing = ", ".join(f"{s.domain.name} {s.accepted}/{s.target}" for s in short)
        run.stop(
            "done", f"seeds used up: {missing}; add seeds, or raise 'rounds' of the domain" if short else None
        )
    state: Literal["created", "running", "paused", "done", "cancelled", "failed"] = run.end or "done"
    await _set_state(run.ws, run.campaign.id, state, run.reason)
    run.journal.info(f"Campaign {run.campaign.name} is {state}" + (f": {run.reason}" if run.reason else ""))
