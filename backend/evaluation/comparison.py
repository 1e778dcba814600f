"""One model's evaluation in numbers, and two of them compared item by item.

Only items that both models were really asked and scored on are compared. What was not run, or is on one side
only, is left out and said.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from backend.evaluation.benchmarks import Outcome
from backend.evaluation.metrics import Perplexity, bleu, chrf
from backend.evaluation.rates import Interval, wilson
from backend.evaluation.statistics import Paired, Verdict, holm, judge, pair, sign_flip_p

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """What became of one item: `outcome` by name, `score` 0 to 1 (None: not run), the answer and what the
    scorer says of it."""

    benchmark: str
    id: str
    family: str
    category: str
    outcome: Outcome
    score: float | None
    answer: str
    detail: str = ""
    prompt: str = ""
    reference: str = ""

    @property
    def passed(self) -> bool:
        """Only `correct` is a pass."""
        return self.outcome == "correct"


@dataclass(frozen=True, slots=True)
class BenchmarkScore:
    """A model on one benchmark: of `items` that were run, `passed` are correct; `score` is their mean and
    `interval` Wilson's of the pass rate. `outcomes` counts every outcome, `not_run` among them."""

    name: str
    items: int
    passed: int
    score: float | None
    interval: Interval
    outcomes: Mapping[str, int]

    @property
    def not_run(self) -> int:
        """Items that were neither passed nor failed, for want of an assembler, a core or an answer."""
        return self.outcomes.get("not_run", 0)


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """One evaluation in numbers. `conditions` are what two evaluations must share to be compared fairly, by
    name (template, quantisation, temperature, max_tokens, ...); `notes` are said on every report. BLEU and
    chrF are 0 to 100, over the items that have a reference."""

    model: str
    benchmarks: tuple[BenchmarkScore, ...]
    perplexity: Perplexity = field(default_factory=Perplexity)
    bleu: float | None = None
    chrf: float | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Paired pass/fail: passed by `both`, `neither`, only by the fine-tuned (`won`) or the baseline (`lost`)."""

    both: int
    neither: int
    won: int
    lost: int

    @property
    def items(self) -> int:
        return self.both + self.neither + self.won + self.lost


@dataclass(frozen=True, slots=True)
class GroupComparison:
    """The paired items of one benchmark or one category. `verdict` is given for benchmarks; its p is
    adjusted by Holm across them."""

    name: str
    counts: Counts
    baseline: Interval
    finetuned: Interval
    verdict: Verdict | None = None

    @property
    def baseline_rate(self) -> float:
        return _rate(self.counts.both + self.counts.lost, self.counts.items)

    @property
    def finetuned_rate(self) -> float:
        return _rate(self.counts.both + self.counts.won, self.counts.items)


@dataclass(frozen=True, slots=True)
class Change:
    """One item that only one of the two models passed, with both outcomes."""

    baseline: ItemOutcome
    finetuned: ItemOutcome


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations, item by item. `overall` is over all paired items; `won` and `lost` are what changed;
    `notes` are what a reader must know to judge whether it is fair."""

    baseline: EvaluationSummary
    finetuned: EvaluationSummary
    overall: Verdict
    counts: Counts
    benchmarks: tuple[GroupComparison, ...]
    categories: tuple[GroupComparison, ...]
    won: tuple[Change, ...]
    lost: tuple[Change, ...]
    notes: tuple[str, ...]


def summarise(
    model: str,
    items: Sequence[ItemOutcome],
    *,
    perplexity: Perplexity | None = None,
    conditions: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    id: int | None = None,
) -> EvaluationSummary:
    """The numbers of one evaluation's items. BLEU of 1,000 answers takes about a tenth of a second of CPU."""
    by_benchmark = _grouped(items, lambda item: item.benchmark)
    compared = [item for item in items if item.reference and item.score is not None]
    answers, references = [item.answer for item in compared], [item.reference for item in compared]
    return EvaluationSummary(
        model=model,
        benchmarks=tuple(benchmark_score(name, group) for name, group in by_benchmark.items()),
        perplexity=perplexity or Perplexity(),
        bleu=bleu(answers, references),
        chrf=chrf(answers, references),
        conditions=dict(conditions or {}),
        notes=tuple(notes),
        id=id,
    )


