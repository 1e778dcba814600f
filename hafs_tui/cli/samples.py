"""`hafs-tui samples`: list, show, search, approve, reject, edit, undo, import, export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.support import Failed, Session, in_workspace, many, table

if TYPE_CHECKING:
    from backend.review.bulk import BulkKind
    from backend.settings import Workspace
    from backend.store.samples import Filter

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = ("origin", "messages", "trl", "trl_plain")
STATES = ("pending", "approved", "rejected", "flagged", "gated")


def filter_options(function: F) -> F:
    """The filters that list, search and export share."""
    for option in (
        click.option("--min-score", type=float, help="Only samples with at least this score."),
        click.option(
            "--state", "states", type=click.Choice(STATES), multiple=True, help="May be given several times."
        ),
        click.option("--domain", help="Only this domain."),
        click.option("--campaign", help="Only this campaign."),
    ):
        function = option(function)
    return function


async def make_filter(
    ws: Workspace,
    campaign: str | None,
    domain: str | None,
    states: tuple[str, ...],
    min_score: float | None,
    text: str | None = None,
) -> Filter:
    """The filter of the flags. Raises CampaignError for a campaign that is not there."""
    from backend.generation.campaigns import named
    from backend.store.samples import Filter

    if campaign is not None:
        await named(ws, campaign)
    return Filter(campaign=campaign, domain=domain, states=states, min_score=min_score, text=text)  # type: ignore[arg-type]


@click.group(cls=Group, epilog="Example: hafs-tui samples list --campaign pilot --state pending")
def command() -> None:
    """Review samples."""


async def _list(ws: Workspace, session: Session, filters: Filter, limit: int) -> None:
    from backend.review.card import as_json, cards
    from backend.review.queues import ids

    found = await ids(ws, filters)
    shown = await cards(ws, found[:limit])
    rows = [
        (c.sample.id, c.sample.state, c.sample.domain, c.sample.instruction[:50], c.sample.output[:40])
        for c in shown
    ]
    text = table(("id", "state", "domain", "instruction", "output"), rows)
    if len(found) > limit:
        text += f"\n{len(found) - limit} more; see them with --limit {len(found)}"
    session.show([as_json(c) for c in shown], text)


@command.command("list", epilog="Example: hafs-tui samples list --state pending --limit 20")
@filter_options
@click.option("--limit", default=50, show_default=True, help="Most samples shown, newest first.")
@in_workspace
async def list_(
    ws: Workspace, session: Session, campaign: str | None, domain: str | None, states: tuple[str, ...],
    min_score: float | None, limit: int,
) -> None:  # fmt: skip
    """Samples, newest first."""
    await _list(ws, session, await make_filter(ws, campaign, domain, states, min_score), limit)


@command.command(epilog="Example: hafs-tui samples search 'direct page'")
@click.argument("text")
@filter_options
@click.option("--limit", default=50, show_default=True, help="Most samples shown, newest first.")
@in_workspace
async def search(
    ws: Workspace, session: Session, text: str, campaign: str | None, domain: str | None, states: tuple[str, ...],
    min_score: float | None, limit: int,
) -> None:  # fmt: skip
    """Samples that hold these words, newest first."""
    await _list(ws, session, await make_filter(ws, campaign, domain, states, min_score, text), limit)


@command.command(epilog="Example: hafs-tui samples show 17")
@click.argument("sample_id", type=int)
@in_workspace
async def show(ws: Workspace, session: Session, sample_id: int) -> None:
    """One sample with its gates, where it came from, its revisions and decisions."""
    from backend.review.card import as_json, card

    c = await card(ws, sample_id)
    s = c.sample
    lines = [f"sample {s.id} ({s.uid}): {s.state}, {s.domain}, family {s.family}, revision {s.revision}"]
    if c.provenance is not None:
        lines.append(f"from {c.provenance.provider}/{c.provenance.model}, request {c.provenance.request_id}")
    marks = {True: "passed", False: "FAILED", None: "not run"}
    lines += [f"  gate {g.name}: {marks[g.passed]}: {g.reason}" for g in c.gates]
    lines += [
        f"  {d.kind} by {d.reviewer} ({d.reviewer_kind}){': ' + d.reason if d.reason else ''}"
        for d in c.decisions
    ]
    lines += ["", "instruction:", s.instruction]
    lines += ["", "input:", s.input] if s.input else []
    lines += ["", "output:", s.output]
    session.show(as_json(c), "\n".join(lines))


async def _known(ws: Workspace, ids: tuple[int, ...]) -> None:
    """An unknown sample is told before any is decided."""
    from backend.review.card import card

    for sample_id in ids:
        await card(ws, sample_id)


def bulk_options(function: F) -> F:
    """Ids, or all that a filter shows."""
    for option in (
        click.option("--dry-run", is_flag=True, help="With --all: only count."),
        click.option("--text", help="With --all: only samples that hold these words."),
        filter_options,
        click.option(
            "--all",
            "everything",
            is_flag=True,
            help="All that the filter shows; without --state only what is pending.",
        ),
        click.argument("ids", type=int, nargs=-1),
    ):
        function = option(function)
    return function


async def _decide_all(
    ws: Workspace, session: Session, kind: BulkKind, filters: Filter, reason: str | None, dry_run: bool
) -> None:
    from backend.review.bulk import approve_by_policy, matching, policy_of, reject_by_policy

    done = "approved" if kind == "approve" else "rejected"
    if dry_run:
        count = await matching(ws, filters, kind)
        session.show({"would_decide": count}, f"{many(count, 'sample')} would be {done}; nothing was changed")
        return
    if kind == "approve":
        bulk = await approve_by_policy(ws, filters, policy_of(ws))
    else:
        bulk = await reject_by_policy(ws, filters, policy_of(ws), reason or "by filter")
    back = f"; take it back with: hafs-tui samples undo-bulk {bulk.id}" if bulk.count else ""
    session.show({"bulk": bulk.id, "decided": bulk.count}, f"{many(bulk.count, 'sample')} {done}{back}")


def _one_of(ids: tuple[int, ...], everything: bool, dry_run: bool, filtered: bool) -> None:
    if bool(ids) == everything:
        raise click.UsageError("give ids, or --all with a filter")
    if ids and (dry_run or filtered):
        raise click.UsageError("a filter, --text and --dry-run go with --all")


@command.command(epilog="Example: hafs-tui samples approve 17 18 19")
@bulk_options
@in_workspace
async def approve(
    ws: Workspace, session: Session, ids: tuple[int, ...], everything: bool, campaign: str | None,
    domain: str | None, states: tuple[str, ...], min_score: float | None, text: str | None, dry_run: bool,
) -> None:  # fmt: skip
    """Approve samples: some by their ids, or --all that a filter shows."""
    from backend.review.deciding import approve as decide

    filters = await make_filter(ws, campaign, domain, states, min_score, text)
    _one_of(ids, everything, dry_run, filters != await make_filter(ws, None, None, (), None))
    if everything:
        await _decide_all(ws, session, "approve", filters, None, dry_run)
        return
    await _known(ws, ids)
    made = [await decide(ws, sample_id) for sample_id in ids]
    session.show([{"id": d.sample_id, "state": d.state_after} for d in made], f"{len(made)} approved")


@command.command(epilog="Example: hafs-tui samples reject 17 --reason 'wrong register'")
@bulk_options
@click.option("--reason", help="Why; kept with the decision.")
@in_workspace
async def reject(
    ws: Workspace, session: Session, ids: tuple[int, ...], everything: bool, campaign: str | None,
    domain: str | None, states: tuple[str, ...], min_score: float | None, text: str | None, dry_run: bool,
    reason: str | None,
) -> None:  # fmt: skip
    """Reject samples: some by their ids, or --all that a filter shows."""
    from backend.review.deciding import reject as decide

    filters = await make_filter(ws, campaign, domain, states, min_score, text)
    _one_of(ids, everything, dry_run, filters != await make_filter(ws, None, None, (), None))
    if everything:
        await _decide_all(ws, session, "reject", filters, reason, dry_run)
        return
    await _known(ws, ids)
    made = [await decide(ws, sample_id, reason) for sample_id in ids]
    session.show([{"id": d.sample_id, "state": d.state_after} for d in made], f"{len(made)} rejected")


@command.command("undo-bulk", epilog="Example: hafs-tui samples undo-bulk")
@click.argument("bulk_id", type=int, required=False)
@in_workspace
async def undo_bulk(ws: Workspace, session: Session, bulk_id: int | None) -> None:
    """Take back one decision about all that a filter showed: BULK_ID, or the last one that stands."""
    from backend.review.bulk import bulk_by_id, last_bulk
    from backend.review.bulk import undo_bulk as take_back

    bulk = await last_bulk(ws) if bulk_id is None else await bulk_by_id(ws, bulk_id)
    if bulk is None:
        session.show({"undone": 0}, "there is no bulk decision to take back")
        return
    count = await take_back(ws, bulk)
    session.show(
        {"bulk": bulk.id, "undone": count}, f"{many(count, 'decision')} of bulk {bulk.id} taken back"
    )


@command.command(epilog="Example: hafs-tui samples flag 17 --reason 'ask someone'")
@click.argument("ids", type=int, nargs=-1, required=True)
@click.option("--reason", help="Why; kept with the decision.")
@in_workspace
async def flag(ws: Workspace, session: Session, ids: tuple[int, ...], reason: str | None) -> None:
    """Set samples aside for a closer look."""
    from backend.review.deciding import flag as decide

    await _known(ws, ids)
    made = [await decide(ws, sample_id, reason) for sample_id in ids]
    session.show([{"id": d.sample_id, "state": d.state_after} for d in made], f"{len(made)} flagged")


@command.command(epilog="Example: hafs-tui samples skip 17")
@click.argument("ids", type=int, nargs=-1, required=True)
@in_workspace
async def skip(ws: Workspace, session: Session, ids: tuple[int, ...]) -> None:
    """Pass samples by for now; their state stays."""
    from backend.review.deciding import skip as decide

    await _known(ws, ids)
    made = [await decide(ws, sample_id) for sample_id in ids]
    session.show([{"id": d.sample_id, "state": d.state_after} for d in made], f"{len(made)} skipped")


@command.command(epilog="Example: hafs-tui samples rate 17 4")
@click.argument("sample_id", type=int)
@click.argument("rating", type=click.IntRange(1, 5))
@in_workspace
async def rate(ws: Workspace, session: Session, sample_id: int, rating: int) -> None:
    """Give a sample 1 to 5; its state stays."""
    from backend.review.deciding import rate as decide

    made = await decide(ws, sample_id, rating)
    session.show(
        {"id": sample_id, "rating": rating, "state": made.state_after},
        f"sample {sample_id} is rated {rating}",
    )


@command.command(epilog="Example: hafs-tui samples edit 17 --output 'LDA #$12'")
@click.argument("sample_id", type=int)
@click.option("--instruction", help="The new instruction.")
@click.option("--input", "input_text", help="The new input.")
@click.option("--output", help="The new output. With none of the three, $EDITOR opens on the output.")
@in_workspace
async def edit(
    ws: Workspace, session: Session, sample_id: int, instruction: str | None, input_text: str | None, output: str | None
) -> None:  # fmt: skip
    """Make a new revision of a sample; the one before stays."""
    from backend.review.card import card
    from backend.review.deciding import edit as decide

    if instruction is None and input_text is None and output is None:
        before = (await card(ws, sample_id)).sample.output
        output = click.edit(before)
        if output is None:
            raise Failed("the editor was left without saving; nothing was changed")
        output = output.rstrip("\n")
    made = await decide(ws, sample_id, instruction=instruction, input=input_text, output=output)
    session.show(
        {"id": sample_id, "revision": made.revision_after, "state": made.state_after},
        f"sample {sample_id} is at revision {made.revision_after}",
    )


@command.command(epilog="Example: hafs-tui samples undo 3")
@click.argument("count", type=click.IntRange(min=1), default=1)
@in_workspace
async def undo(ws: Workspace, session: Session, count: int) -> None:
    """Take back your last decisions, the newest first."""
    from backend.review.deciding import undo as take_back

    undone = await take_back(ws, count)
    text = "\n".join(f"sample {d.sample_id} is {d.state_after} again" for d in undone) or "nothing to undo"
    session.show([{"id": d.sample_id, "state": d.state_after} for d in undone], text)


@command.command(epilog="Example: hafs-tui samples redo 3")
@click.argument("count", type=click.IntRange(min=1), default=1)
@in_workspace
async def redo(ws: Workspace, session: Session, count: int) -> None:
    """Do again what you took back, as long as you decided nothing else since."""
    from backend.review.deciding import redo as do_again

    done = await do_again(ws, count)
    text = "\n".join(f"sample {d.sample_id} is {d.state_after} again" for d in done) or "nothing to redo"
    session.show([{"id": d.sample_id, "state": d.state_after} for d in done], text)


@command.command("guidelines", epilog="Example: hafs-tui samples guidelines")
@click.argument("version", required=False)
@in_workspace
async def guidelines_(ws: Workspace, session: Session, version: str | None) -> None:
    """What samples are judged by now, or the VERSION that a decision was made by."""
    from backend.review.guidelines import current, kept

    now = current(ws)
    text = now.text if version is None else await kept(ws.db, version)
    session.show({"version": version or now.hash, "text": text}, text)


@command.command("import", epilog="Example: hafs-tui samples import ~/.context/training/pilot/samples.jsonl")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--domain", help="For rows that name none.")
@click.option("--approve", is_flag=True, help="Take the rows as approved.")
@in_workspace
async def import_(ws: Workspace, session: Session, path: Path, domain: str | None, approve: bool) -> None:
    """Read rows of any known format; what is there already stays, bad lines are set aside."""
    from backend.datasets.importing import import_samples

    report = await import_samples(ws, path, domain=domain, approve=approve)
    lines = [f"{report.inserted} new, {report.known} known, {report.bad} bad of {report.read} rows of {path}"]
    lines += [f"  line {p.line}: {p.reason}" for p in report.problems[:20]]
    if report.quarantine is not None:
        lines.append(f"bad lines are kept in {report.quarantine}")
    session.show(report, "\n".join(lines))


@command.command(epilog="Example: hafs-tui samples export approved.jsonl --state approved")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@filter_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="origin",
    show_default=True,
    help="Of the rows.",
)
@in_workspace
async def export(
    ws: Workspace, session: Session, path: Path, campaign: str | None, domain: str | None, states: tuple[str, ...],
    min_score: float | None, format_: Any,
) -> None:  # fmt: skip
    """Write samples as JSONL."""
    from backend.datasets.exporting import export_samples

    count = await export_samples(
        ws, path, await make_filter(ws, campaign, domain, states, min_score), format=format_
    )
    session.show({"path": path, "rows": count}, f"{many(count, 'row')} in {path}")
