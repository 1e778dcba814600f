"""Template parity: does a server send a model the very tokens that it was trained on?

The same conversations are rendered by the chat template of the model's folder and by the server, and compared
token by token. A wrong template raises no error anywhere: the model babbles, or never stops.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import Any, Literal, NoReturn

import aiohttp
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from backend.deployment.go_template import NotUnderstood, render_go
from backend.deployment.templates import chat_template_of
from backend.hosts.catalog import open_named_host
from backend.providers import Message
from backend.registry.references import ModelReferenceError, weights_of
from backend.settings import Workspace
from backend.store.models import Model
from remote import HostError

Fault = Literal["token", "bos", "system", "newline", "stop", "unreadable"]

CODE = "Explain:\n```asm\n  LDA $12\n\n\tSTA $7E0000\n```\n"
CONVERSATIONS: Mapping[str, tuple[Message, ...]] = {
    "user": (Message("user", "Load A from $12."),),
    "system and user": (Message("system", "You write 65816."), Message("user", "Load A from $12.")),
    "several turns": (
        Message("user", "One?"),
        Message("assistant", "LDA #$01"),
        Message("user", "Two?"),
        Message("assistant", "LDA #$02"),
        Message("user", "Three?"),
    ),
    "newlines and spaces": (Message("user", "  first\n\n\nlast line  \n"),),
    "unicode": (Message("user", "Größe: 12 µs, 日本語, 🎮, e\u0301"),),
    "code": (Message("user", CODE),),
}
_MARK = "HAFS-ANSWER"
_AROUND = 24


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the server first leaves what the model was trained on. `expected` and `got` are the text there,
    `token` the number of the token (from 0)."""

    fault: Fault
    conversation: str
    expected: str
    got: str
    token: int | None = None

    def __str__(self) -> str:
        where = f", token {self.token}" if self.token is not None else ""
        if self.fault == "unreadable":
            return f"{self.got}"
        what = f"{_NAMES[self.fault]} ({self.conversation}{where})"
        return f"{what}: trained on {self.expected!r}, the server has {self.got!r}"


