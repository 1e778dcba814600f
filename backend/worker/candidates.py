"""Samples several answers to each prompt, for preference pairs; goes on where it was stopped."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from backend.contract.events import Candidate, Done, Progress, Started, parse
from backend.contract.job import CandidatesParameters
from backend.contract.rows import Messages, prompt_messages
from backend.worker.data import read_rows
from backend.worker.generate import Prompt, Sampling, answer
from backend.worker.models import device, find_model, load_for_inference, load_tokenizer
from backend.worker.run import Session, Stopped, run
from backend.worker.text import render_prompt


def work(parameters: CandidatesParameters, session: Session) -> Done:
    """Answers each prompt `candidates_per_prompt` times; `candidates.jsonl` is what it makes.

    Raises:
        Refused: the model or the prompts cannot be used.
        Stopped: a stop signal came; prompts that are answered will not be asked again.
    """
    prompts = dict(_numbered(read_rows(Path(parameters.prompts), _prompt)))
    told = Counter(found.prompt_id for found in _told(session)) if session.resume else Counter[str]()
    remaining = [name for name in prompts if told[name] < parameters.candidates_per_prompt]
    source = find_model(parameters.model, parameters.base_model)

    import torch

    tokenizer = load_tokenizer(source)
    model = load_for_inference(source, parameters.bf16, session)
    session.events.emit(
        Started(
            kind="candidates",
            model=source.name,
            device=device(),
            items=len(prompts),
            load_seconds=session.seconds(),
        )
    )
    session.can_save = session.resumable = True
    # Each resumed part draws anew: with one seed for all, it would repeat the first part's noise.
    torch.manual_seed(parameters.seed + len(prompts) - len(remaining))
    sampling = Sampling(
        parameters.max_new_tokens,
        parameters.temperature,
        parameters.top_p,
        parameters.candidates_per_prompt,
    )
    asked = [Prompt(name, render_prompt(tokenizer, prompts[name])) for name in remaining]
    done = len(prompts) - len(remaining)
    for batch in answer(model, tokenizer, asked, parameters.batch_size, sampling):
        for found in batch:
            session.events.emit(
                Candidate(
                    prompt_id=found.of,
                    index=found.index,
                    answer=found.text,
                    tokens=found.tokens,
                    finish=found.finish,
                )
            )
        done += len({found.of for found in batch})
        session.events.emit(Progress(what="prompts", done=done, total=len(prompts)))
        if session.stop_requested:
            raise Stopped(True, f"stopped with {done} of {len(prompts)} prompts answered")
    return Done(artifact=str(_write(session, parameters)), seconds=session.seconds())


def _prompt(row: dict[str, Any]) -> tuple[str, Messages]:
    return str(row.get("id") or ""), prompt_messages(row)


def _numbered(rows: list[tuple[str, Messages]]) -> list[tuple[str, Messages]]:
    """A prompt without an id is known by its number, from 1."""
    return [(name or str(number), prompt) for number, (name, prompt) in enumerate(rows, start=1)]


def _told(session: Session) -> list[Candidate]:
    path = session.events.path
    if path is None:
        return []
    return [
        record.event for record in parse(path.read_bytes()).records if isinstance(record.event, Candidate)
    ]


def _write(session: Session, parameters: CandidatesParameters) -> Path:
    target = Path(parameters.output_dir) / "candidates.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    latest = {(found.prompt_id, found.index): found for found in _told(session)}
    rows = [
        {"prompt_id": found.prompt_id, "index": found.index, "answer": found.answer, "finish": found.finish}
        for found in latest.values()
    ]
    beside = target.with_suffix(".tmp")
    beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    beside.replace(target)
    return target


def main(argv: list[str] | None = None) -> int:
    """`python -m backend.worker.candidates`."""
    return run("candidates", work, argv)


if __name__ == "__main__":
    sys.exit(main())
