"""The forms about dataset versions: build, import, check, export. Each answers with a sentence, or a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from backend.datasets.building import build
from backend.datasets.checking import CheckReport, check
from backend.datasets.exporting import Format, export_dataset
from backend.datasets.importing import import_dataset
from backend.settings import Workspace
from backend.store.campaigns import Campaign
from backend.store.datasets import DatasetVersion
from backend.store.samples import Filter
from hafs_tui.widgets.form import Answers, Field, Form, Kind


def build_form(ws: Workspace, campaigns: Sequence[Campaign]) -> Form[str]:
    """Freeze approved samples as the next version of a name."""
    fields = (
        Field("name", "Name", help="A name that is there already gets its next version."),
        Field("campaigns", "Campaigns", Kind.CHOICES, (), choices=[(one.name, one.name) for one in campaigns],
              required=False, help="None means all, and samples that were imported."),
        Field("domain", "Domain", required=False),
        Field("min_score", "Score at least", Kind.FLOAT, required=False),
        Field("seed", "Seed of the split", Kind.INT, 42),
    )  # fmt: skip

    async def make(answers: Answers) -> str:
        domain, least = answers.optional_text("domain"), answers.optional_number("min_score")
        filters = [
            Filter(campaign=campaign, domain=domain, states=("approved",), min_score=least)
            for campaign in (answers.several("campaigns") or (None,))
        ]
        return describe(await build(ws, answers.text("name"), filters, seed=answers.integer("seed")))

    return Form("Build a dataset", fields, make, send="Build")


def import_form(ws: Workspace) -> Form[str]:
    """Read a folder or file of rows as a version of its own."""
    fields = (
        Field(
            "path", "Folder or file", help="train.jsonl and its kin, or one JSONL file of any known format."
        ),
        Field("name", "Name", required=False, help="Empty: the folder's."),
        Field("seed", "Seed of the split", Kind.INT, 42, help="For a file; a folder's splits stay."),
    )

    async def bring(answers: Answers) -> str:
        version, report = await import_dataset(
            ws, _path(answers), answers.optional_text("name"), seed=answers.integer("seed")
        )
        return f"{describe(version)}; {report.bad:,} bad of {report.read:,} rows"

    return Form("Import a dataset", fields, bring, send="Import")


def check_form(ws: Workspace, versions: Sequence[DatasetVersion]) -> Form[CheckReport]:
    """Look for rows that leak between splits or from a benchmark."""
    fields = (_version_field(versions),)

    async def look(answers: Answers) -> CheckReport:
        return await check(ws, answers.text("version"))

    return Form("Check a dataset for leaks", fields, look, send="Check")


def export_form(ws: Workspace, versions: Sequence[DatasetVersion]) -> Form[str]:
    """Write the splits of a version as JSONL files."""
    fields = (
        _version_field(versions),
        Field("path", "Folder", default=str(ws.home / "exported")),
        Field("format", "Rows as", Kind.CHOICE, "origin", choices=[(one, one) for one in get_args(Format)]),
    )

    async def write(answers: Answers) -> str:
        form = next(one for one in get_args(Format) if one == answers.text("format"))
        counts = await export_dataset(ws, answers.text("version"), _path(answers), format=form)
        return (
            ", ".join(f"{count:,} {split}" for split, count in counts.items()) + f" in {answers.text('path')}"
        )

    return Form("Export a dataset", fields, write, send="Export")


def describe(version: DatasetVersion) -> str:
    """A version in one line."""
    return f"{version.name}@{version.version}: {version.train} train, {version.val} val, {version.test} test"


def report_lines(report: CheckReport) -> str:
    """What a check found, leak by leak."""
    looked = ", ".join(report.benchmarks) or "no benchmark"
    lines = [f"{report.rows:,} rows against each other and {looked}: {report.found:,} leaks", ""]
    if not report.hash_matches:
        lines += ["✗ the files were changed since they were frozen: build the dataset anew", ""]
    for leak in report.leaks:
        lines += [f"✗ {leak.kind} {leak.similarity:.2f}: {leak.split} line {leak.row}, {leak.where} line {leak.other}",
                  f"  {leak.text}"]  # fmt: skip
    return "\n".join(lines if not report.clean else [*lines, "✓ nothing leaks"])


def _version_field(versions: Sequence[DatasetVersion]) -> Field:
    choices = [(f"{one.name}@{one.version}", describe(one)) for one in versions]
    return Field("version", "Version", Kind.CHOICE, choices[0][0] if choices else None, choices=choices)


def _path(answers: Answers) -> Path:
    return Path(answers.text("path")).expanduser()