_NAMES: Mapping[Fault, str] = {
    "token": "another token", "bos": "another number of BOS", "system": "another system text",
    "newline": "other white space", "stop": "a missing stop", "unreadable": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared and what differs; `checked` 0 with a note where there is nothing to compare with."""

    checked: int
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """One line for each finding."""
        if self.differences:
            return "\n".join(str(one) for one in self.differences)
        return (
            "; ".join([f"{self.checked} conversations agree", *self.notes])
            if self.checked
            else "; ".join(self.notes)
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """What a model's folder says of how it was trained: template, special tokens, and its tokenizer.json."""

    template: str
    bos: str
    eos: str
    tokenizer: str

    def render(self, messages: Sequence[Message], *, answering: bool = True) -> str:
        """As transformers' apply_chat_template renders it. Raises TemplateError."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = lambda value, **more: json.dumps(value, ensure_ascii=False, **more)
        environment.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(form),
        }
        return environment.from_string(self.template).render(
            messages=[{"role": one.role, "content": one.content} for one in messages],
            add_generation_prompt=answering, bos_token=self.bos, eos_token=self.eos,
        )  # fmt: skip

    def end_of_turn(self) -> str:
        """What the template writes right after an answer, up to a line's end: the word that must stop it."""
        messages = (Message("user", "x"), Message("assistant", _MARK))
        after = self.render(messages, answering=False).partition(_MARK)[2]
        return after.strip().split("\n")[0].strip()


async def trained_on(ws: Workspace, model: Model) -> Trained | str:
    """The folder that a GGUF was made from, or why nothing is known of it."""
    try:
        source = await weights_of(ws, model.parent or f"gguf:{model.location}")
    except ModelReferenceError:
        return f"not checked: the registry does not know the folder that {model.name} was made from"
    if source.kind == "hub":
        return f"not checked: {source.reference} is no folder"
    async with open_named_host(ws, source.host or "local") as host:
        template = await chat_template_of(host, source.location)
        if not template:
            return f"not checked: {source.location} has no chat template"
        try:
            config = json.loads(await host.read(f"{source.location}/tokenizer_config.json"))
            tokenizer = (await host.read(f"{source.location}/tokenizer.json")).decode()
        except HostError as error:
            return f"not checked: {error}"
    return Trained(template, _special(config.get("bos_token")), _special(config.get("eos_token")), tokenizer)


async def check_llama_cpp(trained: Trained, base_url: str) -> Parity:
    """Compare with a llama.cpp server (an OpenAI-compatible address ending in /v1): its own rendering and
    tokenising, and whether it really stops at the end of a turn. Raises aiohttp.ClientError."""
    async with aiohttp.ClientSession(base_url=base_url.removesuffix("v1"), raise_for_status=True) as http:
        server = _LlamaCpp(http)
        differences: list[Difference] = []
        checked = 0
        for name, messages, expected in _renderings(trained, ""):
            checked += 1
            try:
                got = await server.rendered(messages)
            except aiohttp.ClientResponseError as error:
                differences.append(
                    Difference("unreadable", name, "", f"the server cannot render it: {error}")
                )
                continue
            found = await _compared(trained, server, name, messages, expected, got)
            differences += [found] if found else []
        stop = await _llama_cpp_stop(trained, server)
        return Parity(checked, _one_of_each([*differences, *stop]), _notes(checked))


async def check_ollama(
    trained: Trained, template: str, system: str, stops: Sequence[str], *, asked_system: str, base_url: str
) -> Parity:
    """Compare with what an Ollama server would send: its own template as `/api/show` tells it, rendered here,
    tokenised by llama.cpp (at `base_url`) from the same GGUF, as Ollama's runner does. `system` is the model's
    system text; `asked_system` is what the user asked for in the place of the trained one.
    """
    async with aiohttp.ClientSession(base_url=base_url.removesuffix("v1"), raise_for_status=True) as http:
        server = _LlamaCpp(http)
        differences: list[Difference] = []
        checked = 0
        for name, messages, expected in _renderings(trained, asked_system):
            checked += 1
            own = (
                messages
                if messages[0].role == "system" or not system
                else (Message("system", system), *messages)
            )
            try:
                got = render_go(template, own)
            except NotUnderstood as error:
                problem = f"the server's template cannot be checked: {error}"
                differences.append(Difference("unreadable", name, "", problem))
                break
            found = await _compared(trained, server, name, messages, expected, got)
            differences += [found] if found else []
        end = trained.end_of_turn()
        if end and end not in stops:
            differences += await _llama_cpp_stop(trained, server)
        return Parity(checked, _one_of_each(differences), _notes(checked))


class _LlamaCpp:
    """The three questions that are asked of llama.cpp's server."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        async with self._http.post(path, json=body) as response:
            return await response.json()

    async def rendered(self, messages: Sequence[Message]) -> str:
        turns = [{"role": one.role, "content": one.content} for one in messages]
        return str((await self._post("apply-template", {"messages": turns}))["prompt"])

    async def tokens(self, text: str, *, whole: bool) -> list[int]:
        """The ids; `whole` as for a prompt, with what the model's file puts before it."""
        body = {"content": text, "add_special": whole, "parse_special": True}
        return [int(one) for one in (await self._post("tokenize", body))["tokens"]]

    async def text(self, tokens: Sequence[int]) -> str:
        return str((await self._post("detokenize", {"tokens": list(tokens)}))["content"])

    async def stops_at(self, token: int) -> bool:
        """Made to say this token, does the server end the answer there?"""
        body = {"prompt": "x", "n_predict": 2, "temperature": 0, "logit_bias": [[token, 1000.0]]}
        return bool((await self._post("completion", body)).get("stop_type") == "eos")


async def _compared(
    trained: Trained, server: _LlamaCpp, name: str, messages: Sequence[Message], expected: str, got: str
) -> Difference | None:
    wanted = await asyncio.to_thread(_encoded, trained.tokenizer, expected)
    if wanted is None:
        wanted = await server.tokens(expected, whole=False)
    sent = await server.tokens(got, whole=True)
    if wanted == sent:
        return None
    at = next(
        (i for i, (a, b) in enumerate(zip(wanted, sent, strict=False)) if a != b), min(len(wanted), len(sent))
    )
    trained_text = await server.text(wanted[max(0, at - 2) : at + 8])
    server_text = await server.text(sent[max(0, at - 2) : at + 8])
    if at <= 1 and len(sent) != len(wanted) and (sent[1:] == wanted or wanted[1:] == sent):
        return Difference("bos", name, trained_text, server_text, at)
    if got == expected:
        return Difference("token", name, trained_text, server_text, at)
    return Difference(_fault(messages, expected, got), name, *_texts(expected, got), at)


def _fault(messages: Sequence[Message], expected: str, got: str) -> Fault:
    if "".join(expected.split()) == "".join(got.split()):
        return "newline"
    first = next(one.content for one in messages if one.role == "user")
    before, _, after = expected.partition(first)
    same = got.endswith(first + after)
    return "system" if same and got[: len(got) - len(first + after)] != before else "token"


def _texts(expected: str, got: str) -> tuple[str, str]:
    at = next(
        (i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b),
        min(len(expected), len(got)),
    )
    start = max(0, at - _AROUND // 2)
    return expected[start : at + _AROUND], got[start : at + _AROUND]


async def _llama_cpp_stop(trained: Trained, server: _LlamaCpp) -> list[Difference]:
    end = trained.end_of_turn()
    tokens = await server.tokens(end, whole=False) if end else []
    if len(tokens) == 1 and await server.stops_at(tokens[0]):
        return []
    shown = end or "an end of turn"
    return [Difference("stop", "the end of an answer", shown, "no stop there")]


def _renderings(trained: Trained, asked_system: str) -> list[tuple[str, tuple[Message, ...], str]]:
    """The conversations that the template takes, each with what it makes of them."""
    rendered = []
    for name, messages in CONVERSATIONS.items():
        given = messages
        if asked_system and messages[0].role != "system":
            given = (Message("system", asked_system), *messages)
        try:
            rendered.append((name, messages, trained.render(given)))
        except TemplateError:
            continue  # as in a family that has no system turn: the model was never trained on it
    return rendered


def _notes(checked: int) -> tuple[str, ...]:
    notes = []
    if checked < len(CONVERSATIONS):
        notes.append(f"{len(CONVERSATIONS) - checked} more are not of this template")
    if find_spec("tokenizers") is None:
        notes.append("both sides by the server's tokenizer: `tokenizers` is not installed here")
    return tuple(notes)


def _one_of_each(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """The first of each fault: the rest say it again."""
    return tuple({one.fault: one for one in reversed(differences)}.values())[::-1]


def _encoded(tokenizer: str, text: str) -> list[int] | None:
    """The ids by the model's own tokenizer.json; None where the library is not here."""
    if find_spec("tokenizers") is None:
        return None
    from tokenizers import Tokenizer

    return list(Tokenizer.from_str(tokenizer).encode(text, add_special_tokens=False).ids)


def _special(token: Any) -> str:
    """tokenizer_config.json has a token as text or as an object."""
    return str(token.get("content") or "") if isinstance(token, dict) else str(token or "")


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
