"""Runs a campaign's gates again over what is stored: after a domain's gates were changed, without requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from backend.execution.pool import open_execution
from backend.execution.tools import find_tools
from backend.generation.campaigns import named
from backend.generation.domains import load_domains
from backend.generation.engine import CampaignError
from backend.generation.judging import executing
from backend.quality.duplicates import find_duplicate, forget, remember, text_of
from backend.quality.gates import Candidate, Match
from backend.quality.run import first_failure, run_before_duplicates, with_duplicates
from backend.settings import Workspace
from backend.similarity.fingerprint import Fingerprint, fingerprint
from backend.store import campaigns, leases, samples
from backend.store.samples import Filter, GateRow, Sample


@dataclass(frozen=True, slots=True)
class Rescored:
    """How many were judged again, and how many changed sides. Samples that a reviewer decided about keep
    that decision and are counted in `kept`."""

    judged: int
    now_pending: int
    now_gated: int
    kept: int


async def rescore(ws: Workspace, name: str) -> Rescored:
    """Judge every stored sample of the campaign again, oldest first, each in one transaction. What a reviewer
    edits meanwhile is left to them.

    Raises CampaignError, LeaseHeldError while the campaign runs, SettingsError for a broken domain.
    """
    campaign = await named(ws, name)
    domains = await asyncio.to_thread(load_domains, ws.config)
    judged = now_pending = now_gated = kept = 0
    async with (
        leases.hold(ws.db, f"campaign:{name}"),
        open_execution(find_tools(ws.settings.tools)) as execution,
    ):
        for sample_id in await samples.ids(ws.db, Filter(campaign=name), newest_first=False):
            stored = await samples.by_id(ws.db, sample_id)
            if stored is None:
                continue
            if stored.domain not in domains:
                raise CampaignError(f"campaign {name}: there is no domain {stored.domain} any more")
            domain = domains[stored.domain]
            candidate = Candidate(
                instruction=stored.instruction,
                input=stored.input,
                output=stored.output,
                domain=stored.domain,
                family=stored.family,
                reference=stored.extra.get("reference"),
            )
            seed = domain.seed(stored.extra.get("seed"))
            execute = executing(execution, domain, seed)
            before = await run_before_duplicates(candidate, domain.gates, execute)
            async with ws.db.transaction() as transaction:
                sample = await samples.by_id(transaction, sample_id)
                if sample is None or sample.output != stored.output:
                    continue

                # A sample is no duplicate of itself: it steps out of the index while it is looked up.
                await forget(transaction, sample.id)
                known_by = fingerprint(text_of(sample))

                async def lookup(
                    _: Candidate,
                    known_by: Fingerprint = known_by,
                    sample: Sample = sample,
                    threshold: float = domain.duplicate_threshold,
                ) -> Match | None:
                    return await find_duplicate(transaction, known_by, threshold, besides=sample.id)

                results = await with_duplicates(before, candidate, domain.gates, lookup)
                passes = first_failure(results) is None
                judged += 1
                await samples.replace_gates(
                    transaction, sample.id, [GateRow(r.name, r.passed, r.figure, r.reason) for r in results]
                )
                if passes or sample.state not in ("pending", "gated"):
                    await remember(transaction, sample.id, known_by)
                if sample.state not in ("pending", "gated"):
                    kept += 1
                elif passes != (sample.state == "pending"):
                    now_pending += passes
                    now_gated += not passes
                    await samples.set_gated(transaction, sample.id, gated=not passes)
                    await campaigns.recount(transaction, campaign.id, sample.domain)
    return Rescored(judged, now_pending, now_gated, kept)
