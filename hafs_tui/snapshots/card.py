"""A sample's card as blocks of text, and a filter in words."""

from __future__ import annotations

import json

from backend.review.card import Card
from backend.store.samples import Filter, GateRow
from hafs_tui import format as fmt
from hafs_tui.snapshots.review import STATES
from hafs_tui.widgets.code_view import Block


def describe(filters: Filter) -> str:
    """A filter in words."""
    parts = [", ".join(filters.states) or "every state"]
    if filters.text:
        parts.append(f"“{filters.text}”")
    if filters.campaign:
        parts.append(f"campaign {filters.campaign}")
    if filters.domain:
        parts.append(f"domain {filters.domain}")
    if filters.min_score is not None:
        parts.append(f"score ≥ {filters.min_score:g}")
    return " · ".join(parts)


def card_blocks(card: Card) -> list[Block]:
    """A card as blocks: what is decided on first, then why it is here and what happened to it."""
    sample = card.sample
    sign = STATES[sample.state][0]
    head = f"{sign} {sample.state} · sample {sample.id} · revision {sample.revision}"
    blocks = [Block(head, sample.instruction)]
    if sample.input:
        blocks.append(Block("Input", sample.input))
    blocks.append(Block("Answer", sample.output))
    if card.gates:
        lines = [_gate_line(gate) for gate in card.gates]
        blocks.append(Block("Gates", "\n".join(lines), code=False))
    blocks.append(Block("From", "\n".join(_origin(card)), code=False))
    if card.decisions:
        lines = [
            f"{decision.kind} by {decision.reviewer} ({decision.reviewer_kind}), {fmt.ago(decision.at)}"
            + (f": {decision.reason}" if decision.reason else "")
            for decision in card.decisions
        ]
        blocks.append(Block("Decisions", "\n".join(lines), code=False))
    return blocks


def _gate_line(gate: GateRow) -> str:
    mark = {True: "✓", False: "✗", None: "-"}[gate.passed]
    figure = "" if gate.figure is None else f" {fmt.number(gate.figure)}"
    return f"{mark} {gate.name}{figure} {gate.reason}"


def _origin(card: Card) -> list[str]:
    sample, request = card.sample, card.provenance
    lines = [f"domain {sample.domain}, family {sample.family}, {sample.source}, {fmt.ago(sample.created_at)}"]
    if card.campaign:
        lines.append(f"campaign {card.campaign}")
    if request is not None:
        tokens = f"{fmt.count(request.prompt_tokens)} in, {fmt.count(request.completion_tokens)} out"
        lines.append(f"{request.provider}/{request.model}, {tokens}, {fmt.money(request.cost_usd)}")
        if request.routing:
            lines.append(f"routing: {json.loads(request.routing)['reason']}")
    return lines
