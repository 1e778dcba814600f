"""Run a domain's gates over a candidate, in order, and stop at the first that fails.

A new gate is a function in `gates` and one line in `_GATES`; a domain names the gates that it wants. The
duplicates gate is the last, and may be run apart: it alone asks the database, in the transaction that stores
the sample, and nothing slow may happen in there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from backend.quality.gates import (
    Candidate,
    DuplicateLookup,
    Execute,
    GateResult,
    duplicates_gate,
    execution_gate,
    length_gate,
    reference_gate,
    schema_gate,
)
from backend.similarity.normalise import Normalise

GateName = Literal["schema", "length", "reference", "execution", "duplicates"]


@dataclass(frozen=True, slots=True)
class GatesConfig:
    """Which gates a domain has, in order, and their limits. `duplicates` belongs last: it alone asks the
    database, and what fails elsewhere need not be looked up.

    `min_chars` and `max_chars` bound the output, both included; `normalise` is how a reference is compared.
    """

    order: tuple[GateName, ...] = ("schema", "length", "reference", "duplicates")
    min_chars: int = 1
    max_chars: int = 32_000
    normalise: Normalise = "text"


async def _schema(candidate: Candidate, config: GatesConfig, execute: Execute | None) -> GateResult:
    return schema_gate(candidate)


async def _length(candidate: Candidate, config: GatesConfig, execute: Execute | None) -> GateResult:
    return length_gate(candidate, config.min_chars, config.max_chars)


async def _reference(candidate: Candidate, config: GatesConfig, execute: Execute | None) -> GateResult:
    return reference_gate(candidate, config.normalise)


async def _execution(candidate: Candidate, config: GatesConfig, execute: Execute | None) -> GateResult:
    return await execution_gate(candidate, execute)


_Gate = Callable[[Candidate, GatesConfig, Execute | None], Awaitable[GateResult]]
_GATES: dict[GateName, _Gate] = {
    "schema": _schema,
    "length": _length,
    "reference": _reference,
    "execution": _execution,
}


async def run_gates(
    candidate: Candidate,
    config: GatesConfig,
    lookup: DuplicateLookup | None = None,
    execute: Execute | None = None,
) -> list[GateResult]:
    """One result for each gate of `config.order`. After the first failure the rest are reported as not run
    and are not called. `lookup` finds an accepted sample that the candidate repeats; what it raises, it
    raises here: a database that fails is no verdict about a candidate.
    """
    results = await run_before_duplicates(candidate, config, execute)
    return await with_duplicates(results, candidate, config, lookup)


async def run_before_duplicates(
    candidate: Candidate, config: GatesConfig, execute: Execute | None = None
) -> list[GateResult]:
    """The results of all gates but `duplicates`: what can be said without the database, however slow."""
    results: list[GateResult] = []
    for name in config.order:
        if name == "duplicates":
            continue
        failed = first_failure(results)
        results.append(_after(name, failed) if failed else await _GATES[name](candidate, config, execute))
    return results


async def with_duplicates(
    results: Sequence[GateResult], candidate: Candidate, config: GatesConfig, lookup: DuplicateLookup | None
) -> list[GateResult]:
    """The results that came before, and that of the duplicates gate where the domain has it."""
    if "duplicates" not in config.order:
        return list(results)
    failed = first_failure(results)
    last = _after("duplicates", failed) if failed else await duplicates_gate(candidate, lookup)
    return [*results, last]


def _after(name: GateName, failed: GateResult) -> GateResult:
    return GateResult(name, None, None, f"not run: {failed.name} failed")


def first_failure(results: Sequence[GateResult]) -> GateResult | None:
    """The gate that turned the candidate away, or None: it is accepted. Gates that were not run for want of
    a reference or a tool turn nothing away; their results say so on the sample."""
    return next((result for result in results if result.passed is False), None)
