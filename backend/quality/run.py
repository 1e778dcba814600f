"""Run a domain's gates over a candidate, in order, and stop at the first that fails.

A new gate is a function in `gates` and one line in `_GATES`; a domain names the gates that it wants.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from backend.quality.gates import (
    Candidate,
    DuplicateLookup,
    GateResult,
    duplicates_gate,
    length_gate,
    reference_gate,
    schema_gate,
)
from backend.similarity.normalise import Normalise

GateName = Literal["schema", "length", "reference", "duplicates"]


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


async def _schema(candidate: Candidate, config: GatesConfig, lookup: DuplicateLookup | None) -> GateResult:
    return schema_gate(candidate)


async def _length(candidate: Candidate, config: GatesConfig, lookup: DuplicateLookup | None) -> GateResult:
    return length_gate(candidate, config.min_chars, config.max_chars)


async def _reference(candidate: Candidate, config: GatesConfig, lookup: DuplicateLookup | None) -> GateResult:
    return reference_gate(candidate, config.normalise)


async def _duplicates(
    candidate: Candidate, config: GatesConfig, lookup: DuplicateLookup | None
) -> GateResult:
    return await duplicates_gate(candidate, lookup)


_Gate = Callable[[Candidate, GatesConfig, DuplicateLookup | None], Awaitable[GateResult]]
_GATES: dict[GateName, _Gate] = {
    "schema": _schema,
    "length": _length,
    "reference": _reference,
    "duplicates": _duplicates,
}


async def run_gates(
    candidate: Candidate, config: GatesConfig, lookup: DuplicateLookup | None = None
) -> list[GateResult]:
    """One result for each gate of `config.order`. After the first failure the rest are reported as not run
    and are not called. `lookup` finds an accepted sample that the candidate repeats; what it raises, it
    raises here: a database that fails is no verdict about a candidate.
    """
    results: list[GateResult] = []
    failed: str | None = None
    for name in config.order:
        if failed is not None:
            results.append(GateResult(name, None, None, f"not run: {failed} failed"))
            continue
        result = await _GATES[name](candidate, config, lookup)
        results.append(result)
        if result.passed is False:
            failed = name
    return results


def first_failure(results: Sequence[GateResult]) -> GateResult | None:
    """The gate that turned the candidate away, or None: it is accepted. Gates that were not run for want of
    a reference or a tool turn nothing away; their results say so on the sample."""
    return next((result for result in results if result.passed is False), None)
