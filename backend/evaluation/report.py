"""The comparison as a page of Markdown, to be read by a person and kept beside the model.

Everything that a model wrote is hostile here too: answers stand in fences that are longer than any run of
backticks within, names are escaped, and control characters are shown as glyphs, since reports are printed
in terminals.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from backend.evaluation.comparison import Change, Comparison, GroupComparison, ItemOutcome
from backend.evaluation.metrics import Perplexity
from backend.evaluation.rates import Interval
from backend.evaluation.statistics import Verdict

MOST_CHANGES = 20
MOST_CHARACTERS = 4_000

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&])")
_TITLES = {"better": "Better", "worse": "Worse", "cannot_tell": "Can't tell"}


def verdict_words(verdict: Verdict) -> str:
    """`better: +34.0 points, 95 % interval +20.1 to +46.8, p = 0.0003`, or `can't tell: ...; about 40 more items
    needed`. Points are hundredths of the score."""
    name = verdict.verdict.replace("cannot_tell", "can't tell")
    figures = f"{_points(verdict.difference)} points, 95 % interval {_span(verdict.interval)}, {_p(verdict.p_value)}"
    if verdict.verdict != "cannot_tell":
        return f"{name}: {figures}"
    needed = verdict.items_needed
    how_many = verdict.reason if needed is None else f"about {_many(needed, 'more item')} needed"
    return f"{name}: {figures}; {how_many}"


def comparison_markdown(comparison: Comparison) -> str:
    """The whole report. At most 20 wins and 20 losses are shown with their answers, each cut at 4,000
    characters; the counts are of all."""
    return "\n".join(_lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    overall = comparison.overall
    baseline, finetuned = _inline(comparison.baseline.model), _inline(comparison.finetuned.model)
    yield f"# {_TITLES[overall.verdict]}: {finetuned} against {baseline}"
    yield ""
    yield f"**{verdict_words(overall)}**"
    yield ""
    yield f"- Baseline: {baseline}"
    yield f"- Fine-tuned: {finetuned}"
    yield (
        f"- {_many(overall.items, 'item')} in {_many(overall.families, 'family', 'families')} answered by both: "
        f"{comparison.counts.won} won, {comparison.counts.lost} lost, {comparison.counts.both} passed by both, "
        f"{comparison.counts.neither} by neither"
    )
    yield ""
    yield from _benchmark_table(comparison.benchmarks)
    yield from _category_table(comparison.categories)
    yield from _text_metrics(comparison)
    yield from _outcomes(comparison)
    yield from _notes(comparison.notes)
    yield from _changes("Won", "passed by the fine-tuned model only", comparison.won)
    yield from _changes("Lost", "passed by the baseline only", comparison.lost)
    yield from _method(comparison)


def _benchmark_table(groups: Sequence[GroupComparison]) -> Iterator[str]:
    yield "## By benchmark"
    yield ""
    if not groups:
        yield "No item was answered by both."
        yield ""
        return
    yield "| benchmark | items | baseline | fine-tuned | won | lost | verdict |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for group in groups:
        words = verdict_words(group.verdict) if group.verdict else ""
        yield f"| {_inline(group.name)} | {_group_cells(group)} | {words} |"
    yield ""


def _category_table(groups: Sequence[GroupComparison]) -> Iterator[str]:
    if len(groups) < 2:
        return
    yield "## By category"
    yield ""
    yield "| category | items | baseline | fine-tuned | won | lost |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for group in groups:
        yield f"| {_inline(group.name) or '(none)'} | {_group_cells(group)} |"
    yield ""


def _group_cells(group: GroupComparison) -> str:
    counts = group.counts
    baseline = f"{_percent(group.baseline_rate)} ({_rate_span(group.baseline)})"
    finetuned = f"{_percent(group.finetuned_rate)} ({_rate_span(group.finetuned)})"
    return f"{counts.items} | {baseline} | {finetuned} | {counts.won} | {counts.lost}"


def _text_metrics(comparison: Comparison) -> Iterator[str]:
    before, after = comparison.baseline, comparison.finetuned
    yield "## Text"
    yield ""
    yield "| metric | baseline | fine-tuned | better is |"
    yield "| --- | ---: | ---: | --- |"
    rolling = [_number(one.perplexity.word_rolling) for one in (before, after)]
    per_byte = [_number(one.perplexity.byte_rolling, 4) for one in (before, after)]
    stride = [_number(one.perplexity.word_stride) for one in (before, after)]
    answers = [_number(one.perplexity.completion) for one in (before, after)]
    if before.perplexity.completion is not None or after.perplexity.completion is not None:
        yield f"| perplexity, tokens of the answers | {answers[0]} | {answers[1]} | lower |"
    yield f"| perplexity, words, rolling | {rolling[0]} | {rolling[1]} | lower |"
    yield f"| perplexity, bytes, rolling | {per_byte[0]} | {per_byte[1]} | lower |"
    if before.perplexity.word_stride is not None or after.perplexity.word_stride is not None:
        yield f"| perplexity, words, sliding | {stride[0]} | {stride[1]} | lower |"
    yield f"| BLEU | {_number(before.bleu)} | {_number(after.bleu)} | higher |"
    yield f"| chrF | {_number(before.chrf)} | {_number(after.chrf)} | higher |"
    yield ""
    for role, summary in (("baseline", before), ("fine-tuned model", after)):
        yield from _why_no_perplexity(role, summary.perplexity)


def _why_no_perplexity(role: str, perplexity: Perplexity) -> Iterator[str]:
    if perplexity.word_rolling is None:
        yield f"No perplexity for the {role}: {_inline(perplexity.reason or 'not measured')}."
        yield ""


def _outcomes(comparison: Comparison) -> Iterator[str]:
    before = {score.name: score for score in comparison.baseline.benchmarks}
    after = {score.name: score for score in comparison.finetuned.benchmarks}
    if not before and not after:
        return
    yield "## Outcomes"
    yield ""
    yield "| benchmark | outcome | baseline | fine-tuned |"
    yield "| --- | --- | ---: | ---: |"
    for name in dict.fromkeys((*before, *after)):
        counts = [side[name].outcomes if name in side else {} for side in (before, after)]
        for outcome in sorted(counts[0].keys() | counts[1].keys()):
            yield f"| {_inline(name)} | {outcome} | {counts[0].get(outcome, 0)} | {counts[1].get(outcome, 0)} |"
    yield ""


def _notes(notes: Sequence[str]) -> Iterator[str]:
    yield "## Is it fair?"
    yield ""
    for note in notes:
        yield f"- {_inline(note)}"
    if not notes:
        yield "Both were asked the same items under the same stated conditions."
    yield ""


def _changes(title: str, meaning: str, changes: Sequence[Change]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    shown = changes[:MOST_CHANGES]
    more = f"; the first {len(shown)} are shown" if len(shown) < len(changes) else ""
    yield f"{_many(len(changes), 'item')} {meaning}{more}."
    yield ""
    for change in shown:
        item = change.finetuned
        yield f"### {_inline(item.benchmark)} {_inline(item.id)}"
        yield ""
        if item.prompt:
            yield from _quoted("Asked", item.prompt)
        if item.reference:
            yield from _quoted("Reference", item.reference)
        yield from _answer("Baseline", change.baseline)
        yield from _answer("Fine-tuned", change.finetuned)


def _answer(role: str, item: ItemOutcome) -> Iterator[str]:
    detail = f" ({_inline(item.detail)})" if item.detail else ""
    yield from _quoted(f"{role}: {item.outcome}{detail}", item.answer)


def _quoted(title: str, text: str) -> Iterator[str]:
    yield f"{title}"
    yield ""
    yield fenced(text)
    yield ""


def _method(comparison: Comparison) -> Iterator[str]:
    yield "## How it was decided"
    yield ""
    yield (
        "Items are compared in pairs and counted by family. The p-value is of the exact sign-flip test on "
        "families (McNemar's test where every family has one item), the interval is the BCa bootstrap's over "
        "families, rates have Wilson's intervals. p-values of the benchmarks are adjusted by Holm. A verdict is "
        "given where p is under 0.05 and the interval leaves out 0; the number of items needed is for 80 % power "
        "at the discordance seen (Connor 1987)."
    )


def fenced(text: str) -> str:
    """`text` as a fenced code block that nothing in it can end, cut at 4,000 characters."""
    shown = visible(text[:MOST_CHARACTERS])
    if len(text) > MOST_CHARACTERS:
        shown += f"\n… {len(text) - MOST_CHARACTERS} more characters"
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def visible(text: str) -> str:
    """`text` with control, format and half characters as glyphs; newlines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_glyph, text.replace("\r\n", "\n")))


def _glyph(character: str) -> str:
    if character in "\n\t":
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"⟨U+{code:04X}⟩"
    return character


def _inline(text: str) -> str:
    """`text` on one line, as itself and not as Markdown."""
    return _MARKDOWN.sub(r"\\\1", " ".join(visible(text).split()))


def _points(difference: float) -> str:
    return f"{difference * 100:+.1f}"


def _span(interval: Interval) -> str:
    return f"{_points(interval.low)} to {_points(interval.high)}"


def _rate_span(interval: Interval) -> str:
    return f"{interval.low * 100:.1f} to {interval.high * 100:.1f}"


def _percent(rate: float) -> str:
    return f"{rate * 100:.1f} %"


def _p(p_value: float) -> str:
    return (
        "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.4f}" if p_value < 0.01 else f"p = {p_value:.2f}"
    )


def _number(value: float | None, digits: int = 2) -> str:
    return "not measured" if value is None else f"{value:.{digits}f}"


def _many(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"
