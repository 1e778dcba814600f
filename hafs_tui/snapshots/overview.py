"""What the Overview shows: what runs, what waits for a person, and what came out last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.generation.progress import Progress
from backend.settings import Workspace
from backend.store import deployments, evaluations, jobs, runs, samples
from backend.store.deployments import Deployment
from backend.store.evaluations import ComparisonRow
from backend.store.runs import Run
from hafs_tui.snapshots.campaigns import CampaignReader

_POINTS = 400


@dataclass(frozen=True, slots=True)
class Training:
    """The newest run with its losses, oldest first (NaN where one was not finite)."""

    run: Run
    losses: tuple[float, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class OverviewSnapshot:
    """`verdict` is the newest comparison with the names of its models (baseline, fine-tuned)."""

    campaigns: tuple[Progress, ...]
    samples: Mapping[str, int]
    pairs_pending: int
    training: Training | None
    jobs_active: int
    verdict: tuple[ComparisonRow, str, str] | None
    deployments: tuple[Deployment, ...]


async def read(ws: Workspace, campaigns: CampaignReader) -> OverviewSnapshot:
    """Everything that the screen shows."""
    found = await campaigns.every(ws)
    running = tuple(p for p in found if p.campaign.state == "running")
    rest = tuple(p for p in found if p.campaign.state != "running")
    pending = await ws.db.fetch_value("SELECT count(*) FROM pairs WHERE state = 'pending'")
    return OverviewSnapshot(
        campaigns=(running + rest)[:8],
        samples=await samples.count_by_state(ws.db),
        pairs_pending=int(pending),
        training=await _training(ws),
        jobs_active=len(await jobs.not_ended(ws.db)),
        verdict=await _verdict(ws),
        deployments=tuple(await deployments.every(ws.db))[:6],
    )


async def _training(ws: Workspace) -> Training | None:
    found = await runs.every(ws.db)
    if not found:
        return None
    run = next((run for run in found if run.state in ("starting", "running", "stopping")), found[0])
    return Training(run, await _figures(ws, run, "loss"), await _figures(ws, run, "rewards_margin"))


async def _figures(ws: Workspace, run: Run, name: str) -> tuple[float, ...]:
    if run.job_id is None:
        return ()
    points = await jobs.metric(ws.db, run.job_id, name)
    return tuple(float("nan") if value is None else value for _, value in points[-_POINTS:])


async def _verdict(ws: Workspace) -> tuple[ComparisonRow, str, str] | None:
    found = await evaluations.comparisons(ws.db)
    if not found:
        return None
    baseline = await evaluations.by_id(ws.db, found[0].baseline)
    finetuned = await evaluations.by_id(ws.db, found[0].finetuned)
    return found[0], baseline.model if baseline else "?", finetuned.model if finetuned else "?"
