"""A form from a description: every stage of the app is launched from one of these, by keyboard alone.

A form is a list of `Field` and a function that builds the result from the checked `Answers`. Enter in a field
goes to the next one and sends nothing; Ctrl+S, or Enter on the last button, sends; Esc leaves without a
trace. What is wrong is said under the field it is wrong in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, HorizontalGroup, Vertical, VerticalGroup, VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Label, Select, SelectionList, Static, TextArea
from textual.widgets.selection_list import Selection

from hafs_tui.sanitize import one_line, plain

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

    An empty field that is not `required` answers None (an empty text, for texts).
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
        mark = "" if self.described.required or self.described.kind is Kind.BOOL else " (may be empty)"
        with HorizontalGroup():
            yield Label(plain(self.described.label + mark), classes="label")
            yield self.editor
        yield self._note

    def value(self) -> Value:
        """The checked value. Raises ValueError with what is wrong."""
        return parse(self.described, _raw(self.editor))

    def say_wrong(self, message: str | None) -> None:
        """Show what is wrong with this field, or its help again."""
        self.set_class(message is not None, "wrong")
        self._note.update(plain(self.described.help if message is None else f"✗ {message}"))
        self._note.display = bool(message or self.described.help)


def _editor(described: Field) -> Widget:
    default = described.default
    text = "" if default is None else str(default)
    if described.kind is Kind.BOOL:
        return Checkbox("", value=bool(default), compact=True)
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
    return Input(text, compact=True, password=described.kind is Kind.SECRET, select_on_focus=False)


def _raw(editor: Widget) -> object:
    if isinstance(editor, TextArea):
        return editor.text
    if isinstance(editor, SelectionList):
        return editor.selected
    return cast("Any", editor).value


class Form(ModalScreen[Result | None], Generic[Result]):
    """Asks for `fields` and dismisses with what `build` makes of the answers, or None after Esc.

    `build` may raise `FieldError` (shown at that field) or ValueError (shown at the bottom); the form stays.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "send", "Send", show=False, priority=True),
        Binding("escape", "leave", "Leave", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(
        self, title: str, fields: Sequence[Field], build: Callable[[Answers], Result], *, send: str = "Start"
    ) -> None:
        super().__init__()
        self._title = title
        self._fields = tuple(fields)
        self._build = build
        self._send = send

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
        self.query_one(".wrong-form").display = False

    @on(Input.Submitted)
    def _next(self, event: events.Event) -> None:
        event.stop()
        self.focus_next()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "send":
            self.action_send()
        else:
            self.action_leave()

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_send(self) -> None:
        rows = list(self.query(FieldRow))
        values: dict[str, Value] = {}
        wrong: dict[str, str] = {}
        for row in rows:
            try:
                values[row.described.name] = row.value()
            except ValueError as error:
                wrong[row.described.name] = str(error)
        general = ""
        if not wrong:
            try:
                result = self._build(Answers(values))
            except FieldError as error:
                wrong[error.name] = str(error)
            except ValueError as error:
                general = str(error)
            else:
                self.dismiss(result)
                return
        bottom = self.query_one(".wrong-form", Static)
        bottom.update(plain(f"✗ {general}"))
        bottom.display = bool(general)
        for row in rows:
            row.say_wrong(wrong.get(row.described.name))
        first = next((row for row in rows if row.described.name in wrong), None)
        if first is not None:
            first.editor.focus()
