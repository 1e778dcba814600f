"""`hafs-tui campaign`: make, run and steer campaigns, and see what they did and why."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import (
    EXIT_FAILED,
    EXIT_REFUSED,
    Failed,
    Session,
    duration,
    in_workspace,
    many,
    table,
)

if TYPE_CHECKING:
    from backend.generation.progress import Progress
    from backend.settings import Workspace


@click.group(
    cls=Group,
    epilog="Example: hafs-tui campaign create pilot --provider gemini --model gemini-3-flash-preview --target 100",
)
def command() -> None:
    """Generate samples."""


@command.command(
    epilog="Example: hafs-tui campaign create pilot --provider embedded --model smollm2-135m-instruct "
    "--target 60 --domains opcodes"
)
@click.argument("name")
@click.option(
    "--provider", required=True, help="gemini, anthropic, ollama, openai (any compatible server) or embedded."
)
@click.option("--model", required=True, help="The model, as the provider names it.")
@click.option("--target", type=int, required=True, help="Accepted samples wanted, divided over the domains.")
@click.option(
    "--domains",
    default="",
    help="Names split by commas, with weights where wanted (asm:3,text:1); every domain where left out.",
)
@click.option("--local", help="ollama:MODEL[@HOST]: share requests with one's own GPU, by how busy it is.")
@click.option(
    "--priority", type=int, default=0, help="The higher goes first where campaigns share a provider."
)
@click.option("--base-url", help="The provider's address, where it is not the usual one.")
@click.option("--temperature", type=float, help="0 to 2.")
@click.option("--max-tokens", type=int, help="Longest answer; else the domain's.")
@click.option("--parallel", type=int, help="Most requests in flight.")
@click.option("--seed", type=int, help="Seed of the order of questions.")
@click.option("--budget-usd", type=float, help="Pause when so much is spent.")
@click.option("--budget-requests", type=int, help="Pause after so many requests.")
@in_workspace
async def create(ws: Workspace, session: Session, /, name: str, domains: str, **given: Any) -> None:
    """Make a campaign; it runs when it is told to."""
    from backend.generation.campaigns import NewCampaign
    from backend.generation.campaigns import create as create_campaign
    from backend.generation.progress import progress_of

    weights = _weights(domains)
    campaign = await create_campaign(
        ws, NewCampaign(name=name, domains=tuple(weights), weights=weights, **given)
    )
    shown = await progress_of(ws, campaign.name)
    session.show(as_json(shown), f"campaign {name} is ready: hafs-tui campaign run {name}")


def _weights(domains: str) -> dict[str, float]:
    """The weight of each domain of "asm:3,text": 1 where none is named."""
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in domains.split(","))):
        name, colon, weight = part.partition(":")
        try:
            weights[name.strip()] = float(weight) if colon else 1.0
        except ValueError as error:
            raise Failed(f"--domains {part!r}: expected NAME or NAME:WEIGHT, as in asm:3,text:1") from error
    return weights


@command.command(epilog="Example: hafs-tui campaign clone pilot second")
@click.argument("name")
@click.argument("new_name")
@in_workspace
async def clone(ws: Workspace, session: Session, name: str, new_name: str) -> None:
    """Make a campaign that asks what another asks, with nothing done yet."""
    from backend.generation.campaigns import clone as clone_campaign
    from backend.generation.progress import progress_of

    await clone_campaign(ws, name, new_name)
    shown = await progress_of(ws, new_name)
    session.show(as_json(shown), f"campaign {new_name} is ready: hafs-tui campaign run {new_name}")


@command.command(epilog="Example: hafs-tui campaign retarget pilot --target 200")
@click.argument("name")
@click.option("--target", type=int, required=True, help="Accepted samples wanted; more than now.")
@in_workspace
async def retarget(ws: Workspace, session: Session, name: str, target: int) -> None:
    """Raise a campaign's target; one that was done can run again."""
    from backend.generation.campaigns import retarget as raise_target
    from backend.generation.progress import progress_of

    await raise_target(ws, name, target)
    shown = await progress_of(ws, name)
    session.show(as_json(shown), f"campaign {name} wants {target}: hafs-tui campaign run {name}")


@command.command(epilog="Example: hafs-tui campaign priority pilot 5")
@click.argument("name")
@click.argument("priority", type=int)
@in_workspace
async def priority(ws: Workspace, session: Session, name: str, priority: int) -> None:
    """Say which campaign goes first where several share a provider; it holds from its next start."""
    from backend.generation.campaigns import set_priority

    campaign = await set_priority(ws, name, priority)
    session.show(
        {"name": name, "priority": campaign.priority}, f"campaign {name} has priority {campaign.priority}"
    )


@command.command(epilog="Example: hafs-tui campaign run pilot --detach")
@click.argument("name")
@click.option("--detach", is_flag=True, help="Run it in a process of its own, and return.")
@in_workspace
async def run(ws: Workspace, session: Session, name: str, detach: bool) -> None:
    """Run a campaign until it is done, paused, cancelled or out of budget."""
    await _run(ws, session, name, detach)


