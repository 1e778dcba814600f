"""Domains: TOML files that say what a campaign asks about, from which seeds, and what its gates demand.

A user adds a domain by adding a file to `$HAFS_HOME/config/domains/`; one of the same name there takes the
place of the packaged one.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, model_validator

from backend.execution.assembling import ANSWER_LINE, has_place
from backend.execution.expectations import Expect, ExpectError, read_expect
from backend.execution.items import Task
from backend.providers.base import ChatRequest, Message
from backend.quality.run import GateName, GatesConfig
from backend.settings.load import SettingsError, validate
from backend.similarity.fences import code_of, labelled_blocks

_TEMPLATES = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False
)


CodeIn = Literal["answer", "fence", "asm"]
"""Where an answer's code is: in the answer, fenced or not; in fences alone; in fences that are called assembly."""
_ASSEMBLY = ("asm", "assembly", "65816", "65c816", "asm65816", "snes", "asar", "nasm")


@lru_cache(maxsize=1024)
def _compiled(template: str) -> Template:
    return _TEMPLATES.from_string(template)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Length(_Strict):
    min_chars: Annotated[int, Field(ge=0)] = 1
    max_chars: Annotated[int, Field(ge=1)] = 32_000


class _Reference(_Strict):
    normalise: Literal["text", "asm"] = "text"


class _Execution(_Strict):
    mode: Literal["routine", "patch"] = "routine"
    setup: str
    around: str = ANSWER_LINE
    code: CodeIn = "answer"

    @model_validator(mode="after")
    def _has_a_place_for_the_answer(self) -> _Execution:
        if not has_place(self.setup if self.mode == "routine" else self.around):
            key = "setup" if self.mode == "routine" else "around"
            raise ValueError(f"{key} has no line {ANSWER_LINE}: that is where the answer's code is put")
        return self


class _Duplicates(_Strict):
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7


class _Gates(_Strict):
    length: _Length = _Length()
    reference: _Reference | None = None
    execution: _Execution | None = None
    duplicates: _Duplicates = _Duplicates()


class _DomainFile(_Strict):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_+]{0,40}$")]
    title: str
    description: str = ""
    row_domain: str | None = None
    seeds: str
    system: str = ""
    examples: str = ""
    prompt: str
    instruction: str
    input: str = ""
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] = 1024
    stop: tuple[str, ...] = ()
    rounds: Annotated[int, Field(ge=1, le=1000)] = 8
    gates: _Gates = _Gates()


@dataclass(frozen=True, slots=True)
class Seed:
    """One thing to ask about. `values` are what the domain's templates may use; `expect` what executing its
    answer must show, where it says so; `executes` whether its answer is code at all."""

    id: str
    family: str
    reference: str | None
    values: Mapping[str, Any]
    expect: Expect | None = None
    executes: bool = True


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain ready for use. `rounds` is how often each seed may be asked in one campaign; `examples` names
    the field of a seed that holds worked examples, [[question, answer], ...], put before it as turns."""

    name: str
    title: str
    description: str
    row_domain: str
    max_tokens: int
    stop: tuple[str, ...]
    rounds: int
    examples: str
    gates: GatesConfig
    duplicate_threshold: float
    execution_mode: Literal["routine", "patch"] | None
    code_in: CodeIn
    seeds: tuple[Seed, ...]
    templates: Mapping[str, str]

    def _render(self, template: str, seed: Seed) -> str:
        if "{" not in self.templates[template]:
            return self.templates[template].strip()
        try:
            return _compiled(self.templates[template]).render(seed.values).strip()
        except TemplateError as error:
            raise SettingsError(
                f"domain {self.name}: the template '{template}' cannot be filled from seed {seed.id}: {error}"
            ) from error

    def request(
        self, seed: Seed, model: str, temperature: float, max_tokens: int | None, number: int
    ) -> ChatRequest:
        """What the provider is asked about the seed; `number` makes each repeat its own random draw."""
        system = self._render("system", seed)
        messages = [Message("system", system)] if system else []
        for asked, answered in seed.values.get(self.examples, ()):
            messages += [Message("user", asked), Message("assistant", answered)]
        return ChatRequest(
            model=model,
            messages=(*messages, Message("user", self._render("prompt", seed))),
            temperature=temperature,
            max_tokens=max_tokens or self.max_tokens,
            seed=number,
            stop=self.stop,
        )

    def instruction_of(self, seed: Seed) -> str:
        """What the stored sample asks."""
        return self._render("instruction", seed)

    def input_of(self, seed: Seed) -> str:
        return self._render("input", seed)

    def seed(self, id: str | None) -> Seed | None:
        """The seed of that id, or None."""
        return next((seed for seed in self.seeds if seed.id == id), None)

    def task(self, seed: Seed) -> Task | None:
        """In what an answer to this seed is executed; None where the domain, or the seed, says in nothing."""
        if self.execution_mode is None or not seed.executes:
            return None
        label = seed.values.get("label")
        return Task(
            mode=self.execution_mode,
            setup=self._render("setup", seed),
            expect=seed.expect or Expect(),
            label=label if isinstance(label, str) else None,
            around=self._render("around", seed),
        )

    def code_of(self, answer: str, task: Task) -> str | None:
        """The answer's code, or None where there is none that the execution gate should look at."""
        if self.code_in == "answer":
            return code_of(answer, task.label)
        blocks = [
            f"```\n{content}\n```"
            for language, content in labelled_blocks(answer)
            if self.code_in == "fence" or language in _ASSEMBLY
        ]
        return code_of("\n".join(blocks), task.label) if blocks else None


