"""Rows of memory plans: what each run was predicted to take of its card, beside what it took."""

from __future__ import annotations

from dataclasses import dataclass

from backend.store.connection import Queries, Transaction


@dataclass(frozen=True, slots=True)
class Peak:
    """One run's predicted and measured peak of what torch allocates, in MiB, newest runs first. `measured` is
    the highest over all its jobs, None before the first was told (and always on a host without a card)."""

    run: str
    host: str
    predicted: float
    measured: float | None
    card: float


async def insert(transaction: Transaction, run_id: int, predicted_mib: float, card_mib: float) -> None:
    await transaction.execute(
        "INSERT OR REPLACE INTO memory_plans (run_id, predicted_mib, card_mib) VALUES (?, ?, ?)",
        (run_id, predicted_mib, card_mib),
    )


async def peaks(queries: Queries, host: str) -> list[Peak]:
    """Every planned run of a host, newest first."""
    return await queries.rows(
        Peak,
        "SELECT runs.name AS run, runs.host AS host, memory_plans.predicted_mib AS predicted, "
        "memory_plans.card_mib AS card, "
        "(SELECT max(metrics.value) FROM metrics JOIN jobs ON jobs.id = metrics.job_id "
        " WHERE metrics.name = 'peak_memory_mib' AND jobs.host = runs.host AND jobs.kind = runs.kind "
        " AND json_extract(jobs.spec, '$.parameters.output_dir') = runs.output_dir) AS measured "
        "FROM memory_plans JOIN runs ON runs.id = memory_plans.run_id "
        "WHERE runs.host = ? ORDER BY runs.id DESC",
        (host,),
    )