@command.command(epilog="Example: hafs-tui campaign resume pilot")
@click.argument("name")
@click.option("--detach", is_flag=True, help="Run it in a process of its own, and return.")
@in_workspace
async def resume(ws: Workspace, session: Session, name: str, detach: bool) -> None:
    """Go on with a campaign that was paused, stopped or killed."""
    await _run(ws, session, name, detach)


async def _run(ws: Workspace, session: Session, name: str, detach: bool) -> None:
    from backend.generation.engine import run_campaign
    from backend.generation.progress import progress_of

    await progress_of(ws, name)  # an unknown name is told with those there are
    if detach:
        await _detach(ws, session, name)
        return
    async with asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(_watch(ws, session, name))
        try:
            await run_campaign(ws, name)
        finally:
            watcher.cancel()
    ended = await progress_of(ws, name)
    session.show(as_json(ended), describe(ended))
    if ended.campaign.state == "paused" and ended.campaign.error and "budget" in ended.campaign.error:
        sys.exit(EXIT_REFUSED)
    if ended.campaign.state == "failed" or (ended.campaign.state == "paused" and ended.campaign.error):
        sys.exit(EXIT_FAILED)


async def _detach(ws: Workspace, session: Session, name: str) -> None:
    """Start a process that runs the campaign, and return when it does, or say why it does not."""
    from backend.generation.progress import progress_of

    output = ws.logs / f"campaign_{name}.out"
    process = await _process(ws, name, output)
    while True:
        stands = await progress_of(ws, name)
        if process.returncode is not None or (stands.owned and stands.campaign.state == "running"):
            break
        await asyncio.sleep(0.05)
    if process.returncode not in (None, 0):
        said = (await asyncio.to_thread(output.read_text, "utf-8", "replace")).strip().splitlines()
        raise Failed("\n".join(said[-3:]).removeprefix("error: ") or f"it ended at once: see {output}")
    session.show(
        {**as_json(stands), "pid": process.pid},
        f"campaign {name} runs in process {process.pid}; watch it: hafs-tui campaign show {name}",
    )


async def _process(ws: Workspace, name: str, output: Path) -> asyncio.subprocess.Process:
    await asyncio.to_thread(ws.logs.mkdir, parents=True, exist_ok=True)
    with output.open("wb") as stream:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hafs_tui", "--home", str(ws.home), "campaign", "run", name),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


async def _watch(ws: Workspace, session: Session, name: str) -> None:
    from backend.generation.progress import progress_of

    while True:
        await asyncio.sleep(5)
        session.tell(describe(await progress_of(ws, name)).splitlines()[0])


@command.command(epilog="Example: hafs-tui campaign pause pilot")
@click.argument("name")
@in_workspace
async def pause(ws: Workspace, session: Session, name: str) -> None:
    """Let what is in flight finish, then stop; `resume` goes on."""
    from backend.generation import campaigns

    campaign = await campaigns.pause(ws, name)
    session.show(
        {"name": name, "state": campaign.state, "wish": campaign.wish},
        f"campaign {name}: {campaign.wish or campaign.state}",
    )


@command.command(epilog="Example: hafs-tui campaign cancel pilot")
@click.argument("name")
@in_workspace
async def cancel(ws: Workspace, session: Session, name: str) -> None:
    """End a campaign for good; what it accepted stays."""
    from backend.generation import campaigns

    campaign = await campaigns.cancel(ws, name)
    session.show(
        {"name": name, "state": campaign.state, "wish": campaign.wish},
        f"campaign {name}: {campaign.wish or campaign.state}",
    )


@command.command("list", epilog="Example: hafs-tui --json campaign list")
@in_workspace
async def list_(ws: Workspace, session: Session) -> None:
    """Every campaign, newest first."""
    from backend.generation.progress import every_progress

    found = await every_progress(ws)
    rows = [
        (p.campaign.name, p.campaign.state, f"{p.accepted}/{p.campaign.target}", p.rejected, p.spent.requests,
         p.campaign.model, f"${p.spent.cost_usd:.4f}", duration(p.eta_s) if p.eta_s else "")
        for p in found
    ]  # fmt: skip
    headers = ("name", "state", "accepted", "rejected", "requests", "model", "cost", "ETA")
    session.show([as_json(p) for p in found], table(headers, rows))


@command.command(epilog="Example: hafs-tui campaign show pilot")
@click.argument("name")
@in_workspace
async def show(ws: Workspace, session: Session, name: str) -> None:
    """One campaign: progress by domain and in total, rate, cost, ETA, last failures."""
    from backend.generation.progress import failures, progress_of

    shown = await progress_of(ws, name)
    failed = await failures(ws, name, 5)
    lines = [describe(shown), *(f"  failure: {f.domain} {f.error_kind}: {f.error_message}" for f in failed)]
    value = {
        **as_json(shown),
        "failures": [
            {
                "request": f.id,
                "domain": f.domain,
                "state": f.state,
                "kind": f.error_kind,
                "message": f.error_message,
            }
            for f in failed
        ],
    }
    session.show(value, "\n".join(lines))


