"""The Hosts screen: what each host is and how busy, and the jobs that lie on it.

Readings change every second and are drawn as text in tables: one line each for use, memory, heat and power,
only while the screen is shown.
"""

from __future__ import annotations

import asyncio
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from backend.hosts.catalog import HostReport, add_host, gpu_lines, probe_host, remove_host
from backend.hosts.jobs import cancel_job, move_job
from backend.hosts.launching import launch_command
from backend.settings import HostSettings
from backend.store.jobs import Job
from hafs_tui import format as fmt
from hafs_tui.actions import Need
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.screens.job_log import JobLog
from hafs_tui.screens.training import JOB_TONES
from hafs_tui.snapshots.hosts import HostsSnapshot, read
from hafs_tui.widgets.code_view import Block, CodeView
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.form import Answers, Field, FieldError, Form, Kind
from hafs_tui.widgets.rows import RowView, Tone
from hafs_tui.widgets.sparkline import spark
from hafs_tui.widgets.table import Cell, Column, Row, Table
from remote import CPU_INDEX, HostKeyUnknown, Reading

_NOW_WIDTH, _LABEL_WIDTH = 15, 9


class HostsScreen(ModeScreen[HostsSnapshot]):
    """Jobs belong to their host and go on without this app; what is shown of them are their rows."""

    GROUP = "hosts"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("hosts")]
    DEFAULT_CSS = """
    HostsScreen #hosts { height: 1fr; min-height: 4; max-height: 10; }
    HostsScreen .middle { height: 2fr; min-height: 8; }
    HostsScreen #readings { width: 1fr; height: 1fr; }
    HostsScreen #host { width: 1fr; height: 1fr; border-left: solid $border-blurred; }
    HostsScreen #host:focus { border-left: solid $border; }
    HostsScreen #jobs { height: 1fr; min-height: 6; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._reports: dict[str, HostReport | str] = {}
        self._seen = (-1, "", 0)

    def body(self) -> ComposeResult:
        yield Table(
            [
                Column("Host", 16),
                Column("Where"),
                Column("Processor", 20),
                Column("Use", 6, "right"),
                Column("Memory GiB", 11, "right"),
                Column("Jobs", 4, "right"),
            ],
            id="hosts",
        )
        with Horizontal(classes="middle"):
            yield Table(
                [Column("Reading", _LABEL_WIDTH), Column("Last seconds"), Column("Now", _NOW_WIDTH, "right")],
                empty="No reading yet.",
                id="readings",
            )
            yield CodeView(id="host")
        yield Table(
            [
                Column("Job"),
                Column("Kind", 12),
                Column("State", 9),
                Column("Exit", 4, "right"),
                Column("Begun", 14, "right"),
                Column("Took", 12, "right"),
            ],
            empty="No job of ours on this host. c launches a command.",
            id="jobs",
        )

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(1.0, self._show_gauges)

    async def read(self) -> HostsSnapshot:
        return await read(self.ws, self.selected)

    def show(self, snapshot: HostsSnapshot) -> None:
        self._seen = (-1, "", 0)
        self._show_gauges()
        self._table("#jobs").set_rows([_job_row(job) for job in snapshot.jobs])
        self._show_host()

    def _table(self, selector: str) -> Table:
        return self.query_one(selector, Table)

    @property
    def selected(self) -> str | None:
        """The name of the host under the cursor."""
        key = self._table("#hosts").cursor_key
        return str(key) if key is not None else None

    @property
    def job(self) -> Job | None:
        """The job under the cursor."""
        key = self._table("#jobs").cursor_key
        found = self.snapshot.jobs if self.snapshot is not None else ()
        return next((job for job in found if job.id == key), None)

    def holds(self) -> set[Need]:
        holds: set[Need] = set()
        if self.selected is not None:
            holds.add(Need.HOST)
        if self.selected not in (None, "local"):
            holds.add(Need.HOST_AWAY)
        if self.job is not None:
            holds.add(Need.JOB)
            if not self.job.ended:
                holds.add(Need.JOB_ACTIVE)
            if self.job.position is not None:
                holds.add(Need.JOB_WAITS)
        return holds

    @on(RowView.Moved, "#hosts")
    def _moved(self) -> None:
        self._show_gauges()
        self._show_host()
        self.update_keys()
        if self.snapshot is not None and self.selected != self.snapshot.selected:
            self.read_again()

    @on(RowView.Moved, "#jobs")
    def _job_moved(self) -> None:
        self.update_keys()

    # Readings and the report

    def _show_gauges(self) -> None:
        readings, snapshot = self._table("#readings"), self.snapshot
        seen = (self.hafs.gauges.version, self.selected or "", readings.width)
        if not self.is_shown or snapshot is None or seen == self._seen:
            return
        self._seen = seen
        gauges = self.hafs.gauges
        latest = gauges.latest()
        self._table("#hosts").set_rows(
            [
                _host_row(name, host, [r for r in latest if r.host == name], gauges.problems.get(name),
                          snapshot.active.get(name, 0))
                for name, host in snapshot.hosts.items()
            ]
        )  # fmt: skip
        width = max(1, readings.width - _NOW_WIDTH - _LABEL_WIDTH - 4)
        own = [reading for reading in latest if reading.host == self.selected]
        rows = [row for r in own for row in _reading_rows(r, gauges.history(r.host, r.index), width)]
        readings.set_rows(rows)

    def _show_host(self) -> None:
        name = self.selected
        host = self.snapshot.hosts.get(name or "") if self.snapshot is not None else None
        if name is None or host is None:
            return
        blocks: list[Block] = []
        problem = self.hafs.gauges.problems.get(name)
        report = self._reports.get(name)
        if isinstance(report, HostReport):
            blocks.append(Block(f"{name}, as probed", "\n".join(_report_lines(report)), code=False))
        elif report is not None:
            blocks.append(Block(f"✗ {name} was not reached", report, code=False))
        elif problem is not None:
            blocks.append(Block("✗ no readings", problem, code=False))
        set_ = [
            f"{key}: {value}" for key, value in host.model_dump(mode="json", exclude_defaults=True).items()
        ]
        blocks.append(
            Block(f"{name} in hosts.toml", "\n".join(set_) or "this machine; p probes it", code=False)
        )
        self.query_one("#host", CodeView).set_blocks(blocks)

    # Actions

    def do_add(self) -> None:
        fields = (
            Field("name", "Name", help="What you call it."),
            Field("address", "Address", help="A name, an address, or an alias of ~/.ssh/config."),
            Field("user", "User", required=False, help="Empty: ~/.ssh/config's, or yours."),
            Field("port", "Port", Kind.INT, required=False, minimum=1, maximum=65535),
            Field("key", "Private key", required=False, help="A file; empty: the agent's and the usual ones."),
            Field("root", "Folder there", required=False, help="All of ours lies under it; empty: ~/.hafs."),
            Field("python", "Python there", required=False, help="The interpreter that has torch, trl and peft."),
        )  # fmt: skip

        async def add(answers: Answers) -> str:
            name, key = answers.text("name"), answers.optional_text("key")
            settings = HostSettings(
                kind="ssh", address=answers.text("address"), port=answers.optional_integer("port"),
                user=answers.optional_text("user"), key=Path(key) if key else None,
                root=answers.optional_text("root"), python=answers.optional_text("python"),
            )  # fmt: skip
            await asyncio.to_thread(add_host, self.ws, name, settings)
            await self.hafs.watch_hosts()
            self.read_again()
            return name

        def added(name: str | None) -> None:
            if name is not None:
                self._probe(name)

        self.app.push_screen(Form("Add a host", fields, add, send="Add"), added)

    def do_probe(self) -> None:
        if self.selected is not None:
            self._probe(self.selected)

    def _probe(self, name: str, *, accept_new: bool = False) -> None:
        self.tell(f"Asking {name} what it is …")
        self.work(self._probed(name, accept_new), group=f"probe {name}")

    async def _probed(self, name: str, accept_new: bool) -> None:
        """Keep what the host says, or why it says nothing; an unknown key is asked about."""
        try:
            self._reports[name] = await probe_host(self.ws, name, accept_new=accept_new)
        except HostKeyUnknown as unknown:
            self._reports[name] = str(unknown)
            self._ask_about_key(name, unknown.fingerprint)
        except Exception as error:
            self._reports[name] = self.hafs.explain(error)
            raise
        finally:
            self._show_host()
        if accept_new:
            await self.hafs.watch_hosts()

    def _ask_about_key(self, name: str, fingerprint: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._probe(name, accept_new=True)

        question = (
            f"Nobody has met {name} yet. It shows the key\n\n  {fingerprint}\n\nCompare it on the host itself: "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\nTrust this key from now on?"
        )
        self.app.push_screen(Confirm(question, "Trust it"), answered)

    def do_remove(self) -> None:
        name = self.selected
        if name is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.work(self._remove(name))

        self.app.push_screen(
            Confirm(f"Take {name} out of hosts.toml? What lies on it stays.", "Take it out"), answered
        )

    async def _remove(self, name: str) -> None:
        await asyncio.to_thread(remove_host, self.ws, name)
        self._reports.pop(name, None)
        await self.hafs.watch_hosts()
        self.read_again()

    def do_command(self) -> None:
        hosts = self.snapshot.hosts if self.snapshot is not None else {}
        fields = (
            Field("command", "Command", help="A program and its arguments; no shell reads them."),
            Field("host", "Host", Kind.CHOICE, self.selected or "local",
                  choices=[(name, name) for name in hosts]),
        )  # fmt: skip

        async def launch(answers: Answers) -> str:
            try:
                argv = shlex.split(answers.text("command"))
            except ValueError as error:
                raise FieldError("command", f"{error}") from error
            job = await launch_command(self.ws, answers.text("host"), argv)
            return f"{job.id} is launched on {job.host}"

        def launched(message: str | None) -> None:
            if message is not None:
                self.tell(message)
                self.read_again()

        self.app.push_screen(Form("Launch a command", fields, launch, send="Launch"), launched)

    def do_log(self) -> None:
        if self.job is not None:
            self.app.push_screen(JobLog(self.job.id))

    def do_sooner(self) -> None:
        self._move(-1)

    def do_later(self) -> None:
        self._move(1)

    def _move(self, by: int) -> None:
        """The host decides: what it refuses is told, and what it cannot be asked now it is asked later."""
        job = self.job
        if job is None or job.position is None:
            return
        job_id, position = job.id, max(1, job.position + by)

        async def moved() -> None:
            request = await move_job(self.ws, job_id, position)
            if request.state == "refused":
                self.tell(f"{job_id} is not moved: {request.reason}")
            elif request.state == "asked":
                self.tell(f"{job_id} is moved when its host is back")
            self.read_again()

        self.work(moved(), group=f"move {job_id}")

    def do_cancel(self) -> None:
        job = self.job
        if job is None:
            return
        job_id = job.id

        def answered(yes: bool | None) -> None:
            if yes:
                self.work(cancel_job(self.ws, job_id))

        self.app.push_screen(Confirm(f"Stop job {job_id} on {job.host}?", "Stop it"), answered)


def _host_row(
    name: str, host: HostSettings, readings: Sequence[Reading], problem: str | None, active: int
) -> Row:
    """A host in one line: its first processor, the mean use and the sum of memory of all of them."""
    where = (
        "this machine" if host.kind == "local" else f"{host.user + '@' if host.user else ''}{host.address}"
    )
    busy = [reading.utilization for reading in readings if reading.utilization is not None]
    used = [reading.memory_used_mib for reading in readings if reading.memory_used_mib is not None]
    total = [reading.memory_total_mib for reading in readings if reading.memory_total_mib is not None]
    stale = max((reading.stale_s for reading in readings), default=0.0)
    tone: Tone = "muted" if stale > 0 else ""
    device = "-"
    if problem is not None:
        device, tone = f"✗ {problem.splitlines()[0]}", "bad"
    elif stale > 0:
        device = f"{fmt.duration(stale)} old"
    elif readings:
        device = readings[0].name + (f" and {len(readings) - 1} more" if len(readings) > 1 else "")
    cells = (
        Cell(name, "strong"),
        Cell(where),
        Cell(device, tone),
        Cell(fmt.percent(sum(busy) / len(busy) / 100) if busy else "-", tone),
        Cell(f"{fmt.gib(sum(used))}/{fmt.gib(sum(total))}" if used and total else "-", tone),
        Cell(str(active) if active else "", "accent"),
    )
    return Row(name, cells)


def _reading_rows(reading: Reading, history: Sequence[Reading], width: int) -> list[Row]:
    """A processor as a line for each thing that it tells, with the last `width` readings drawn."""
    shown = history[-width:]
    tone: Tone = "muted" if reading.stale_s > 0 else ""
    name = "CPU" if reading.index == CPU_INDEX else f"GPU {reading.index}"
    use = fmt.percent(fmt.of(reading.utilization, 100))
    old = f" {fmt.duration(reading.stale_s)} old" if reading.stale_s > 0 else ""
    memory = f"{fmt.gib(reading.memory_used_mib)}/{fmt.gib(reading.memory_total_mib)} GiB"

    def row(label: str, values: Sequence[float | None], low: float, high: float | None, now: str) -> Row:
        bars = spark([math.nan if value is None else value for value in values], width, low=low, high=high)
        return Row((reading.index, label), (Cell(label), Cell(bars, "accent"), Cell(now, tone)))

    rows = [
        row(name, [one.utilization for one in shown], 0, 100, use + old),
        row(" memory", [one.memory_used_mib for one in shown], 0, reading.memory_total_mib or 1, memory),
    ]
    if reading.temperature_c is not None:
        now = f"{reading.temperature_c:.0f} °C"
        rows.append(row(" heat", [one.temperature_c for one in shown], 20, 100, now))
    if reading.power_w is not None:
        rows.append(row(" power", [one.power_w for one in shown], 0, None, f"{reading.power_w:.0f} W"))
    return rows


def _report_lines(report: HostReport) -> list[str]:
    probe = report.probe
    lines = [
        f"{probe.os} {probe.machine}, {probe.hostname}, as {probe.user}",
        f"Python {probe.python_version}: {probe.python}",
        f"{probe.cpus} CPUs, {fmt.size(probe.memory_bytes)} of memory",
        f"{fmt.size(probe.disk_free_bytes)} free under {probe.root}",
        f"answers in {probe.latency_s * 1000:.0f} ms, clock {probe.clock_skew_s:+.1f} s",
        *gpu_lines(report),
    ]
    if probe.gpu_problem:
        lines.append(f"no GPU: {probe.gpu_problem}")
    lines += [
        f"{'✓' if version else '✗'} {library} {version or 'missing'}"
        for library, version in report.libraries.items()
    ]
    return [*lines, report.remedy] if report.remedy else lines


def _job_row(job: Job) -> Row:
    took = (job.ended_at - job.started_at) if job.ended_at and job.started_at else None
    cells = (
        Cell(job.id, "strong"),
        Cell(job.kind),
        Cell(f"{job.state} {job.position}" if job.position else job.state, JOB_TONES.get(job.state, "")),
        Cell("" if job.exit_code is None else str(job.exit_code), "bad" if job.exit_code else ""),
        Cell(fmt.ago(job.created_at), "muted"),
        Cell(fmt.duration(took) if job.ended else ""),
    )
    return Row(job.id, cells)
