"""The gate: on what terms a model is published. Its newest comparison must not call it worse, and its server
must send what it was trained on; who overrides that gives a reason, which is kept with the deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.deployment.parity import Parity
from backend.deployment.steps import DeploymentFailed
from backend.evaluation.comparing import load_comparison
from backend.evaluation.comparison import Comparison
from backend.registry.references import ModelReferenceError, resolve
from backend.settings import Workspace
from backend.store import deployments, evaluations, models
from backend.store.evaluations import ComparisonRow

EXIT_REFUSED = 3


class DeploymentRefused(DeploymentFailed):
    """A gate refused it; nothing was published, and what answered before still does."""

    exit_code = EXIT_REFUSED


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of a model before it is published. `baseline` and `benchmarks` choose the comparison and
    what counts in it (none: the newest, and all of its benchmarks). The three reasons override a refusal."""

    baseline: str = ""
    benchmarks: tuple[str, ...] = ()
    allow_worse: str = ""
    unevaluated: str = ""
    allow_template: str = ""


STANDARD = Terms()
"""Nothing overridden: the newest comparison, on all of its benchmarks, against whatever it was made with."""


async def require_verdict(ws: Workspace, model: str, terms: Terms) -> dict[str, Any]:
    """What the deployment keeps of the verdict: comparison, verdict, words, and the reason of an override.

    Raises DeploymentRefused: never compared, or worse overall or on a benchmark that counts.
    """
    row = await _newest(ws, model, terms.baseline)
    if row is None:
        against = f" with {terms.baseline}" if terms.baseline else ""
        if terms.unevaluated:
            return {"verdict": "unevaluated", "words": f"not compared{against}", "reason": terms.unevaluated}
        raise DeploymentRefused(
            f"{model} was never compared{against}, so nothing says that it is not worse. Evaluate it and what it "
            f"replaces (hafs-tui eval run), then: hafs-tui eval compare BASELINE {model}. Or say why it may go "
            "unevaluated: --unevaluated REASON"
        )
    comparison = await load_comparison(ws, row)
    worse = _worse(comparison, terms.benchmarks, model)
    words = f"comparison {row.id} with {comparison.baseline.model}: {comparison.overall.reason}"
    kept = {"comparison": row.id, "baseline": comparison.baseline.model, "words": words}
    if not worse:
        return {**kept, "verdict": row.verdict}
    if terms.allow_worse:
        return {**kept, "verdict": "worse", "on": worse, "reason": terms.allow_worse}
    raise DeploymentRefused(
        f"{model} is worse on {', '.join(worse)} ({words}). What answers now stays. "
        "To publish it all the same: --allow-worse REASON"
    )


def require_parity(parity: Parity, terms: Terms) -> dict[str, Any]:
    """What the deployment keeps of the check. Raises DeploymentRefused for a difference without a reason."""
    kept: dict[str, Any] = {"checked": parity.checked, "words": parity.words}
    if not parity.differences:
        return kept
    if terms.allow_template:
        return {**kept, "reason": terms.allow_template}
    raise DeploymentRefused(
        f"the server does not send what the model was trained on:\n{parity.words}\n"
        "Correct the template; or, to publish it all the same: --allow-template REASON"
    )


def gate_words(details: Mapping[str, Any]) -> str:
    """What a deployment's gate and parity check said, for people; "" where it had none."""
    lines = []
    for title, kept in (("gate", details.get("gate")), ("parity", details.get("parity"))):
        if isinstance(kept, dict):
            reason = f" (published because: {kept['reason']})" if kept.get("reason") else ""
            lines.append(
                f"{title}: {kept.get('verdict', '')} {kept.get('words', '')}{reason}".replace(":  ", ": ")
            )
    return "\n".join(lines)


def _worse(comparison: Comparison, chosen: tuple[str, ...], model: str) -> list[str]:
    """The benchmarks on which it is worse, of those that count; "all benchmarks" for the overall verdict."""
    known = {group.name for group in comparison.benchmarks}
    missing = [name for name in chosen if name not in known]
    if missing:
        raise DeploymentRefused(
            f"{model} was not compared on {', '.join(missing)}; its newest comparison has: {', '.join(sorted(known))}"
        )
    found = [
        group.name
        for group in comparison.benchmarks
        if group.verdict is not None
        and group.verdict.verdict == "worse"
        and (not chosen or group.name in chosen)
    ]
    return found if chosen or comparison.overall.verdict != "worse" else [*found, "all benchmarks"]


async def _newest(ws: Workspace, model: str, baseline: str) -> ComparisonRow | None:
    names = await same_model(ws, model)
    against = await same_model(ws, baseline) if baseline else set()
    for row in await evaluations.comparisons(ws.db):
        after = await evaluations.by_id(ws.db, row.finetuned)
        before = await evaluations.by_id(ws.db, row.baseline)
        if after is None or before is None or after.model not in names:
            continue
        if not baseline or before.model in against:
            return row
    return None


async def same_model(ws: Workspace, model: str) -> set[str]:
    """Every name under which the same weights may have been evaluated: a tag, its GGUF, the merged folder, the
    adapter; the adapter's base is another model."""
    names: set[str] = set()
    name: str | None = model
    while name and name not in names:
        names.add(name)
        try:
            resolved = await resolve(ws, name)
        except ModelReferenceError:
            break
        names |= {resolved.reference, resolved.name}
        if resolved.kind == "deployment":
            deployment = await deployments.current(ws.db, resolved.location)
            name = deployment.model if deployment else None
        elif resolved.kind in ("gguf", "ollama", "folder"):
            row = await models.by_name(ws.db, resolved.name)
            name = row.parent if row else None
        else:
            name = None
    return names
