"""From an answer to a sample: the gates, then one transaction that stores sample, gates and counters."""

from __future__ import annotations

import asyncio
import json
import uuid

from backend.execution.items import Executed, execute_code
from backend.execution.pool import Execution
from backend.generation.domains import Domain, Seed
from backend.generation.plan import Question
from backend.providers.ledger import Reading, record
from backend.quality.duplicates import find_duplicate, remember
from backend.quality.gates import Candidate, Execute, Match
from backend.quality.run import first_failure, run_before_duplicates, with_duplicates
from backend.settings import Workspace
from backend.similarity.exact import sample_text
from backend.similarity.fingerprint import fingerprint
from backend.store import Transaction, campaigns, samples
from backend.store.campaigns import Campaign
from backend.store.samples import GateRow, Sample


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
    reading: Reading,
    execution: Execution | None = None,
) -> Sample:
    """Run the domain's gates over an answer and store what they say, once: the request is marked as judged
    in the same transaction. The sample is "pending" when every gate let it pass, else "gated". Without
    `execution` the execution gate is not run. Raises ProviderError for an answer that is no good."""
    domain, seed, answer = question.domain, question.seed, reading.good
    candidate = Candidate(
        instruction=domain.instruction_of(seed),
        input=domain.input_of(seed),
        output=answer.text.strip(),
        domain=domain.name,
        family=seed.family,
        reference=seed.reference,
    )
    known_by = fingerprint(sample_text(candidate.instruction, candidate.input, candidate.output))
    before = await run_before_duplicates(candidate, domain.gates, executing(execution, domain, seed))
    extra = json.dumps({"seed": seed.id, "reference": seed.reference, "row_domain": domain.row_domain})

    # The write lock is held while duplicates are looked up, so two equal answers that arrive at once,
    # in this process or another, cannot both be accepted.
    async def work(transaction: Transaction) -> Sample:
        async def lookup(_: Candidate) -> Match | None:
            return await find_duplicate(transaction, known_by, domain.duplicate_threshold)

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
            exact_hash=known_by.exact_hash,
            author=f"{reading.stored.provider}/{reading.stored.model}",
            campaign_id=campaign.id,
            request_id=reading.stored.request_id,
            provider=reading.stored.provider,
            model=reading.stored.model,
            extra=extra,
        )
        await samples.insert_gates(
            transaction, sample_id, [GateRow(r.name, r.passed, r.figure, r.reason) for r in results]
        )
        if accepted:
            await remember(transaction, sample_id, known_by)
        await campaigns.count(transaction, campaign.id, domain.name, accepted=accepted)
        await record(transaction, reading, judged=True)
        sample = await samples.by_id(transaction, sample_id)
        assert sample is not None  # noqa: S101 - inserted above
        return sample

    return await ws.db.write(work, heavy=True)