def load_domains(config: Path) -> dict[str, Domain]:
    """Every domain by name: the workspace's files over the packaged ones.

    Raises SettingsError naming file, line, key and what was expected.
    """
    found: dict[str, Domain] = {}
    for folder in (resources.files("config") / "domains", config / "domains"):
        if folder.is_dir():
            for file in sorted(folder.iterdir(), key=lambda f: f.name):
                if file.name.endswith(".toml"):
                    domain = _read_domain(file, folder)
                    found[domain.name] = domain
    return found


def _read_domain(file: Traversable, folder: Traversable) -> Domain:
    path = Path(str(file))
    try:
        text = file.read_text("utf-8")
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    read = validate(_DomainFile, values, path, text)
    gates = read.gates
    order: list[GateName] = ["schema", "length"]
    if gates.reference:
        order.append("reference")
    if gates.execution:
        order.append("execution")
    templates = {name: getattr(read, name) for name in ("system", "prompt", "instruction", "input")}
    return Domain(
        name=read.name,
        title=read.title,
        description=read.description,
        row_domain=read.row_domain or read.name,
        max_tokens=read.max_tokens,
        stop=read.stop,
        rounds=read.rounds,
        examples=read.examples,
        gates=GatesConfig(
            order=(*order, "duplicates"),
            min_chars=gates.length.min_chars,
            max_chars=gates.length.max_chars,
            normalise=gates.reference.normalise if gates.reference else "text",
        ),
        duplicate_threshold=gates.duplicates.threshold,
        execution_mode=gates.execution.mode if gates.execution else None,
        code_in=gates.execution.code if gates.execution else "answer",
        seeds=tuple(_read_seeds(folder / read.seeds, read.name, read.examples)),
        templates={
            **templates,
            "setup": gates.execution.setup if gates.execution else "",
            "around": gates.execution.around if gates.execution else "",
        },
    )


def _read_seeds(file: Traversable, domain: str, examples: str) -> Iterator[Seed]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: the seeds of domain {domain} cannot be read: {error}") from error
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise SettingsError(f"{file}:{number}: not valid JSON: {error}") from error
        if not isinstance(values, dict) or not isinstance(values.get("id"), str):
            raise SettingsError(f"{file}:{number}: a seed is an object with a text 'id'")
        if not isinstance(values.get("reference"), str | None):
            raise SettingsError(f"{file}:{number}: reference: expected text, found {values['reference']!r}")
        if values["id"] in seen:
            raise SettingsError(f"{file}:{number}: id {values['id']!r} stands twice")
        seen.add(values["id"])
        if examples and not _is_examples(values.get(examples)):
            raise SettingsError(
                f"{file}:{number}: {examples}: expected worked examples, [[question, answer], ...]"
            )
        try:
            expect = read_expect(values["expect"]) if "expect" in values else None
        except ExpectError as error:
            raise SettingsError(f"{file}:{number}: {error}") from error
        yield Seed(
            id=values["id"],
            family=str(values.get("family", values["id"])),
            reference=values.get("reference"),
            values=values,
            expect=expect,
            executes=values.get("execute", True) is not False,
        )
    if not seen:
        raise SettingsError(f"{file}: no seeds for domain {domain}")


def _is_examples(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in value
    )