def benchmark_score(name: str, items: Iterable[ItemOutcome]) -> BenchmarkScore:
    """One benchmark's numbers from its items."""
    group = list(items)
    scores = [item.score for item in group if item.score is not None]
    passed = sum(item.passed for item in group if item.score is not None)
    return BenchmarkScore(
        name=name,
        items=len(scores),
        passed=passed,
        score=sum(scores) / len(scores) if scores else None,
        interval=wilson(passed, len(scores)),
        outcomes=dict(Counter(item.outcome for item in group)),
    )


def compare(
    baseline: EvaluationSummary,
    finetuned: EvaluationSummary,
    baseline_items: Sequence[ItemOutcome],
    finetuned_items: Sequence[ItemOutcome],
    *,
    alpha: float = 0.05,
    seed: int = 0,
) -> Comparison:
    """Compare two evaluations on the items that both have, by benchmark and id. The same input gives the same
    verdict: what is drawn is drawn with `seed`. 100,000 items take under two seconds of CPU."""
    pairs = _pairs(baseline_items, finetuned_items)
    return Comparison(
        baseline=baseline,
        finetuned=finetuned,
        overall=judge(_paired(pairs), alpha=alpha, seed=seed),
        counts=_counts(pairs),
        benchmarks=_by_benchmark(pairs, alpha, seed),
        categories=tuple(
            _group(name, group)
            for name, group in sorted(_grouped(pairs, lambda one: one.finetuned.category).items())
        ),
        won=tuple(one for one in pairs if one.finetuned.passed and not one.baseline.passed),
        lost=tuple(one for one in pairs if one.baseline.passed and not one.finetuned.passed),
        notes=tuple(_fairness(baseline, finetuned, baseline_items, finetuned_items, len(pairs))),
    )


def _pairs(baseline_items: Sequence[ItemOutcome], finetuned_items: Sequence[ItemOutcome]) -> list[Change]:
    before = {(item.benchmark, item.id): item for item in baseline_items if item.score is not None}
    return [
        Change(before[item.benchmark, item.id], item)
        for item in finetuned_items
        if item.score is not None and (item.benchmark, item.id) in before
    ]


def _paired(pairs: Sequence[Change]) -> Paired:
    return pair(
        [one.baseline.score or 0.0 for one in pairs],
        [one.finetuned.score or 0.0 for one in pairs],
        [f"{one.finetuned.benchmark}\0{one.finetuned.family}" for one in pairs],
    )


def _by_benchmark(pairs: Sequence[Change], alpha: float, seed: int) -> tuple[GroupComparison, ...]:
    groups = _grouped(pairs, lambda one: one.finetuned.benchmark)
    paired = [_paired(group) for group in groups.values()]
    adjusted = holm([sign_flip_p(one, seed=seed) for one in paired])
    return tuple(
        _group(name, group, judge(one, p_value=p, alpha=alpha, seed=seed))
        for (name, group), one, p in zip(groups.items(), paired, adjusted, strict=True)
    )


def _group(name: str, pairs: Sequence[Change], verdict: Verdict | None = None) -> GroupComparison:
    counts = _counts(pairs)
    return GroupComparison(
        name=name,
        counts=counts,
        baseline=wilson(counts.both + counts.lost, counts.items),
        finetuned=wilson(counts.both + counts.won, counts.items),
        verdict=verdict,
    )


def _counts(pairs: Sequence[Change]) -> Counts:
    seen = Counter((one.baseline.passed, one.finetuned.passed) for one in pairs)
    return Counts(
        both=seen[True, True], neither=seen[False, False], won=seen[False, True], lost=seen[True, False]
    )


