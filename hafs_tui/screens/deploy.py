"""The Deploy screen: from a model of the registry to answers, with a chat to hear them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from backend.contract.events import Progress, Record
from backend.deployment.folders import deploy_folder
from backend.deployment.gate import Terms, gate_words
from backend.deployment.gguf import convert_to_gguf
from backend.deployment.merging import merge_adapter
from backend.deployment.ollama import deploy_ollama
from backend.deployment.rollback import rollback, serve_again
from backend.deployment.serving import ServedModel, serve_until_stopped, stop
from backend.deployment.vllm import deploy_vllm
from backend.hosts.catalog import list_hosts
from backend.registry.references import resolve
from backend.settings import HostSettings, Workspace
from backend.store.deployments import Deployment
from backend.store.models import Model
from hafs_tui import format as fmt
from hafs_tui.actions import Need
from hafs_tui.mode_screen import ModeScreen, mode_keys
from hafs_tui.screens.conversation import ChatPane, can_talk
from hafs_tui.snapshots.deploy import CHECKED_EVERY_S, DeployReader, DeploySnapshot
from hafs_tui.widgets.code_view import Block, CodeView
from hafs_tui.widgets.confirm import Confirm
from hafs_tui.widgets.form import Answers, Field, FieldError, Form, Kind
from hafs_tui.widgets.rows import RowView, Tone
from hafs_tui.widgets.table import Cell, Column, Row, Table

STATE_TONES: Mapping[str, Tone] = {
    "starting": "accent", "serving": "good", "published": "good", "failed": "bad", "stopped": "muted",
    "replaced": "muted",
}  # fmt: skip
OUTTYPES = ("f16", "q8_0", "bf16", "f32")


class DeployScreen(ModeScreen[DeploySnapshot]):
    """What takes long (merging, converting, serving) goes on in the background of this app."""

    GROUP = "deploy"
    BINDINGS: ClassVar[list[BindingType]] = [*mode_keys("deploy")]
    DEFAULT_CSS = """
    DeployScreen .top { height: 1fr; min-height: 6; max-height: 14; }
    DeployScreen #models { width: 3fr; height: 1fr; }
    DeployScreen #lineage { width: 2fr; height: 1fr; border-left: solid $border-blurred; }
    DeployScreen #lineage:focus { border-left: solid $border; }
    DeployScreen #deployments { height: 1fr; min-height: 5; max-height: 10; }
    DeployScreen ChatPane { height: 1fr; min-height: 8; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._reader = DeployReader()
        self._under_way: dict[str, str] = {}

    def body(self) -> ComposeResult:
        with Horizontal(classes="top"):
            yield Table(
                [Column("Model"), Column("Kind", 7), Column("Host", 8), Column("Size", 9, "right")],
                empty="No model yet: 5 opens Training.",
                id="models",
            )
            yield CodeView(id="lineage")
        yield Table(
            [
                Column("Deployment", 18),
                Column("v", 3, "right"),
                Column("Kind", 6),
                Column("State", 9),
                Column("Model"),
                Column("Where", 24),
            ],
            empty="Nothing is deployed. n serves a GGUF, f writes a folder, o makes an Ollama tag.",
            id="deployments",
        )
        key = self.hafs.keymap.shown("deploy.chat")
        yield ChatPane(f"{key} writes to the selected deployment, Enter sends, Esc leaves")

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(CHECKED_EVERY_S, self._check_again)

    def _check_again(self) -> None:
        if self.is_shown:
            self.read_again()

    async def read(self) -> DeploySnapshot:
        key = self._table("#models").cursor_key
        return await self._reader.read(self.ws, str(key) if key is not None else None)

    def show(self, snapshot: DeploySnapshot) -> None:
        self._table("#models").set_rows([_model_row(model) for model in snapshot.models])
        self._table("#deployments").set_rows([_deployment_row(one) for one in snapshot.deployments])
        self._show_lineage()

    def _table(self, selector: str) -> Table:
        return self.query_one(selector, Table)

    @property
    def model(self) -> Model | None:
        """The model under the cursor."""
        key = self._table("#models").cursor_key
        found = self.snapshot.models if self.snapshot is not None else ()
        return next((model for model in found if model.name == key), None)

    @property
    def deployment(self) -> Deployment | None:
        """The deployment under the cursor."""
        key = self._table("#deployments").cursor_key
        found = self.snapshot.deployments if self.snapshot is not None else ()
        return next((one for one in found if one.id == key), None)

    def holds(self) -> set[Need]:
        holds: set[Need] = set()
        if self.model is not None:
            holds.add(Need.MODEL)
            if self.model.kind == "adapter":
                holds.add(Need.ADAPTER)
        deployment = self.deployment
        if deployment is None:
            return holds
        holds.add(Need.DEPLOYMENT)
        if deployment.state in ("starting", "serving", "published"):
            holds.add(Need.DEPLOYMENT_RUNS)
        if can_talk(deployment):
            holds.add(Need.DEPLOYMENT_TALKS)
        if self._chat.has_reply:
            holds.add(Need.REPLY)
        return holds

    @on(RowView.Moved, "#models")
    def _model_moved(self) -> None:
        self.update_keys()
        self.read_again()

    @on(RowView.Moved, "#deployments")
    def _deployment_moved(self) -> None:
        self.update_keys()
        self._show_lineage()

    def _show_lineage(self) -> None:
        blocks = [Block(f"{name} …", words, code=False) for name, words in self._under_way.items()]
        deployment = self.deployment
        if deployment is not None and deployment.error:
            blocks.append(Block(f"✗ {deployment.name} v{deployment.version}", deployment.error, code=False))
        if deployment is not None and (words := gate_words(deployment.details)):
            blocks.append(Block(f"{deployment.name} v{deployment.version}", words, code=False))
        found = self.snapshot.lineage if self.snapshot is not None else None
        if found is not None:
            steps = [
                f"{step.kind} {step.name}" + (f": {step.detail}" if step.detail else "")
                for step in found.steps
            ]
            blocks.append(Block(f"{found.subject} comes from", "\n".join(steps), code=False))
        self.query_one("#lineage", CodeView).set_blocks(blocks, keep_position=True)

    # Work in the background

    def _in_background(self, name: str, job: Coroutine[Any, Any, str]) -> None:
        """Do a long piece of work whose result is a sentence. Raises FieldError where it is under way already."""
        self._under_way[name] = "under way"

        async def work() -> None:
            try:
                self.tell(await job)
            finally:
                self._under_way.pop(name, None)

        if not self.hafs.background.start(name, work()):
            job.close()
            raise FieldError("model", f"{name} is under way already")
        self.read_again()

    def _on_event(self, name: str) -> Callable[[Record], None]:
        def told(record: Record) -> None:
            if isinstance(record.event, Progress):
                event = record.event
                self._say_progress(name, event.what, event.done, event.total)

        return told

    def _say_progress(self, name: str, what: str, done: int, total: int) -> None:
        self._under_way[name] = f"{what} {fmt.percent(done / total)}" if total else what
        if self.is_shown:
            self._show_lineage()

    def _model_field(self) -> Field:
        return Field(
            "model", "Model", default=self.model.name if self.model is not None else "",
            help="A name of the registry, run:NAME, path:FOLDER or gguf:FILE.",
        )  # fmt: skip

    def _reason_fields(self) -> tuple[Field, ...]:
        """What overrides the gate; each reason is kept with the deployment."""
        return (
            Field("unevaluated", "Unevaluated, because", required=False, help="Without a comparison it is refused."),
            Field("allow_worse", "Worse, because", required=False, help="What a comparison calls worse is refused."),
            Field("allow_template", "Another template, because", required=False,
                  help="What differs from the training is refused."),
        )  # fmt: skip

    def _ask(
        self, title: str, fields: tuple[Field, ...], build: Callable[[Answers], Coroutine[Any, Any, None]]
    ) -> None:
        self.app.push_screen(Form(title, fields, build), lambda _: self.read_again())

    def do_serve(self) -> None:
        fields = (
            self._model_field(),
            Field("name", "Name", default="helper", help="A name that is there already gets its next version."),
            Field("outtype", "Numbers", Kind.CHOICE, "f16", choices=[(one, one) for one in OUTTYPES],
                  help="For what has to be converted first."),
            *self._reason_fields(),
        )  # fmt: skip

        async def start(answers: Answers) -> None:
            await resolve(self.ws, answers.text("model"))
            name = answers.text("name")
            title = f"serving {name}"

            def ready(served: ServedModel) -> None:
                self._under_way.pop(title, None)
                self.tell(f"{name} answers at {served.endpoint}")

            async def serve() -> str:
                ended = await serve_until_stopped(
                    self.ws, answers.text("model"), name=name, outtype=answers.text("outtype"), on_ready=ready,
                    terms=_terms(answers), on_event=self._on_event(title),
                )  # fmt: skip
                return f"{name} is {ended.state}"

            self._in_background(title, serve())

        self._ask("Serve a model from this app", fields, start)

    def do_folder(self) -> None:
        fields = (
            self._model_field(),
            Field("folder", "Folder", default=str(self.ws.home / "deployed" / (self.model.name if self.model else "")),
                  help="Of this machine. The version before is kept beside it."),
            Field("name", "Name", required=False, help="Empty: the folder's."),
            *self._reason_fields(),
        )  # fmt: skip

        async def start(answers: Answers) -> None:
            await resolve(self.ws, answers.text("model"))
            title = f"folder of {answers.text('model')}"

            async def deploy() -> str:
                made = await deploy_folder(
                    self.ws, answers.text("model"), Path(answers.text("folder")), name=answers.optional_text("name"),
                    terms=_terms(answers), on_event=self._on_event(title),
                )  # fmt: skip
                return f"{made.name} v{made.version} lies in {answers.text('folder')}"

            self._in_background(title, deploy())

        self._ask("A Hugging Face folder", fields, start)

    def do_ollama(self) -> None:
        self.work(asyncio.to_thread(list_hosts, self.ws), self._ask_ollama)

    def _ask_ollama(self, hosts: Mapping[str, HostSettings]) -> None:
        fields = (
            self._model_field(),
            Field("tag", "Tag", help="As in hafs-coder:14b."),
            Field("host", "Host", Kind.CHOICE, "local", choices=[(name, name) for name in hosts],
                  help="Whose Ollama; another host's is reached through its SSH."),
            Field("base_url", "Or an address", required=False, help="Empty: the host's own, or the settings'."),
            Field("name", "Name", required=False, help="Of the deployment; empty: the tag."),
            Field("system", "System text", Kind.LONG_TEXT, "", required=False),
            *self._reason_fields(),
        )  # fmt: skip

        async def start(answers: Answers) -> None:
            await resolve(self.ws, answers.text("model"))
            title = f"Ollama {answers.text('tag')}"

            async def deploy() -> str:
                made = await deploy_ollama(
                    self.ws, answers.text("model"), answers.text("tag"), host=answers.text("host"),
                    base_url=answers.optional_text("base_url"),
                    name=answers.optional_text("name"), system=answers.text("system"),
                    terms=_terms(answers),
                    on_progress=lambda what, done, total: self._say_progress(title, what, done, total),
                    on_event=self._on_event(title),
                )  # fmt: skip
                return f"{made.name} v{made.version} is made"

            self._in_background(title, deploy())

        self._ask("Create an Ollama model", fields, start)

    def do_vllm(self) -> None:
        self.work(asyncio.to_thread(list_hosts, self.ws), self._ask_vllm)

    def _ask_vllm(self, hosts: Mapping[str, HostSettings]) -> None:
        fields = (
            self._model_field(),
            Field("name", "Name", default="helper", help="Of the deployment, and the model's name in its answers."),
            Field("host", "Host", Kind.CHOICE, "local", choices=[(name, name) for name in hosts],
                  help="It listens on that host's loopback; vLLM does not run on native Windows."),
            Field("program", "vLLM's path", required=False, help="Empty: beside the host's Python, or on its PATH."),
            *self._reason_fields(),
        )  # fmt: skip

        async def start(answers: Answers) -> None:
            await resolve(self.ws, answers.text("model"))
            name = answers.text("name")

            async def deploy() -> str:
                made = await deploy_vllm(
                    self.ws, answers.text("model"), host=answers.text("host"), name=name,
                    program=answers.text("program"), terms=_terms(answers),
                )  # fmt: skip
                return f"{made.name} v{made.version} is served by vLLM on {made.host}"

            self._in_background(f"vLLM {name}", deploy())

        self._ask("Serve a model by vLLM", fields, start)

    def do_merge(self) -> None:
        model = self.model
        if model is not None:
            title = f"merging {model.name}"
            self._try(title, self._merged(model.name, title))

    async def _merged(self, name: str, title: str) -> str:
        made = await merge_adapter(self.ws, name, on_event=self._on_event(title))
        return f"{made.name} lies in {made.location} on {made.host}"

    def do_convert(self) -> None:
        model = self.model
        if model is not None:
            title = f"converting {model.name}"
            self._try(title, self._converted(model.name, title))

    async def _converted(self, name: str, title: str) -> str:
        made = await convert_to_gguf(self.ws, name, on_event=self._on_event(title))
        return f"{made.name} is {made.location} on {made.host}"

    def _try(self, title: str, job: Coroutine[Any, Any, str]) -> None:
        try:
            self._in_background(title, job)
        except FieldError as error:
            self.tell(str(error))

    # Deployments

    def do_stop(self) -> None:
        self._sure("Stop {}? A folder or a tag stays where it is.", "Stop it", stop)

    def do_rollback(self) -> None:
        self._sure("Bring the version before {} back?", "Roll back", self._rolled_back)

    async def _rolled_back(self, ws: Workspace, name: str) -> Deployment:
        """A GGUF that no process serves any more is served by this app."""
        back = await rollback(ws, name)
        if back.kind == "gguf" and back.state == "stopped":

            async def serve() -> str:
                ended = await serve_again(ws, back)
                return f"{name} is {ended.state}"

            self._try(f"serving {name}", serve())
        return back

    def _sure(self, question: str, yes: str, action: Callable[..., Coroutine[Any, Any, Deployment]]) -> None:
        deployment = self.deployment
        if deployment is None:
            return
        name = deployment.name

        def answered(sure: bool | None) -> None:
            if sure:
                self.work(
                    action(self.ws, name), lambda now: self.tell(f"{name} v{now.version} is {now.state}")
                )

        self.app.push_screen(Confirm(question.format(f"{name} v{deployment.version}"), yes), answered)

    # The chat

    @property
    def _chat(self) -> ChatPane:
        return self.query_one(ChatPane)

    def do_chat(self) -> None:
        self._chat.write()

    def do_leave(self) -> None:
        self._table("#deployments").focus()

    @on(Input.Submitted, "#say")
    async def _said(self, event: Input.Submitted) -> None:
        deployment = self.deployment
        if deployment is None or not can_talk(deployment):
            self.tell(Need.DEPLOYMENT_TALKS.value, severity="warning")
        elif event.value.strip():
            await self._chat.say(deployment, event.value)
            event.input.clear()

    @on(ChatPane.Changed)
    def _chat_changed(self) -> None:
        self.update_keys()

    async def do_good(self) -> None:
        await self._rate(1)

    async def do_bad(self) -> None:
        await self._rate(-1)

    async def _rate(self, rating: Literal[-1, 1]) -> None:
        if self._chat.conversation is not None:
            await self.hafs.guarded(self._chat.conversation.rate(rating))


def _terms(answers: Answers) -> Terms:
    return Terms(
        allow_worse=answers.optional_text("allow_worse") or "",
        unevaluated=answers.optional_text("unevaluated") or "",
        allow_template=answers.optional_text("allow_template") or "",
    )


def _model_row(model: Model) -> Row:
    cells = (
        Cell(model.name, "strong"),
        Cell(model.kind),
        Cell(model.host, "muted"),
        Cell(fmt.size(model.size_bytes)),
    )
    return Row(model.name, cells)


def _deployment_row(one: Deployment) -> Row:
    details = one.details
    where = one.endpoint or str(
        details.get("folder") or details.get("tag") or details.get("gguf") or one.host
    )
    cells = (
        Cell(one.name, "strong"),
        Cell(str(one.version)),
        Cell(one.kind),
        Cell(one.state, STATE_TONES.get(one.state, "")),
        Cell(one.model),
        Cell(where, "muted"),
    )
    return Row(one.id, cells)
