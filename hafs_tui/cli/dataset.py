"""`hafs-tui dataset`: build, list, show, check, import, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hafs_tui.cli.groups import Group
from hafs_tui.cli.samples import FORMATS, STATES, make_filter
from hafs_tui.cli.support import EXIT_REFUSED, Session, facts, in_workspace, many, table

if TYPE_CHECKING:
    from backend.settings import Workspace
    from backend.store.datasets import DatasetVersion


@click.group(cls=Group, epilog="Example: hafs-tui dataset build pilot --campaign flash --campaign pro")
def command() -> None:
    """Freeze samples into dataset versions."""


def as_json(d: DatasetVersion) -> dict[str, Any]:
    return {
        "id": d.id, "name": d.name, "version": d.version, "path": d.path, "content_hash": d.content_hash,
        "seed": d.seed, "train": d.train, "val": d.val, "test": d.test, "created_at": d.created_at,
    }  # fmt: skip


def _line(d: DatasetVersion) -> str:
    return f"{d.name}@{d.version}: {d.train} train, {d.val} val, {d.test} test in {d.path}"


@command.command(epilog="Example: hafs-tui dataset build pilot --campaign flash --state approved --seed 7")
@click.argument("name")
@click.option("--campaign", "campaigns", multiple=True, help="Of these campaigns; of all where left out.")
@click.option("--domain", help="Only this domain.")
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Else approved.")
@click.option("--min-score", type=float, help="Only samples with at least this score.")
@click.option("--seed", type=int, default=42, show_default=True, help="Seed of the split.")
@in_workspace
async def build(
    ws: Workspace, session: Session, name: str, campaigns: tuple[str, ...], domain: str | None, states: tuple[str, ...],
    min_score: float | None, seed: int,
) -> None:  # fmt: skip
    """Freeze approved samples into train, val and test; a family is never parted."""
    from backend.datasets.building import build as build_dataset

    filters = [await make_filter(ws, c, domain, states, min_score) for c in (campaigns or (None,))]
    version = await build_dataset(ws, name, filters, seed=seed)
    session.show(as_json(version), _line(version))


@command.command("list", epilog="Example: hafs-tui dataset list")
@in_workspace
async def list_(ws: Workspace, session: Session) -> None:
    """Every dataset version, newest first."""
    from backend.datasets.catalog import versions

    found = await versions(ws)
    rows = [(f"{d.name}@{d.version}", d.train, d.val, d.test, d.content_hash[:12], d.path) for d in found]
    session.show(
        [as_json(d) for d in found], table(("version", "train", "val", "test", "content", "path"), rows)
    )


@command.command(epilog="Example: hafs-tui dataset show pilot@2")
@click.argument("reference")
@in_workspace
async def show(ws: Workspace, session: Session, reference: str) -> None:
    """One dataset version with its statistics."""
    from backend.datasets.catalog import show as show_dataset

    shown = await show_dataset(ws, reference)
    lines = [_line(shown.version), f"content {shown.version.content_hash}"]
    lines.append(facts(shown.stats, "  "))
    lines += [f"  missing: {part}" for part in shown.missing]
    session.show({**as_json(shown.version), "stats": shown.stats, "missing": shown.missing}, "\n".join(lines))


@command.command(epilog="Example: hafs-tui dataset check pilot")
@click.argument("reference")
@click.option(
    "--benchmark",
    "benchmarks",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Else all known.",
)
@in_workspace
async def check(ws: Workspace, session: Session, reference: str, benchmarks: tuple[Path, ...]) -> None:
    """Look for rows that leak between the splits or from a benchmark; exit 3 where there are any."""
    from backend.datasets.checking import check as check_dataset

    report = await check_dataset(ws, reference, benchmarks=benchmarks or None)
    lines = [f"{report.name}@{report.version}: {many(report.rows, 'row')}, {many(report.found, 'leak')}"]
    lines += [
        f"  {leak.kind} {leak.similarity:.2f}: {leak.split}:{leak.row} and {leak.where}:{leak.other}"
        for leak in report.leaks
    ]
    if not report.hash_matches:
        lines.append("  the files were changed since they were frozen: build the dataset anew")
    session.show(report, "\n".join(lines))
    if not report.clean:
        sys.exit(EXIT_REFUSED)


@command.command(
    "import", epilog="Example: hafs-tui dataset import ~/.context/training/datasets/alttp_20251221_101500"
)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Else the folder's name.")
@click.option(
    "--seed", type=int, default=42, show_default=True, help="Seed of the split, where there is none."
)
@in_workspace
async def import_(ws: Workspace, session: Session, path: Path, name: str | None, seed: int) -> None:
    """Read a dataset folder or a JSONL file of any known format into a version of its own."""
    from backend.datasets.importing import import_dataset

    version, report = await import_dataset(ws, path, name, seed=seed)
    text = f"{_line(version)}\n{report.inserted} new, {report.known} known, {report.bad} bad of {report.read} rows"
    session.show({**as_json(version), "report": report}, text)


@command.command(epilog="Example: hafs-tui dataset export pilot ./out --format trl")
@click.argument("reference")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="origin",
    show_default=True,
    help="Of the rows.",
)
@in_workspace
async def export(ws: Workspace, session: Session, reference: str, folder: Path, format_: Any) -> None:
    """Write a version's splits as JSONL files."""
    from backend.datasets.exporting import export_dataset

    counts = await export_dataset(ws, reference, folder, format=format_)
    session.show(
        {"path": folder, **counts}, f"{', '.join(f'{n} {split}' for split, n in counts.items())} in {folder}"
    )
