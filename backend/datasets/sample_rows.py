"""Samples as rows of a dataset and back, without loss: what an imported row held beside its texts lies in the
sample's `extra` and comes out again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from backend.datasets.rows import JsonObject, Rejection, Row, Turn
from backend.store.samples import Sample


def row_of(sample: Sample, rejection: Rejection | None = None) -> Row:
    """The sample as it is now. A sample that a model wrote here names it as its source; its time is naive
    local ISO 8601, as the origin writes it."""
    extra = sample.extra
    made = datetime.fromtimestamp(sample.created_at).isoformat(timespec="seconds")
    return Row(
        instruction=sample.instruction,
        input=sample.input,
        output=sample.output,
        history=tuple(Turn(turn["role"], turn["content"]) for turn in extra.get("history", ())),
        sample_id=sample.uid,
        domain=str(extra.get("row_domain") or sample.domain),
        family=sample.family,
        source=sample.source if sample.model is None else f"{sample.provider}/{sample.model}",
        quality_score=sample.score,
        timestamp=str(extra.get("timestamp") or made),
        rejection=rejection,
        extra=extra.get("row", {}),
    )


def extra_of(row: Row) -> JsonObject:
    """What `row_of` needs beside a sample's columns to give `row` again."""
    extra: JsonObject = {}
    if row.history:
        extra["history"] = [{"role": turn.role, "content": turn.content} for turn in row.history]
    if row.timestamp is not None:
        extra["timestamp"] = row.timestamp
    if row.rejection is not None:
        extra["rejection"] = {"reason": row.rejection.reason, "details": row.rejection.details}
    if row.extra:
        extra["row"] = dict(row.extra)
    return extra


def rejection_in(extra: Mapping[str, Any]) -> Rejection | None:
    """The rejection that an imported row came with."""
    kept = extra.get("rejection")
    return Rejection(str(kept["reason"]), kept["details"]) if isinstance(kept, dict) else None
