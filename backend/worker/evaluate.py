"""Evaluates a model: greedy answers to benchmark items, and perplexity of held-out rows.

Each item is told as an event the moment its batch is done, and never twice: what the events file (or
`--done`) has already is passed over, so a job that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.contract.events import Done, Item, Perplexity, Progress, Started, parse
from backend.contract.job import EvaluateParameters
from backend.contract.rows import Messages, RowError, prompt_messages, training_messages
from backend.worker.data import read_rows
from backend.worker.generate import Prompt, Sampling, answer
from backend.worker.models import device, find_model, load_for_inference, load_tokenizer
from backend.worker.perplexity import (
    Window,
    log_likelihoods,
    perplexity,
    rolling_windows,
    stride_windows,
    words,
)
from backend.worker.run import Refused, Session, Stopped, run
from backend.worker.text import render_answered, render_prompt

DEFAULT_CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One item of a benchmark; `benchmark` is its file's name without `.jsonl`."""

    benchmark: str
    id: str
    prompt: Messages
    reference: str | None
    family: str | None
    category: str | None

    @property
    def key(self) -> str:
        """What a `--done` file calls it."""
        return f"{self.benchmark}/{self.id}"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One held-out row: its plain text, and its prompt and answer where it has them."""

    text: str
    prompt: Messages
    completion: Messages


def work(parameters: EvaluateParameters, session: Session) -> Done:
    """Answers what is not answered yet and measures perplexity; `answers.jsonl` is what it makes.

    Raises:
        Refused: the model, the items or the held-out rows cannot be used.
        Stopped: a stop signal came; what was answered is told and will not be asked again.
    """
    items = [item for path in parameters.items for item in read_items(Path(path))]
    heldout = read_rows(Path(parameters.heldout), _held_out) if parameters.heldout else []
    answered = _answered(session, parameters.done)
    remaining = [item for item in items if item.key not in answered]
    source = find_model(parameters.model, parameters.base_model)

    import torch  # noqa: F401  named here so that a host without it fails before anything is told

    tokenizer = load_tokenizer(source)
    model = load_for_inference(source, parameters.bf16, session)
    session.events.emit(
        Started(
            kind="evaluate",
            model=source.name,
            device=device(),
            items=len(items),
            eval_samples=len(heldout),
            load_seconds=session.seconds(),
        )
    )
    session.can_save = session.resumable = True
    _answer_items(model, tokenizer, remaining, len(items), parameters, session)
    session.can_save = False
    if heldout:
        session.events.emit(_perplexity(model, tokenizer, heldout, parameters))
    return Done(artifact=str(_write_answers(session, parameters)), seconds=session.seconds())


def read_items(path: Path) -> list[BenchmarkItem]:
    """A benchmark's items; an item without an id is known by its number in the file, from 1.

    Raises:
        Refused: broken rows, or an id that comes twice.
    """
    seen: list[str] = []

    def accept(row: dict[str, Any]) -> BenchmarkItem:
        name = str(row.get("id") or len(seen) + 1)
        if name in seen:
            raise RowError(f"the id {name} is there already")
        seen.append(name)
        reference = row.get("output")
        return BenchmarkItem(
            benchmark=path.name.removesuffix(".jsonl"),
            id=name,
            prompt=prompt_messages(row),
            reference=str(reference) if reference is not None else None,
            family=row.get("family"),
            category=row.get("category"),
        )

    return read_rows(path, accept)


def _answer_items(
    model: Any,
    tokenizer: Any,
    remaining: list[BenchmarkItem],
    total: int,
    parameters: EvaluateParameters,
    session: Session,
) -> None:
    done = total - len(remaining)
    prompts = [Prompt(item, render_prompt(tokenizer, item.prompt)) for item in remaining]
    for batch in answer(
        model, tokenizer, prompts, parameters.batch_size, Sampling(parameters.max_new_tokens)
    ):
        for found in batch:
            item = found.of
            session.events.emit(
                Item(
                    benchmark=item.benchmark,
                    id=item.id,
                    answer=found.text,
                    reference=item.reference,
                    family=item.family,
                    category=item.category,
                    tokens=found.tokens,
                    finish=found.finish,
                )
            )
        done += len(batch)
        session.events.emit(Progress(what="items", done=done, total=total))
        if session.stop_requested:
            raise Stopped(True, f"stopped with {done} of {total} items answered")


def _perplexity(
    model: Any, tokenizer: Any, heldout: list[HeldOut], parameters: EvaluateParameters
) -> Perplexity:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", DEFAULT_CONTEXT)
    length = parameters.max_length or context
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    pad = tokenizer.pad_token_id
    texts = [row.text for row in heldout]
    # The prefix is ours: a tokenizer that adds its own would have it scored as if it were text.
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in texts]

    rolling = [
        window for row, ids in enumerate(tokens) for window in rolling_windows(row, ids, prefix, length)
    ]
    rolling_sum = sum(log_likelihoods(model, rolling, pad))
    stride_sum = rolling_sum
    if parameters.stride and any(len(ids) > length for ids in tokens):
        sliding = [
            window
            for row, ids in enumerate(tokens)
            for window in stride_windows(row, ids, prefix, length, parameters.stride)
        ]
        stride_sum = sum(log_likelihoods(model, sliding, pad))

    word_count = sum(words(text) for text in texts)
    completion = _completion_windows(tokenizer, heldout, context)
    completion_sums = log_likelihoods(model, completion, pad)
    losses: list[float | None] = [None] * len(heldout)
    for window, total in zip(completion, completion_sums, strict=True):
        losses[window.row] = -total / window.scored
    completion_tokens = sum(window.scored for window in completion)
    return Perplexity(
        documents=len(heldout),
        completion=perplexity(sum(completion_sums), completion_tokens),
        completion_tokens=completion_tokens,
        completion_losses=losses,
        word_rolling=perplexity(rolling_sum, word_count),
        byte_rolling=perplexity(rolling_sum, sum(len(text.encode()) for text in texts)),
        word_stride=perplexity(stride_sum, word_count) if parameters.stride else None,
        stride=parameters.stride or None,
        max_length=length,
    )


def _completion_windows(tokenizer: Any, heldout: list[HeldOut], context: int) -> list[Window]:
    """One window for each row with an answer; a row longer than the context keeps its end."""
    windows: list[Window] = []
    for row, held in enumerate(heldout):
        if not held.completion:
            continue
        given = len(render_prompt(tokenizer, held.prompt))
        ids = render_answered(tokenizer, held.prompt, held.completion)
        kept = ids[-context:]
        scored = min(len(ids) - given, len(kept) - 1)
        if scored > 0:
            windows.append(Window(row, kept, scored))
    return windows


def _held_out(row: dict[str, Any]) -> HeldOut:
    """A row of plain `text`, or one of the shapes of supervised fine-tuning."""
    if isinstance(row.get("text"), str) and "output" not in row:
        if not row["text"].strip():
            raise RowError("text is empty")
        return HeldOut(row["text"], [], [])
    prompt, completion = training_messages(row)
    return HeldOut("\n\n".join(message["content"] for message in prompt + completion), prompt, completion)


def _answered(session: Session, done_file: str) -> set[str]:
    """Keys of the items that are answered: those of the events file so far, and of the `--done` file."""
    keys: set[str] = set()
    if session.events.path is not None and session.resume:
        keys |= {f"{item.benchmark}/{item.id}" for item in _told_items(session.events.path)}
    if done_file:
        try:
            keys |= {line.strip() for line in Path(done_file).read_text("utf-8").splitlines() if line.strip()}
        except OSError as error:
            raise Refused("missing_data", f"--done: {error}", "give a file of BENCHMARK/ID lines") from None
    return keys


def _told_items(path: Path) -> list[Item]:
    return [record.event for record in parse(path.read_bytes()).records if isinstance(record.event, Item)]


def _write_answers(session: Session, parameters: EvaluateParameters) -> Path:
    """Every item that the events file tells of, as `{benchmark, id, answer, reference, ...}` rows."""
    target = Path(parameters.output_dir) / "answers.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    told = _told_items(session.events.path) if session.events.path else []
    rows = [
        {
            "benchmark": item.benchmark,
            "id": item.id,
            "answer": item.answer,
            "reference": item.reference,
            "family": item.family,
            "category": item.category,
            "finish": item.finish,
        }
        for item in told
    ]
    beside = target.with_suffix(".tmp")
    beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    beside.replace(target)
    return target


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.worker.evaluate`."""
    return run("evaluate", work, argv)


if __name__ == "__main__":
    sys.exit(main())
