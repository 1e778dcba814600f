"""A conversation with one deployment: its turns as they are now, the work that answers them, and the pane.

The work belongs to the app's background: a server that is started for a chat ends with it. The pane only looks
at `turns`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input

from backend.deployment.chat import open_chat, rate
from backend.settings import Workspace
from backend.store.deployments import Deployment
from hafs_tui.widgets.code_view import Block, CodeView

if TYPE_CHECKING:
    from hafs_tui.app import HafsApp

_WORK = "chat"


@dataclass(slots=True)
class Turn:
    """A message and what has come of its reply; `state` is "waiting" until the last piece is there."""

    message: str
    reply: str = ""
    state: Literal["waiting", "done", "failed"] = "waiting"
    exchange_id: int | None = None
    rating: Literal[-1, 0, 1] = 0


class Conversation:
    """Turns with the deployment `name`. `told` is called with an error in words."""

    def __init__(self, ws: Workspace, name: str, told: Callable[[Exception], str]) -> None:
        self.name = name
        self.turns: list[Turn] = []
        self.version = 0
        """Grows whenever something has changed."""
        self._ws = ws
        self._told = told
        self._asked: asyncio.Queue[Turn] = asyncio.Queue()

    def say(self, message: str) -> None:
        """Send a message; its reply comes after those that are still waited for."""
        turn = Turn(message)
        self.turns.append(turn)
        self.version += 1
        self._asked.put_nowait(turn)

    async def rate(self, rating: Literal[-1, 1]) -> bool:
        """Rate the last reply that is complete; False where there is none."""
        turn = next((turn for turn in reversed(self.turns) if turn.exchange_id is not None), None)
        if turn is None or turn.exchange_id is None:
            return False
        await rate(self._ws, turn.exchange_id, rating)
        turn.rating = rating
        self.version += 1
        return True

    async def run(self) -> None:
        """Answer what is said, one after another. Never returns: the app's background owns it."""
        try:
            async with open_chat(self._ws, f"deployment:{self.name}") as chat:
                while True:
                    turn = await self._asked.get()
                    try:
                        async for piece in chat.say(turn.message):
                            turn.reply += piece
                            self.version += 1
                        turn.state, turn.exchange_id = "done", chat.exchange_id
                    except Exception as error:  # told in the place of the reply; the conversation goes on
                        turn.state, turn.reply = "failed", turn.reply + self._told(error)
                    self.version += 1
        finally:
            for turn in self.turns:
                if turn.state == "waiting":
                    turn.state, turn.reply = "failed", turn.reply + "(no reply came)"
            self.version += 1

    def blocks(self) -> list[Block]:
        """The turns, oldest first."""
        blocks: list[Block] = []
        for turn in self.turns:
            mark = {-1: " ✗ bad", 0: "", 1: " ✓ good"}[turn.rating]
            state = {"waiting": " …", "done": "", "failed": " ✗"}[turn.state]
            blocks += [Block("You", turn.message), Block(f"{self.name}{state}{mark}", turn.reply)]
        return blocks


class ChatPane(Vertical):
    """The turns above a line to write on. Enter there posts an `Input.Submitted`, which the screen answers with
    `say`; a reply that has come posts a `Changed`."""

    DEFAULT_CSS = """
    ChatPane { border-top: solid $border-blurred; }
    ChatPane:focus-within { border-top: solid $border; }
    ChatPane Input { background: $surface; }
    ChatPane Input:focus { background: $cursor; }
    ChatPane Input > .input--placeholder { color: $muted; }
    """

    class Changed(Message):
        """Something in the conversation is new."""

    _SHOWN_EVERY_S: ClassVar[float] = 0.1

    def __init__(self, hint: str) -> None:
        super().__init__()
        self.conversation: Conversation | None = None
        self._hint = hint
        self._seen: tuple[Conversation | None, int] = (None, -1)

    def compose(self) -> ComposeResult:
        yield CodeView(id="chat")
        yield Input(placeholder=self._hint, compact=True, id="say")

    def on_mount(self) -> None:
        # A reply comes in many small pieces, and wrapping it anew for each would cost more than they do.
        self.set_interval(self._SHOWN_EVERY_S, self._show)

    @property
    def has_reply(self) -> bool:
        """Whether there is a reply to rate."""
        conversation = self.conversation
        return conversation is not None and any(turn.exchange_id for turn in conversation.turns)

    def write(self) -> None:
        """Put the cursor on the line."""
        self.query_one(Input).focus()

    async def say(self, deployment: Deployment, message: str) -> None:
        """Send a message; another deployment than before begins another conversation."""
        app = cast("HafsApp", self.app)
        conversation = self.conversation
        if conversation is None or conversation.name != deployment.name or not app.background.runs(_WORK):
            await app.background.stop(_WORK)
            conversation = self.conversation = Conversation(app.ws, deployment.name, app.explain)
            app.background.start(_WORK, conversation.run())
        conversation.say(message)

    def _show(self) -> None:
        conversation = self.conversation
        if (
            conversation is None
            or self._seen == (conversation, conversation.version)
            or not self.app.is_running
        ):
            return
        self._seen = (conversation, conversation.version)
        view = self.query_one(CodeView)
        view.set_blocks(conversation.blocks(), keep_position=True)
        view.scroll_end(animate=False)
        self.post_message(self.Changed())


def can_talk(deployment: Deployment) -> bool:
    """Whether a chat with it makes sense: it serves, or it is made of something that can be served."""
    return deployment.state in ("serving", "published", "stopped") and deployment.kind != "hf"
