"""The gates themselves: small functions that look at one candidate and say passed, failed or not run.

A gate never raises because of what a model wrote. `passed` is None where the gate had nothing to go by (no
reference, no assembler): that is "not run", never "passed".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from backend.execution.items import Executed
from backend.similarity.normalise import Normalise, normalise_text, same_answer


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a model offered, before it is a sample. `reference` is the seed's own answer where it has one."""

    instruction: str
    output: str
    input: str = ""
    domain: str = ""
    family: str = ""
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate said. `passed` None: not run. `figure` is the number behind it, where there is one."""

    name: str
    passed: bool | None
    figure: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Match:
    """An earlier sample that a candidate repeats. `similarity` is the Jaccard similarity, 1 where `exact`."""

    sample_id: str
    similarity: float
    exact: bool


DuplicateLookup = Callable[[Candidate], Awaitable[Match | None]]
Execute = Callable[[Candidate], Awaitable[Executed | None]]
"""Executes a candidate's code in what its seed says; None where there is nothing to execute."""

# What chat templates put between turns. In an answer they mean that the model went on to play both parts.
_ROLE_MARKERS = re.compile(
    r"<\|[a-z_]{2,24}\|>"  # ChatML, Llama 3, Phi: <|im_start|>, <|eot_id|>, <|assistant|>
    r"|</?s>|\[/?INST\]|<</?SYS>>"  # Llama 2, Mistral
    r"|<(?:start|end)_of_turn>"  # Gemma
    r"|<[|｜](?:begin|end)▁of▁sentence[|｜]>|<[|｜](?:User|Assistant)[|｜]>"  # DeepSeek
    r"|^\s*#{2,3} (?:Instruction|Response|Input):"  # Alpaca
    r"|^\s*(?:Human|Assistant):\s",
    re.MULTILINE,
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def schema_gate(candidate: Candidate) -> GateResult:
    """Instruction and output are there, and nothing in them is a chat template's or no character at all.

    Figure: none.
    """
    problem = _schema_problem(candidate)
    return GateResult("schema", problem is None, None, problem or "instruction and output are whole")


def _schema_problem(candidate: Candidate) -> str | None:
    parts = {"instruction": candidate.instruction, "input": candidate.input, "output": candidate.output}
    for name in ("instruction", "output"):
        if not normalise_text(parts[name]):
            return f"the {name} is empty"
    for name, text in parts.items():
        surrogate = _SURROGATE.search(text)
        if surrogate:
            return f"the {name} holds half a character (lone surrogate U+{ord(surrogate[0]):04X})"
        marker = _ROLE_MARKERS.search(text)
        if marker:
            return f"the {name} holds a role marker of a chat template: {marker[0].strip()!r}"
    return None


def length_gate(candidate: Candidate, least: int, most: int) -> GateResult:
    """The output has `least` to `most` characters, both included. Figure: its characters."""
    length = len(candidate.output)
    if length < least:
        reason = f"{length} characters, at least {least} are wanted"
    elif length > most:
        reason = f"{length} characters, at most {most} are allowed"
    else:
        reason = f"{length} characters"
    return GateResult("length", least <= length <= most, float(length), reason)


def reference_gate(candidate: Candidate, normalise: Normalise = "text") -> GateResult:
    """The output says what the seed's reference says (`similarity.normalise.same_answer`). Not run where
    the seed has none. Figure: 1 or 0."""
    if candidate.reference is None:
        return GateResult("reference", None, None, "not run: the seed has no reference answer")
    same = same_answer(candidate.output, candidate.reference, normalise)
    reason = "equals the reference" if same else f"differs from the reference {_short(candidate.reference)!r}"
    return GateResult("reference", same, float(same), reason)


async def execution_gate(candidate: Candidate, execute: Execute | None) -> GateResult:
    """The answer's code assembles and, where its seed states what it must do, does it. Figure: how far it
    came, 0 (refused by asar) to 1 (right). Not run where there is no code, no asar or no core. The reason may
    hold words of asar: foreign text."""
    executed = await execute(candidate) if execute else None
    if executed is None:
        return GateResult("execution", None, None, "not run: the seed asks for no code that can be executed")
    if executed.outcome == "not_run":
        return GateResult("execution", None, None, executed.detail)
    passed = executed.outcome == "correct"
    said = executed.detail if passed else f"{executed.outcome}: {executed.detail}"
    warned = f"; asar warns: {_short(executed.warnings[0], 120)}" if executed.warnings else ""
    return GateResult("execution", passed, executed.score, said + warned)


async def duplicates_gate(candidate: Candidate, lookup: DuplicateLookup | None) -> GateResult:
    """No accepted sample says the same. Figure: the similarity to the nearest one found, 0 where none is.
    Not run without a `lookup`."""
    if lookup is None:
        return GateResult("duplicates", None, None, "not run: no index of accepted samples was given")
    match = await lookup(candidate)
    if match is None:
        return GateResult("duplicates", True, 0.0, "no accepted sample is like it")
    how = "repeats" if match.exact else f"is {match.similarity:.2f} like"
    return GateResult("duplicates", False, match.similarity, f"{how} sample {match.sample_id}")


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