@command.command(epilog="Example: hafs-tui campaign compare flash pro")
@click.argument("first")
@click.argument("second")
@in_workspace
async def compare(ws: Workspace, session: Session, first: str, second: str) -> None:
    """Two campaigns side by side: acceptance with its interval, duplicates, cost of an accepted sample."""
    from backend.generation.comparing import compare as compare_campaigns

    sides = await compare_campaigns(ws, first, second)
    rows = [
        (label, *(getattr(side, field) for side in sides))
        for label, field in (
            ("judged", "judged"), ("accepted", "accepted"), ("acceptance", "acceptance"),
            ("from (95 %)", "acceptance_low"), ("to (95 %)", "acceptance_high"), ("duplicates", "duplicates"),
            ("requests", "requests"), ("cost, $", "cost_usd"), ("$ for each accepted", "cost_per_accepted_usd"),
        )
    ]  # fmt: skip
    session.show({"campaigns": sides}, table(("", first, second), rows))


@command.command(epilog="Example: hafs-tui campaign rescore pilot")
@click.argument("name")
@in_workspace
async def rescore(ws: Workspace, session: Session, name: str) -> None:
    """Run the gates again over stored answers, without any request; reviewers' decisions stay."""
    from backend.generation.rescoring import rescore as rescore_campaign

    report = await rescore_campaign(ws, name)
    session.show(
        report,
        f"{report.judged} judged again: {report.now_pending} newly let in, {report.now_gated} newly turned away",
    )


@command.command(epilog="Example: hafs-tui campaign export pilot --output pilot.jsonl")
@click.argument("name")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Else training/NAME/samples.jsonl."
)
@in_workspace
async def export(ws: Workspace, session: Session, name: str, output: Path | None) -> None:
    """Write the accepted samples as JSONL in the origin's format."""
    from backend.generation import campaigns

    path, count = await campaigns.export(ws, name, output)
    session.show({"path": path, "rows": count}, f"{many(count, 'row')} in {path}")


@command.command(epilog="Example: hafs-tui campaign decisions pilot")
@click.argument("name")
@in_workspace
async def decisions(ws: Workspace, session: Session, name: str) -> None:
    """Why each request went where it went."""
    from backend.generation.campaigns import routing_decisions

    found = await routing_decisions(ws, name)
    rows = [(d.request_id, d.domain, d.provider, d.model, d.reason) for d in found]
    value = [
        {
            "request_id": d.request_id, "domain": d.domain, "ordinal": d.ordinal, "provider": d.provider,
            "model": d.model, "reason": d.reason, "reading": d.routing["reading"] if d.routing else None,
        }
        for d in found
    ]  # fmt: skip
    session.show({"decisions": value}, table(("request", "domain", "provider", "model", "reason"), rows))


def as_json(p: Progress) -> dict[str, Any]:
    """The campaign object of `CLI.md`, and more."""
    c = p.campaign
    return {
        "name": c.name, "state": c.state, "provider": c.provider, "model": c.model, "local": c.local,
        "priority": c.priority, "target": c.target,
        "accepted": p.accepted, "rejected": p.rejected, "requests": p.spent.requests,
        "answered": p.spent.answered, "failed": p.spent.failed, "possibly_charged": p.spent.unanswered,
        "cost_usd": p.spent.cost_usd, "projected_usd": p.projected_usd, "acceptance": p.acceptance,
        "rate": p.rate, "eta_s": p.eta_s, "eta_low_s": p.eta_low_s, "eta_high_s": p.eta_high_s,
        "owned": p.owned, "error": c.error,
        "domains": [{"name": d.domain, "target": d.target, "accepted": d.accepted, "rejected": d.rejected,
                     "exhausted": d.exhausted} for d in p.domains],
    }  # fmt: skip


def describe(p: Progress) -> str:
    """A campaign in a line, and a line for each domain."""
    c, eta = p.campaign, ""
    if p.eta_s is not None:
        eta = f", about {duration(p.eta_s)} left ({duration(p.eta_low_s)} to {duration(p.eta_high_s)})"
    lines = [
        f"{c.name}: {c.state}, {p.accepted}/{c.target} accepted, {p.rejected} rejected, {p.spent.requests} requests, "
        f"${p.spent.cost_usd:.4f}{eta}"
    ]
    lines += [
        f"  {d.domain}: {d.accepted}/{d.target}" + (" (seeds used up)" if d.exhausted else "")
        for d in p.domains
    ]
    if p.spent.unanswered:
        lines.append(f"  {p.spent.unanswered} requests got no answer and may have been charged")
    if c.error:
        lines.append(f"  {c.error}")
    return "\n".join(lines)
