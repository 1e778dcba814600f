"""Scorers say how good a candidate is, from 0 to 1; what they could not say is missing, never a zero.

- `reference`: equality with a right answer, and below it how close the answer came, so that margins exist;
- `execution`: how far asar and the core came with the answer's code, by its seed's expectations;
- `llm`: a judge model and a rubric, at temperature 0;
- `human`: no score at all: people decide between the candidates.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Protocol

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field

from backend.execution.pool import Execution
from backend.generation.domains import Domain
from backend.generation.judging import executing
from backend.preferences.errors import PreferenceError
from backend.preferences.prompts import PromptItem
from backend.providers.base import ChatRequest, Message, Provider, ProviderError
from backend.providers.ledger import Place, asked
from backend.providers.limits import RetryPolicy, with_retries
from backend.quality.gates import Candidate
from backend.settings import Workspace
from backend.settings.load import read_toml, validate
from backend.similarity.normalise import Normalise, asm_lines, normalise_text, same_answer

_TEMPLATES = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_TOKENS = re.compile(r"\w+|[^\w\s]")
_MOST_TOKENS = 2000
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score": {"type": "integer"}},
    "required": ["reason", "score"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Score:
    """`value` is 0 to 1, or None where the scorer has nothing to say; `detail` says why."""

    value: float | None
    detail: str


class Scorer(Protocol):
    """Scores one answer. Raises ProviderError only where every further answer would fail the same way."""

    @property
    def name(self) -> str: ...

    async def score(self, item: PromptItem, answer: str) -> Score: ...


class ReferenceScorer:
    """1 for an answer that equals the reference (as the reference gate compares), below it `closeness`."""

    name = "reference"

    async def score(self, item: PromptItem, answer: str) -> Score:
        if item.reference is None:
            return Score(None, "the prompt has no reference answer")
        if same_answer(answer, item.reference, item.normalise):
            return Score(1.0, "equals the reference")
        close = await asyncio.to_thread(closeness, answer, item.reference, item.normalise)
        return Score(close, "differs from the reference")


def closeness(answer: str, reference: str, normalise: Normalise = "text") -> float:
    """How near a wrong answer came, 0 to 0.8: 0.4 for the same first word (in assembly: the mnemonic) and 0.4
    times the share of words and signs that both have in the same order (difflib's ratio)."""
    given, wanted = _tokens(answer, normalise), _tokens(reference, normalise)
    if normalise == "asm" and wanted:
        given = _tokens("\n".join(asm_lines(answer)[: len(asm_lines(reference))]), normalise)
    if not given or not wanted:
        return 0.0
    ratio = SequenceMatcher(None, given, wanted, autojunk=False).ratio()
    return round(0.4 * (given[0] == wanted[0]) + 0.4 * ratio, 4)


def _tokens(text: str, normalise: Normalise) -> list[str]:
    normal = "\n".join(asm_lines(text)) if normalise == "asm" else normalise_text(text)
    return _TOKENS.findall(normal)[:_MOST_TOKENS]


class ExecutionScorer:
    """The execution gate's figure: 0 for what asar refuses, 0.25 for what assembles, more for what runs and for
    each case that is right, 1 for a right answer. Missing where there is no code to execute, or no asar here."""

    name = "execution"

    def __init__(self, execution: Execution, domains: Mapping[str, Domain]) -> None:
        self._execution = execution
        self._domains = domains

    async def score(self, item: PromptItem, answer: str) -> Score:
        domain = self._domains.get(item.domain)
        seed = domain.seed(item.seed) if domain and item.seed else None
        execute = executing(self._execution, domain, seed) if domain else None
        executed = await execute(Candidate(item.prompt, answer)) if execute else None
        if executed is None:
            return Score(None, f"nothing of the domain {item.domain or '?'} says how this answer is executed")
        return Score(executed.score, f"{executed.outcome}: {executed.detail}")


class HumanScorer:
    """Leaves every pair to people."""

    name = "human"

    async def score(self, item: PromptItem, answer: str) -> Score:
        return Score(None, "left to people")


class Rubric(BaseModel):
    """A file of `config/rubrics/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int = 1
    system: str
    prompt: str
    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 300


def load_rubric(ws: Workspace, name: str = "answer_quality") -> Rubric:
    """The workspace's rubric of that name, else the packaged one. Raises SettingsError, and PreferenceError
    where there is none."""
    path = ws.config / "rubrics" / f"{name}.toml"
    text, values = read_toml(path)
    if not values:
        path = Path(str(resources.files("config"))) / "rubrics" / f"{name}.toml"
        text, values = read_toml(path)
    if not values:
        raise PreferenceError(
            f"no rubric {name!r}: write {ws.config / 'rubrics' / name}.toml, or use answer_quality"
        )
    return validate(Rubric, values, path, text)


class LlmScorer:
    """A judge model scores 1 to 10 by a rubric; the score here is a tenth of it. Its verdicts are requests of
    the ledger: the same answer is never judged, or paid for, twice by the same model and rubric."""

    name = "llm"

    def __init__(self, ws: Workspace, provider: Provider, model: str, rubric: Rubric | None = None) -> None:
        self._ws = ws
        self._provider = provider
        self._model = model
        self._rubric = rubric or load_rubric(ws)

    async def score(self, item: PromptItem, answer: str) -> Score:
        request = self._request(item, answer)
        call = partial(asked, self._ws, self._provider, request, Place("judge"))
        try:
            reply = await with_retries(call, RetryPolicy())
        except ProviderError as error:
            if error.stops_provider:
                raise
            return Score(None, f"the judge gave no verdict: {error}")
        return read_verdict(reply.answer.text)

    def _request(self, item: PromptItem, answer: str) -> ChatRequest:
        values = {"prompt": item.prompt, "answer": answer, "reference": item.reference or ""}
        try:
            system, prompt = (
                _TEMPLATES.from_string(text).render(values).strip()
                for text in (self._rubric.system, self._rubric.prompt)
            )
        except TemplateError as error:
            raise PreferenceError(
                f"rubric {self._rubric.name}: a template cannot be filled: {error}"
            ) from error
        messages = (Message("system", system), Message("user", prompt))
        return ChatRequest(
            self._model, messages, temperature=0.0, max_tokens=self._rubric.max_tokens, json_schema=_SCHEMA
        )


def read_verdict(text: str) -> Score:
    """The score in a judge's reply; missing where there is none from 1 to 10 in it."""
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        verdict = json.loads(found[0]) if found else None
    except ValueError:
        verdict = None
    score = verdict.get("score") if isinstance(verdict, dict) else None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 1 <= score <= 10:
        return Score(None, f"the judge's reply has no score from 1 to 10: {' '.join(text.split())[:120]!r}")
    return Score(score / 10, str(verdict.get("reason", "")) if isinstance(verdict, dict) else "")