def _grouped(things: Iterable[_T], key: Callable[[_T], str]) -> dict[str, list[_T]]:
    groups: dict[str, list[_T]] = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return groups


def _rate(passed: int, items: int) -> float:
    return passed / items if items else 0.0


def _fairness(
    baseline: EvaluationSummary,
    finetuned: EvaluationSummary,
    baseline_items: Sequence[ItemOutcome],
    finetuned_items: Sequence[ItemOutcome],
    paired: int,
) -> Iterator[str]:
    for name in sorted(baseline.conditions.keys() | finetuned.conditions.keys()):
        before, after = (
            baseline.conditions.get(name, "not known"),
            finetuned.conditions.get(name, "not known"),
        )
        if before != after:
            yield f"{name} differs: {before} for the baseline, {after} for the fine-tuned model"
    before_keys = {(item.benchmark, item.id) for item in baseline_items}
    after_keys = {(item.benchmark, item.id) for item in finetuned_items}
    alone = len(before_keys ^ after_keys)
    if alone:
        yield f"{_items(alone)} only one of the two has: left out"
    not_run = len(before_keys & after_keys) - paired
    if not_run:
        yield f"{_items(not_run)} not run for one of the two or both: left out, neither passed nor failed"
    yield from dict.fromkeys((*baseline.notes, *finetuned.notes))


def _items(count: int) -> str:
    return f"{count} item" + ("" if count == 1 else "s")


def evaluation_record(summary: EvaluationSummary) -> dict[str, Any]:
    """An evaluation as the command line's JSON has it."""
    perplexity = summary.perplexity
    return {
        "id": summary.id,
        "model": summary.model,
        "benchmarks": [_score_record(score) for score in summary.benchmarks],
        "perplexity": {
            "word_rolling": perplexity.word_rolling,
            "byte_rolling": perplexity.byte_rolling,
            "word_stride": perplexity.word_stride,
            "completion": perplexity.completion,
            "reason": perplexity.reason,
        },
        "bleu": summary.bleu,
        "chrf": summary.chrf,
        "conditions": dict(summary.conditions),
        "notes": list(summary.notes),
    }


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """A comparison as the command line's JSON has it: `{baseline, finetuned, verdict, items_needed,
    benchmarks, ...}`, intervals as `[low, high]`."""
    return {
        "baseline": comparison.baseline.model,
        "finetuned": comparison.finetuned.model,
        **_verdict_record(comparison.overall),
        **_counts_record(comparison.counts),
        "benchmarks": [_group_record(group) for group in comparison.benchmarks],
        "categories": [_group_record(group) for group in comparison.categories],
        "notes": list(comparison.notes),
    }


def _score_record(score: BenchmarkScore) -> dict[str, Any]:
    return {
        "name": score.name,
        "items": score.items,
        "passed": score.passed,
        "score": score.score,
        "interval": [score.interval.low, score.interval.high],
        "not_run": score.not_run,
        "outcomes": dict(score.outcomes),
    }


def _verdict_record(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.verdict,
        "items_needed": verdict.items_needed,
        "difference": verdict.difference,
        "interval": [verdict.interval.low, verdict.interval.high],
        "p_value": verdict.p_value,
        "items": verdict.items,
        "families": verdict.families,
        "reason": verdict.reason,
    }


def _counts_record(counts: Counts) -> dict[str, int]:
    return {"both": counts.both, "neither": counts.neither, "won": counts.won, "lost": counts.lost}


def _group_record(group: GroupComparison) -> dict[str, Any]:
    return {
        "name": group.name,
        "items": group.counts.items,
        "baseline": group.baseline_rate,
        "baseline_interval": [group.baseline.low, group.baseline.high],
        "finetuned": group.finetuned_rate,
        "finetuned_interval": [group.finetuned.low, group.finetuned.high],
        **_counts_record(group.counts),
        **(_verdict_record(group.verdict) if group.verdict else {}),
    }
