"""The card of a sample: all that its detail pane and `samples show` say about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from backend.review.log import ReviewError
from backend.settings import Workspace
from backend.store import samples
from backend.store.connection import typed
from backend.store.decisions import Decision
from backend.store.samples import GateRow, Sample

_PAGE = 500
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Revision:
    revision: int
    instruction: str
    input: str
    output: str
    author: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """The request that a sample came from. `seconds` is how long the answer took, `routing` why it went to
    this provider (None where only one was possible)."""

    request_id: int
    provider: str
    model: str
    prompt: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    attempt: int
    routing: str | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Card:
    sample: Sample
    campaign: str | None
    gates: list[GateRow]
    provenance: Provenance | None
    revisions: list[Revision]
    decisions: list[Decision]


async def card(ws: Workspace, sample_id: int) -> Card:
    """The card of one sample. Raises ReviewError where there is no such sample."""
    found = await cards(ws, [sample_id])
    if not found:
        raise ReviewError(f"no sample {sample_id}; hafs-tui samples list shows which there are")
    return found[0]


async def cards(ws: Workspace, ids: Sequence[int]) -> list[Card]:
    """The cards of these samples in the order asked for; ids that are not there are left out."""
    found: list[Card] = []
    for start in range(0, len(ids), _PAGE):
        found += await _page(ws, ids[start : start + _PAGE])
    return found


async def _page(ws: Workspace, ids: Sequence[int]) -> list[Card]:
    gates = await _by_sample(ws, GateRow, "gates", "position", ids)
    revisions = await _by_sample(ws, Revision, "revisions", "revision", ids)
    decisions = await _by_sample(ws, Decision, "decisions", "id", ids)
    names = {row[0]: str(row[1]) for row in await ws.db.fetch_all("SELECT id, name FROM campaigns")}
    marks = ",".join("?" * len(ids))
    requests = await ws.db.fetch_all(
        "SELECT samples.id AS sample_id, r.id AS request_id, r.provider, r.model, r.prompt, r.prompt_tokens, "  # noqa: S608
        "r.completion_tokens, r.cost_usd, r.attempt, r.routing, r.ended_at - r.sent_at AS seconds "
        f"FROM samples JOIN requests AS r ON r.id = samples.request_id WHERE samples.id IN ({marks})",
        tuple(ids),
    )
    provenance = {row["sample_id"]: typed(Provenance, row) for row in requests}
    return [
        Card(
            sample=sample,
            campaign=None if sample.campaign_id is None else names[sample.campaign_id],
            gates=gates[sample.id],
            provenance=provenance.get(sample.id),
            revisions=revisions[sample.id],
            decisions=decisions[sample.id],
        )
        for sample in await samples.by_ids(ws.db, ids)
    ]


async def _by_sample(
    ws: Workspace, part: type[_Part], table: str, order: str, ids: Sequence[int]
) -> defaultdict[int, list[_Part]]:
    marks = ",".join("?" * len(ids))
    parts: defaultdict[int, list[_Part]] = defaultdict(list)
    for row in await ws.db.fetch_all(
        f"SELECT * FROM {table} WHERE sample_id IN ({marks}) ORDER BY sample_id, {order}",  # noqa: S608
        tuple(ids),
    ):
        parts[row["sample_id"]].append(typed(part, row))
    return parts


def as_json(card: Card) -> dict[str, Any]:
    """The card as the command line prints it: the sample's fields, and the rest beside them."""
    fields = asdict(card.sample)
    for internal in ("campaign_id", "request_id", "exact_hash", "change"):
        del fields[internal]
    return {
        **fields,
        "campaign": card.campaign,
        "gates": [asdict(gate) for gate in card.gates],
        "provenance": asdict(card.provenance) if card.provenance else None,
        "revisions": [asdict(revision) for revision in card.revisions],
        "decisions": [asdict(decision) for decision in card.decisions],
    }
