"""Renders the part of Go's template language that Ollama's chat templates use, to see what it would send.

Known: text, `{{- -}}`, `range .Messages`, `if`/`else if`/`else`/`end`, `.Role`, `.Content`, `.System`,
`.Prompt`, `.Response`, `$`-prefixed forms of them, `eq`, `ne`, `and`, `or`, `not`, and string literals.
Anything else is refused: a template that is not understood is not judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.providers import Message

_ACTION = re.compile(r"(\{\{-?\s*)(.*?)(\s*-?\}\})", re.DOTALL)
_SPACE = " \t\r\n"
_WORD = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|[()]|[^\s()"`]+')


class NotUnderstood(ValueError):
    """A template with something in it that is not known here."""


@dataclass(frozen=True, slots=True)
class _Token:
    is_action: bool
    text: str


@dataclass(frozen=True, slots=True)
class _Block:
    """`word` is "text", "print", "range" or "if"; `branches` are condition and body, the else's condition
    being empty."""

    word: str
    text: str = ""
    branches: tuple[tuple[str, tuple[_Block, ...]], ...] = ()


def render_go(template: str, messages: Sequence[Message]) -> str:
    """The prompt for these messages. Raises NotUnderstood.

    As Ollama does, neighbouring messages of one role are joined by an empty line first.
    """
    tokens = list(_tokens(template))
    blocks, rest = _parse(tokens, 0)
    if rest != len(tokens):
        raise NotUnderstood(f"{tokens[rest].text!r} ends nothing")
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = Message(message.role, f"{joined[-1].content}\n\n{message.content}")
        else:
            joined.append(message)
    last = {message.role: message.content for message in joined}
    root = {".System": last.get("system", ""), ".Prompt": last.get("user", ""), ".Response": ""}
    return "".join(_render(blocks, root, joined))


def _tokens(template: str) -> Iterator[_Token]:
    at, trim = 0, False
    for found in _ACTION.finditer(template):
        text = template[at : found.start()]
        text = text.lstrip(_SPACE) if trim else text
        yield _Token(False, text.rstrip(_SPACE) if found[1].startswith("{{-") else text)
        if not found[2].startswith("/*"):
            yield _Token(True, found[2].strip())
        at, trim = found.end(), found[3].endswith("-}}")
    yield _Token(False, template[at:].lstrip(_SPACE) if trim else template[at:])


def _parse(tokens: Sequence[_Token], at: int) -> tuple[tuple[_Block, ...], int]:
    blocks: list[_Block] = []
    while at < len(tokens):
        token = tokens[at]
        word = token.text.split(maxsplit=1)[0] if token.text.strip() else ""
        if not token.is_action:
            blocks.append(_Block("text", token.text))
        elif word in ("else", "end"):
            break
        elif word in ("range", "if"):
            block, at = _branches(tokens, at, word)
            blocks.append(block)
        else:
            blocks.append(_Block("print", token.text))
        at += 1
    return tuple(blocks), at


def _branches(tokens: Sequence[_Token], at: int, word: str) -> tuple[_Block, int]:
    """A range or an if, up to the place of its end."""
    condition, branches = tokens[at].text[len(word) :].strip(), []
    while True:
        body, at = _parse(tokens, at + 1)
        branches.append((condition, body))
        if at >= len(tokens):
            raise NotUnderstood(f"a {word} without its end")
        if tokens[at].text == "end":
            return _Block(word, branches=tuple(branches)), at
        condition = tokens[at].text.removeprefix("else").strip().removeprefix("if").strip() or "true"


def _render(blocks: Sequence[_Block], scope: Mapping[str, str], messages: Sequence[Message]) -> Iterator[str]:
    for block in blocks:
        if block.word == "text":
            yield block.text
        elif block.word == "print":
            yield str(_value(block.text, scope))
        elif block.word == "if":
            for condition, body in block.branches:
                if _value(condition, scope):
                    yield from _render(body, scope, messages)
                    break
        elif block.branches[0][0] not in (".Messages", "$.Messages") or len(block.branches) > 1:
            raise NotUnderstood(f"range {block.branches[0][0]}")
        else:
            for message in messages:
                inner = {**scope, ".Role": message.role, ".Content": message.content}
                yield from _render(block.branches[0][1], inner, messages)


def _value(expression: str, scope: Mapping[str, str]) -> str | bool:
    words = _WORD.findall(expression)
    value, at = _call(words, 0, scope, expression)
    if at != len(words):
        raise NotUnderstood(expression)
    return value


def _call(words: Sequence[str], at: int, scope: Mapping[str, str], whole: str) -> tuple[str | bool, int]:
    """One value, or a function with all that follows it up to a closing bracket."""
    if at >= len(words):
        raise NotUnderstood(whole)
    function = words[at]
    if function not in ("eq", "ne", "and", "or", "not"):
        return _operand(words, at, scope, whole)
    values: list[str | bool] = []
    at += 1
    while at < len(words) and words[at] != ")":
        value, at = _operand(words, at, scope, whole)
        values.append(value)
    if not values:
        raise NotUnderstood(whole)
    if function == "eq":
        return values[0] in values[1:], at
    if function == "ne":
        return values[0] != values[-1], at
    if function == "not":
        return not values[0], at
    decides = function == "or"
    return next((value for value in values if bool(value) is decides), values[-1]), at


def _operand(words: Sequence[str], at: int, scope: Mapping[str, str], whole: str) -> tuple[str | bool, int]:
    word = words[at]
    if word == "(":
        value, at = _call(words, at + 1, scope, whole)
        if at >= len(words) or words[at] != ")":
            raise NotUnderstood(whole)
        return value, at + 1
    if word[0] == '"':
        return str(json.loads(word)), at + 1
    if word[0] == "`":
        return word[1:-1], at + 1
    if word in ("true", "false"):
        return word == "true", at + 1
    name = word.removeprefix("$")
    if name in (".Tools", ".ToolCalls", ".Suffix", ".Thinking", ".Think"):
        return "", at + 1  # none of them is ever sent from here
    if name not in scope:
        raise NotUnderstood(f"{word} in {whole!r}")
    return scope[name], at + 1
