"""Looks at what will really be trained on, before any minute of training is spent.

Judged by the tokens that the trainer made, not by what was meant: answers are there, they end with an end
token, and what `max_length` cuts is told. Since masks are judged and not token ids, a pad token that is also
the end token (as SmolLM2's) does no harm.
"""

from __future__ import annotations

from typing import Any

from backend.worker.run import Refused, Session
from backend.worker.text import end_tokens

CHECKED_ROWS = 2000


def check_labels(trainer: Any, rows: int, session: Session) -> None:
    """Checks the rows of supervised fine-tuning by their label masks.

    Raises:
        Refused: no row trains an end token, so the model would never learn to stop; or no row is left.
    """
    kept = _kept(trainer, rows, session)
    ends = end_tokens(trainer.model, trainer.processing_class)
    sample = trainer.train_dataset.select(range(min(kept, CHECKED_ROWS)))
    without = [
        row for row in sample if not ends.intersection(label for label in row["labels"] if label != -100)
    ]
    cut = sum(len(row["input_ids"]) >= trainer.args.max_length for row in without)
    if len(without) == len(sample) and cut < len(without):
        raise _never_ends(trainer, ends)
    if without:
        session.warn(
            "eos_not_trained",
            f"{len(without)} of {len(sample)} checked rows train no end token, {cut} of them cut by max_length",
            "raise max_length, or shorten these answers",
        )
    _show(trainer)


def _show(trainer: Any) -> None:
    """The first row as it is trained, in the log: what is masked, and what is learnt."""
    row = trainer.train_dataset[0]
    decode = trainer.processing_class.decode
    learnt = [label for label in row["labels"] if label != -100]
    masked = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
    print(f"first row, masked: {decode(masked)!r}\nfirst row, trained: {decode(learnt)!r}", flush=True)


def check_pairs(trainer: Any, rows: int, session: Session) -> None:
    """Checks preference pairs by their token ids; `max_length` cuts a pair only when its batch is made.

    Raises:
        Refused: no chosen answer ends with an end token, or no pair is left.
    """
    kept = _kept(trainer, rows, session)
    ends = end_tokens(trainer.model, trainer.processing_class)
    sample = trainer.train_dataset.select(range(min(kept, CHECKED_ROWS)))
    if not any(ends.intersection(pair["chosen_ids"]) for pair in sample):
        raise _never_ends(trainer, ends)
    longest = trainer.args.max_length
    cut = sum(
        len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"])) > longest
        for pair in sample
    )
    if cut:
        session.warn("cut", f"max_length cuts {cut} of {len(sample)} checked pairs", "raise max_length")
    decode = trainer.processing_class.decode
    first = sample[0]
    for name in ("prompt", "chosen", "rejected"):
        print(f"first pair, {name}: {decode(first[name + '_ids'])!r}", flush=True)


def _kept(trainer: Any, rows: int, session: Session) -> int:
    """How many rows the trainer kept; those whose prompt alone fills `max_length` are gone."""
    kept = len(trainer.train_dataset)
    if kept == 0:
        raise Refused("nothing_to_train", "every prompt alone fills max_length", "raise max_length")
    if kept < rows:
        session.warn(
            "dropped", f"{rows - kept} of {rows} rows: their prompt fills max_length", "raise max_length"
        )
    return kept


def _never_ends(trainer: Any, ends: set[int]) -> Refused:
    names = trainer.processing_class.convert_ids_to_tokens(sorted(ends))
    return Refused(
        "eos_not_trained",
        f"no answer ends with an end token ({', '.join(names)}): the model would never learn to stop",
        "use the instruct model of this family, or correct its chat template or eos_token",
    )
