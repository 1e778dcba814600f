"""From an answer to a sample: the gates, then one transaction that stores sample, gates and counters."""

from __future__ import annotations

import asyncio
import json
import uuid

from backend.execution.items import Executed, execute_code
from backend.execution.pool import Execution
from backend.generation.domains import Domain, Seed
from backend.generation.plan import Question
from backend.providers.base import Answer
from backend.quality.gates import Candidate, Execute, Match
from backend.quality.run import first_failure, run_before_duplicates, with_duplicates
from backend.settings import Workspace
from backend.similarity.exact import exact_hash, sample_text
from backend.similarity.minhash import bands, estimate, jaccard, signature
from backend.store import Transaction, campaigns, requests, samples
from backend.store.campaigns import Campaign
from backend.store.samples import GateRow, Sample

# A signature's estimate has a standard error of 0.04: what is nearer than this is compared word by word.
_ESTIMATE_SLACK = 0.12


def text_of(sample: Sample) -> str:
    return sample_text(sample.instruction, sample.input, sample.output)


async def find_duplicate(
    transaction: Transaction, text: str, threshold: float, *, besides: int | None = None
) -> Match | None:
    """The accepted sample, other than `besides`, that `text` repeats: equal after normalising, or with a
    Jaccard similarity of word shingles of at least `threshold` (0 to 1). Looks at everything ever accepted."""
    same = await samples.id_by_hash(transaction, exact_hash(text), besides=besides)
    if same is not None:
        return Match(str(same), 1.0, exact=True)
    mine = signature(text)
    nearest: Match | None = None
    for sample_id, theirs in await samples.sharing_bands(transaction, bands(mine)):
        if estimate(mine, theirs) < threshold - _ESTIMATE_SLACK:
            continue
        other = await samples.by_id(transaction, sample_id)
        if other is None:
            continue
        similarity = jaccard(text, text_of(other))
        if similarity >= threshold and (nearest is None or similarity > nearest.similarity):
            nearest = Match(str(sample_id), similarity, exact=False)
    return nearest


def executing(execution: Execution | None, domain: Domain, seed: Seed | None) -> Execute | None:
    """How the execution gate executes answers to this seed; None where nothing says in what."""
    task = domain.task(seed) if seed else None
    if execution is None or task is None:
        return None

    async def execute(candidate: Candidate) -> Executed | None:
        code = await asyncio.to_thread(domain.code_of, candidate.output, task)
        return None if code is None else await execute_code(execution, task, code)

    return execute


async def judge(
    ws: Workspace,
    campaign: Campaign,
    question: Question,
    request_id: int,
    answer: Answer,
    execution: Execution | None = None,
) -> Sample:
    """Run the domain's gates over an answer and store what they say, once: the request is marked as judged
    in the same transaction. The sample is "pending" when every gate let it pass, else "gated". Without
    `execution` the execution gate is not run."""
    domain, seed = question.domain, question.seed
    candidate = Candidate(
        instruction=domain.instruction_of(seed),
        input=domain.input_of(seed),
        output=answer.text.strip(),
        domain=domain.name,
        family=seed.family,
        reference=seed.reference,
    )
    text = sample_text(candidate.instruction, candidate.input, candidate.output)
    execute = executing(execution, domain, seed)
    before = await run_before_duplicates(candidate, domain.gates, execute)
    # The write lock is held while duplicates are looked up, so two equal answers that arrive at once,
    # in this process or another, cannot both be accepted.
    async with ws.db.transaction() as transaction:

        async def lookup(_: Candidate) -> Match | None:
            return await find_duplicate(transaction, text, domain.duplicate_threshold)

        results = await with_duplicates(before, candidate, domain.gates, lookup)
        accepted = first_failure(results) is None
        sample_id = await samples.insert(
            transaction,
            uid=uuid.uuid4().hex,
            domain=domain.name,
            family=f"{domain.name}:{seed.family}",
            source="generated",
            state="pending" if accepted else "gated",
            instruction=candidate.instruction,
            input=candidate.input,
            output=candidate.output,
            exact_hash=exact_hash(text),
            author=f"{campaign.provider}/{campaign.model}",
            campaign_id=campaign.id,
            request_id=request_id,
            provider=campaign.provider,
            model=campaign.model,
            extra=json.dumps({"seed": seed.id, "reference": seed.reference, "row_domain": domain.row_domain}),
        )
        await samples.insert_gates(
            transaction, sample_id, [GateRow(r.name, r.passed, r.figure, r.reason) for r in results]
        )
        if accepted:
            mine = signature(text)
            await samples.insert_signature(transaction, sample_id, mine, bands(mine))
        await campaigns.count(transaction, campaign.id, domain.name, accepted=accepted)
        await requests.mark_judged(transaction, request_id)
        sample = await samples.by_id(transaction, sample_id)
    assert sample is not None  # noqa: S101 - inserted above
    return sample
