"""A form from a description: every stage of the app is launched from one of these, by keyboard alone.

A form is a list of `Field` and a function that builds the result from the checked `Answers`. Enter in a field
goes to the next one and sends nothing; Ctrl+S, or Enter on the last button, sends; Esc leaves without a
trace. What is wrong is said under the field it is wrong in.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, HorizontalGroup, Vertical, VerticalGroup, VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Label, Select, SelectionList, Static, TextArea
from textual.widgets.selection_list import Selection

from hafs_tui.sanitize import one_line, plain

if TYPE_CHECKING:
    from hafs_tui.app import HafsApp

Result = TypeVar("Result")
Value = str | int | float | bool | tuple[str, ...] | None


class Kind(Enum):
    """What a field holds."""

    TEXT = "text"
    LONG_TEXT = "long text"
    SECRET = "secret"  # noqa: S105  a kind of field, not a password
    INT = "whole number"
    FLOAT = "number"
    BOOL = "yes or no"
    CHOICE = "one of"
    CHOICES = "some of"


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `choices` are values with labels; `check` says what is wrong with a value, or None.

    An empty field that is not `required` answers None (an empty text, for texts). `fills` makes a choice fill
    other fields: from the chosen value to their new values, by name.
    """

    name: str
    label: str
    kind: Kind = Kind.TEXT
    default: Value = None
    help: str = ""
    required: bool = True
    minimum: float | None = None
    maximum: float | None = None
    choices: Sequence[tuple[str, str]] = ()
    check: Callable[[Value], str | None] | None = None
    fills: Callable[[str], Mapping[str, Value]] | None = None


