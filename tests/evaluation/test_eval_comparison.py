"""Comparing two evaluations, and a report that no answer can break."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.evaluation.benchmarks import Outcome
from backend.evaluation.comparison import (
    EvaluationSummary,
    ItemOutcome,
    compare,
    comparison_record,
    evaluation_record,
    summarise,
)
from backend.evaluation.metrics import Perplexity
from backend.evaluation.rates import Interval
from backend.evaluation.report import comparison_markdown, fenced, verdict_words, visible
from backend.evaluation.statistics import Verdict


def _item(number: int, outcome: Outcome, answer: str = "RTS", benchmark: str = "asm") -> ItemOutcome:
    score = None if outcome == "not_run" else float(outcome == "correct")
    return ItemOutcome(
        benchmark, f"i{number}", f"f{number}", "easy" if number % 2 else "hard", outcome, score, answer,
        detail="because", prompt="Return.", reference="RTS",
    )  # fmt: skip


def _run(rate: float, seed: int, items: int = 60, benchmark: str = "asm") -> list[ItemOutcome]:
    rng = random.Random(seed)
    return [
        _item(n, "correct" if rng.random() < rate else "wrong", benchmark=benchmark) for n in range(items)
    ]


def test_a_comparison_pairs_items_and_counts_what_changed() -> None:
    before = [
        _item(1, "correct"),
        _item(2, "wrong"),
        _item(3, "wrong"),
        _item(4, "correct"),
        _item(5, "crash"),
    ]
    after = [
        _item(3, "correct"),
        _item(2, "wrong"),
        _item(1, "wrong"),
        _item(4, "correct"),
        _item(6, "correct"),
    ]
    found = compare(summarise("base", before), summarise("tuned", after), before, after)
    counts = found.counts
    assert (counts.both, counts.neither, counts.won, counts.lost) == (1, 1, 1, 1)
    assert [change.finetuned.id for change in found.won] == ["i3"]
    assert [change.baseline.outcome for change in found.lost] == ["correct"]
    assert found.notes == ("2 items only one of the two has: left out",)
    assert {group.name: group.counts.items for group in found.categories} == {"easy": 2, "hard": 2}


def test_what_was_not_run_is_left_out_and_said() -> None:
    before = [_item(n, "correct") for n in range(4)]
    after = [_item(0, "not_run"), *before[1:]]
    found = compare(summarise("base", before), summarise("tuned", after), before, after)
    assert found.counts.items == 3
    assert found.notes == ("1 item not run for one of the two or both: left out, neither passed nor failed",)
    score = summarise("tuned", after).benchmarks[0]
    assert (score.items, score.passed, score.not_run, score.score) == (3, 3, 1, 1.0)


def test_a_better_model_is_called_better_and_itself_is_not() -> None:
    before, after = _run(0.3, 1), _run(0.9, 2)
    assert compare(summarise("a", before), summarise("b", after), before, after).overall.verdict == "better"
    assert compare(summarise("b", after), summarise("a", before), after, before).overall.verdict == "worse"
    same = compare(summarise("a", before), summarise("a", before), before, before)
    assert same.overall.verdict == "cannot_tell"
    assert same.overall.items_needed is None


def test_benchmarks_are_adjusted_for_each_other() -> None:
    before = [*_run(0.4, 1, 30, "asm"), *_run(0.4, 2, 30, "rom_hack")]
    after = [*_run(0.7, 3, 30, "asm"), *_run(0.7, 4, 30, "rom_hack")]
    together = compare(summarise("a", before), summarise("b", after), before, after)
    alone = compare(summarise("a", before[:30]), summarise("b", after[:30]), before[:30], after[:30])
    adjusted, bare = together.benchmarks[0].verdict, alone.benchmarks[0].verdict
    assert adjusted is not None
    assert bare is not None
    assert [group.name for group in together.benchmarks] == ["asm", "rom_hack"]
    assert adjusted.p_value > bare.p_value


def test_families_of_two_benchmarks_are_not_one() -> None:
    before, after = (
        _run(0.0, 1, 1, "asm") + _run(0.0, 1, 1, "text"),
        _run(1.0, 1, 1, "asm") + _run(1.0, 1, 1, "text"),
    )
    assert compare(summarise("a", before), summarise("b", after), before, after).overall.families == 2


def test_what_differs_between_two_evaluations_is_said_to_be_unfair() -> None:
    before = EvaluationSummary(
        "a", (), conditions={"quantisation": "Q4_K_M", "template": "x"}, notes=("by text only",)
    )
    after = EvaluationSummary(
        "b", (), conditions={"quantisation": "bf16", "template": "x"}, notes=("by text only",)
    )
    found = compare(before, after, [], [])
    assert found.notes == (
        "quantisation differs: Q4_K_M for the baseline, bf16 for the fine-tuned model",
        "by text only",
    )


def test_the_records_are_json_and_have_the_contracts_keys() -> None:
    before, after = _run(0.3, 1), _run(0.9, 2)
    summary = summarise("a", before, perplexity=Perplexity(12.0, 2.0, 10.0, None, 3.5), id=7)
    record = json.loads(json.dumps(evaluation_record(summary), allow_nan=False))
    assert record["perplexity"] == {
        "word_rolling": 12.0,
        "byte_rolling": 2.0,
        "word_stride": 10.0,
        "completion": 3.5,
        "reason": None,
    }
    assert record["benchmarks"][0].keys() >= {"name", "items", "passed", "score", "interval"}
    found = json.loads(json.dumps(comparison_record(compare(summary, summarise("b", after), before, after))))
    assert found.keys() >= {"baseline", "finetuned", "verdict", "items_needed", "benchmarks"}
    assert (found["baseline"], found["finetuned"], found["verdict"]) == ("a", "b", "better")
    assert found["benchmarks"][0].keys() >= {"name", "verdict", "p_value", "interval", "won", "lost"}


def test_a_verdict_in_words() -> None:
    sure = Verdict("better", None, 0.34, Interval(0.201, 0.468), 0.0003, 50, 25, "")
    assert verdict_words(sure) == "better: +34.0 points, 95 % interval +20.1 to +46.8, p = 0.0003"
    unsure = replace(
        sure, verdict="cannot_tell", items_needed=40, p_value=0.21, interval=Interval(-0.02, 0.4)
    )
    assert verdict_words(unsure) == (
        "can't tell: +34.0 points, 95 % interval -2.0 to +40.0, p = 0.21; about 40 more items needed"
    )
    assert verdict_words(replace(unsure, items_needed=None, reason="no item was answered by both")).endswith(
        "; no item was answered by both"
    )


def test_the_report_says_everything_once() -> None:
    before, after = _run(0.3, 1), _run(0.9, 2)
    report = comparison_markdown(
        compare(
            summarise("hub:a/b", before, perplexity=Perplexity(50.153, 1.9, 43.69, None)),
            summarise(
                "run:opcodes", after, perplexity=Perplexity(reason="the server gives no log-probabilities")
            ),
            before,
            after,
        )
    )
    assert report.startswith("# Better: run:opcodes against hub:a/b\n")
    assert "95 % interval" in report
    assert "| perplexity, words, rolling | 50.15 | not measured | lower |" in report
    assert "No perplexity for the fine-tuned model: the server gives no log-probabilities." in report
    assert report.count("## Won") == report.count("## Lost") == report.count("## Is it fair?") == 1
    assert "| asm | wrong |" in report


def test_an_empty_comparison_is_a_report_too() -> None:
    nothing = compare(EvaluationSummary("a", ()), EvaluationSummary("b", ()), [], [])
    report = comparison_markdown(nothing)
    assert report.startswith("# Can't tell: b against a\n")
    assert "No item was answered by both." in report


def test_long_lists_and_long_answers_are_cut_with_their_counts() -> None:
    before = [_item(n, "wrong", "x" * 9_000) for n in range(30)]
    after = [_item(n, "correct") for n in range(30)]
    report = comparison_markdown(compare(summarise("a", before), summarise("b", after), before, after))
    assert "30 items passed by the fine-tuned model only; the first 20 are shown." in report
    assert "… 5000 more characters" in report
    assert len(report) < 120_000


HOSTILE = st.text(st.sampled_from("`~#|\n\r\t <>[]*_\\a\x1b\x07\x9b\u202e\ud800\u2028é"), max_size=40)


@settings(deadline=None)
@given(HOSTILE)
def test_no_answer_ends_its_fence(answer: str) -> None:
    lines = fenced(answer).split("\n")
    opening = re.fullmatch(r"(`{3,})text", lines[0])
    assert opening
    fence = opening[1]
    assert lines[-1] == fence
    assert not any(re.fullmatch(rf" {{0,3}}{fence}`*[ \t]*", line) for line in lines[1:-1])


@settings(deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE)
def test_nothing_that_we_did_not_write_acts_in_a_report(answer: str, name: str, detail: str) -> None:
    before = [replace(_item(1, "wrong", answer), detail=detail, category=name, id=name)]
    after = [replace(_item(1, "correct", answer), detail=detail, category=name, id=name)]
    report = comparison_markdown(compare(summarise(name, before), summarise("b", after), before, after))
    report.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]", report)
    outside, fence = [], ""
    for line in report.split("\n"):
        mark = re.match(r"`{3,}", line)
        if not fence and mark:
            fence = mark[0]
        elif fence and line == fence:
            fence = ""
        elif not fence:
            outside.append(line)
    assert not fence
    headings = [line for line in outside if line.startswith("#")]
    assert len(headings) == 9
    assert all("<" not in line.replace("\\<", "").replace("p < 0.0001", "") for line in outside)


def test_control_characters_are_shown_and_text_is_left_alone() -> None:
    assert visible("a\x1b[31mb\r\nc\td\x7f\u202e") == "a␛[31mb\nc\td␡⟨U+202E⟩"
    assert visible("déjà vu 日本") == "déjà vu 日本"