class FieldError(ValueError):
    """Raised by the building function: what is wrong, and in which field."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Answers:
    """The checked values of a form, by field name, with their types."""

    values: Mapping[str, Value] = field(default_factory=dict)

    def text(self, name: str) -> str:
        return str(self.values[name] if self.values[name] is not None else "")

    def optional_text(self, name: str) -> str | None:
        return self.text(name) or None

    def integer(self, name: str) -> int:
        return int(cast("int", self.values[name]))

    def optional_integer(self, name: str) -> int | None:
        return None if self.values[name] is None else self.integer(name)

    def number(self, name: str) -> float:
        return float(cast("float", self.values[name]))

    def optional_number(self, name: str) -> float | None:
        return None if self.values[name] is None else self.number(name)

    def flag(self, name: str) -> bool:
        return bool(self.values[name])

    def several(self, name: str) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self.values[name])


def parse(described: Field, raw: object) -> Value:
    """The value of a field from what its widget holds. Raises ValueError with what is wrong, in words."""
    value = _parse_kind(described, raw)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if described.minimum is not None and value < described.minimum:
            raise ValueError(f"at least {described.minimum:g}")
        if described.maximum is not None and value > described.maximum:
            raise ValueError(f"at most {described.maximum:g}")
    if described.check is not None and value is not None and (wrong := described.check(value)):
        raise ValueError(wrong)
    return value


def _parse_kind(described: Field, raw: object) -> Value:
    if described.kind is Kind.BOOL:
        return bool(raw)
    if described.kind is Kind.CHOICES:
        several = tuple(cast("Sequence[str]", raw))
        if described.required and not several:
            raise ValueError("choose at least one (space)")
        return several
    if described.kind is Kind.CHOICE:
        if not isinstance(raw, str):
            if described.required:
                raise ValueError("choose one")
            return None
        return raw
    text = str(raw)
    if not text.strip():
        if described.required:
            raise ValueError("needed")
        return None if described.kind in (Kind.INT, Kind.FLOAT) else ""
    if described.kind is Kind.INT:
        try:
            return int(text.replace("_", "").replace(",", ""))
        except ValueError:
            raise ValueError("a whole number, such as 500") from None
    if described.kind is Kind.FLOAT:
        try:
            number = float(text)
        except ValueError:
            raise ValueError("a number, such as 0.7 or 2e-4") from None
        if not math.isfinite(number):
            raise ValueError("a finite number")
        return number
    return text if described.kind in (Kind.LONG_TEXT, Kind.SECRET) else text.strip()


class FieldRow(VerticalGroup):
    """A label, the widget of a field, and a line that holds its help or what is wrong."""

    def __init__(self, described: Field) -> None:
        super().__init__(classes="field")
        self.described = described
        self.editor: Widget = _editor(described)
        self._note = Static(plain(described.help), classes="note")
        self._note.display = bool(described.help)

    def compose(self) -> ComposeResult:
        with HorizontalGroup():
            yield Label(plain(self.described.label), classes="label")
            yield self.editor
        yield self._note

    def value(self) -> Value:
        """The checked value. Raises ValueError with what is wrong."""
        return parse(self.described, _raw(self.editor))

    def fill(self, value: Value) -> None:
        """Put a value into the widget, as if it had been typed (texts, numbers, choices, yes or no)."""
        if isinstance(self.editor, Checkbox):
            self.editor.value = bool(value)
        elif isinstance(self.editor, Input | Select):
            self.editor.value = "" if value is None else str(value)

    def say_wrong(self, message: str | None) -> None:
        """Show what is wrong with this field, or its help again."""
        self.set_class(message is not None, "wrong")
        self._note.update(plain(self.described.help if message is None else f"✗ {message}"))
        self._note.display = bool(message or self.described.help)


def _editor(described: Field) -> Widget:
    default = described.default
    text = "" if default is None else str(default)
    if described.kind is Kind.BOOL:
        return Checkbox("yes", value=bool(default), compact=True)
    if described.kind is Kind.CHOICE:
        options = [(plain(one_line(label)), value) for value, label in described.choices]
        known = any(value == default for value, _ in described.choices)
        # The library types option labels as str but draws any visual, so plain content stays plain.
        select: Select[str] = Select(
            cast("Any", options),
            compact=True,
            allow_blank=not known,
            value=str(default) if known else Select.NULL,
        )
        return select
    if described.kind is Kind.CHOICES:
        chosen = default if isinstance(default, tuple) else ()
        entries = [
            Selection(plain(one_line(label)), value, value in chosen) for value, label in described.choices
        ]
        return SelectionList[str](*entries, compact=True)
    if described.kind is Kind.LONG_TEXT:
        return TextArea(text, compact=True, soft_wrap=True)
    hint = "" if described.required else "may be empty"
    return Input(text, hint, compact=True, password=described.kind is Kind.SECRET, select_on_focus=False)


def _raw(editor: Widget) -> object:
    if isinstance(editor, TextArea):
        return editor.text
    if isinstance(editor, SelectionList):
        return editor.selected
    return cast("Any", editor).value


class Form(ModalScreen[Result | None], Generic[Result]):
    """Asks for `fields` and dismisses with what `build` makes of the answers, or None after Esc.

    `build` is a coroutine function and may do the work itself, so that what the backend refuses is told here,
    with everything that was typed still in its place. It may raise `FieldError` (told at that field);
    any other error is told at the bottom. With `enter_sends` Enter in a field sends.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "send", "Send", show=False, priority=True),
        Binding("escape", "leave", "Leave", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(
        self,
        title: str,
        fields: Sequence[Field],
        build: Callable[[Answers], Awaitable[Result]],
        *,
        send: str = "Start",
        enter_sends: bool = False,
    ) -> None:
        super().__init__()
        self._title = title
        self._fields = tuple(fields)
        self._build = build
        self._send = send
        self._enter_sends = enter_sends
        self._sending = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog form") as box:
            box.border_title = plain(one_line(self._title)).markup
            box.border_subtitle = "^s sends · esc leaves · tab next"
            with VerticalScroll(can_focus=False):
                for described in self._fields:
                    yield FieldRow(described)
            yield Static("", classes="note wrong-form")
            with Horizontal(classes="buttons"):
                yield Button(self._send, id="send", variant="primary", compact=True)
                yield Button("Leave", id="leave", compact=True)

    def on_mount(self) -> None:
        self._say_below("")

    @on(Input.Submitted)
    def _entered(self, event: events.Event) -> None:
        event.stop()
        if self._enter_sends:
            self.action_send()
        else:
            self.focus_next()

    @on(Select.Changed)
    def _chosen(self, event: Select.Changed) -> None:
        rows = {row.described.name: row for row in self.query(FieldRow)}
        chosen = next(row for row in rows.values() if row.editor is event.select)
        if chosen.described.fills is not None and isinstance(event.value, str):
            for name, value in chosen.described.fills(event.value).items():
                rows[name].fill(value)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "send":
            self.action_send()
        else:
            self.action_leave()

    def action_leave(self) -> None:
        if not self._sending:
            self.dismiss(None)

    def action_send(self) -> None:
        if self._sending:
            return
        values: dict[str, Value] = {}
        wrong: dict[str, str] = {}
        for row in self.query(FieldRow):
            try:
                values[row.described.name] = row.value()
            except ValueError as error:
                wrong[row.described.name] = str(error)
        self._say_wrong(wrong)
        if not wrong:
            self._sending = True
            self._say_below("Working …")
            self.run_worker(self._submit(Answers(values)))

    async def _submit(self, answers: Answers) -> None:
        try:
            result = await self._build(answers)
        except FieldError as error:
            self._say_below("")
            self._say_wrong({error.name: str(error)})
        except Exception as error:  # told where the person looks; what they typed stays
            self._say_below(f"✗ {cast('HafsApp', self.app).explain(error)}")
        else:
            self.dismiss(result)
        finally:
            self._sending = False

    def say(self, message: str) -> None:
        """Tell how far the work is, while it is done."""
        if self._sending:
            self._say_below(message)

    def _say_below(self, message: str) -> None:
        bottom = self.query_one(".wrong-form", Static)
        bottom.update(plain(message))
        bottom.display = bool(message)

    def _say_wrong(self, wrong: Mapping[str, str]) -> None:
        """Tell what is wrong at each field and go to the first of them."""
        rows = list(self.query(FieldRow))
        for row in rows:
            row.say_wrong(wrong.get(row.described.name))
        first = next((row for row in rows if row.described.name in wrong), None)
        if first is not None:
            first.editor.focus()
