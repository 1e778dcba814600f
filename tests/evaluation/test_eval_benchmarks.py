"""Benchmark files: what is read, what is refused with its line, and how a text answer is scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import config
from backend.evaluation.benchmarks import (
    BenchmarkError,
    content_id,
    parse_item,
    read_benchmark,
    score_of,
    score_text,
)


def _file(tmp_path: Path, *rows: dict[str, Any] | str) -> Path:
    path = tmp_path / "asm_benchmark.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_the_origins_four_columns_are_a_whole_item(tmp_path: Path) -> None:
    row = {"instruction": "Load A.", "input": "$12", "output": "LDA #$12", "category": "asm"}
    benchmark = read_benchmark(_file(tmp_path, row, {**row, "instruction": "Load X."}))
    first, second = benchmark.items
    assert (benchmark.name, benchmark.by_text_only, benchmark.problems) == ("asm", True, ())
    assert (first.mode, first.prompt, first.references) == ("text", "Load A.\n\n$12", ("LDA #$12",))
    assert first.id == first.family == content_id(row)
    assert first.id != second.id
    reordered = dict(reversed(row.items()))
    assert content_id(reordered) == first.id


def test_own_fields_are_read_and_unknown_ones_kept(tmp_path: Path) -> None:
    row = {
        "id": "r1", "instruction": "Write Main.", "output": "Main: RTS", "category": "asm", "family": "subroutines",
        "mode": "routine", "label": "Main", "setup": "org $008000\n;@ANSWER@", "files": {"a.asm": "nop"},
        "expect": {"frames": 3}, "canary": "c-1", "reference": "Main: RTS", "alternates": ["Main:\nRTS"],
        "near_miss": "Main: RTL", "broken": ["Main: XXX"], "difficulty": 3,
    }  # fmt: skip
    item = read_benchmark(_file(tmp_path, row)).items[0]
    assert (item.id, item.family, item.mode, item.label) == ("r1", "subroutines", "routine", "Main")
    assert item.references == ("Main: RTS", "Main:\nRTS")
    assert (item.near_miss, item.broken) == (("Main: RTL",), ("Main: XXX",))
    assert (item.files, item.expect, item.extra) == ({"a.asm": "nop"}, {"frames": 3}, {"difficulty": 3})


def test_each_bad_line_is_a_problem_and_the_others_stand(tmp_path: Path) -> None:
    good = {"id": "a", "instruction": "x", "output": "y"}
    path = _file(
        tmp_path,
        good,
        "{broken",
        {**good, "id": "b", "mode": "rutine"},
        good,
        {"id": "c", "output": "y"},
        {**good, "id": "d", "mode": "patch"},
        {**good, "id": "e", "expect": []},
        {**good, "id": "f", "alternates": [1]},
        {**good, "id": "g", "files": {"x.asm": 1}},
        {**good, "id": "h", "instruction": " "},
        {**good, "id": "i"},
    )
    benchmark = read_benchmark(path)
    assert [item.id for item in benchmark.items] == ["a", "i"]
    reasons = {problem.line: problem.reason for problem in benchmark.problems}
    assert list(reasons) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert "unknown mode 'rutine': expected one of text, routine, patch, question" in reasons[3]
    assert reasons[4] == "the id 'a' is on line 1 already"
    assert "'instruction' is missing" in reasons[5]
    assert "'setup' is missing" in reasons[6]
    assert "'files.x.asm'" in reasons[9]


@pytest.mark.parametrize(("content", "said"), [("", "the file is empty"), ("{", "line 1: not JSON")])
def test_a_file_without_items_is_an_error_that_names_it(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(BenchmarkError, match=said) as caught:
        read_benchmark(_file(tmp_path, content))
    assert "asm_benchmark.jsonl" in str(caught.value)


def test_a_text_answer_is_scored_by_its_references() -> None:
    item = parse_item(
        {"instruction": "x", "output": "LDA #$12", "alternates": ["LDA.b #$12"], "category": "asm"}, 1
    )
    assert score_text(item, "```\nlda.b  #$12 ; ok\n```")[0] == "correct"
    assert score_text(item, "LDA #$13")[0] == "wrong"
    assert score_text(item, " \n")[0] == "no_answer"
    prose = parse_item({"instruction": "x", "output": "Forty two", "category": "code_understanding"}, 1)
    assert score_text(prose, "forty  TWO")[0] == "correct"
    assert score_text(prose, "forty two; of course")[0] == "wrong"


def test_what_cannot_be_scored_is_neither_passed_nor_failed() -> None:
    routine = parse_item({"instruction": "x", "mode": "routine", "setup": "s", "reference": "y"}, 1)
    assert score_text(routine, "y")[0] == "not_run"
    assert score_text(parse_item({"instruction": "x"}, 1), "y")[0] == "not_run"
    assert (score_of("not_run"), score_of("correct"), score_of("no_answer")) == (None, 1.0, 0.0)


def test_the_shipped_benchmark_passes_its_own_references() -> None:
    folder = Path(config.__file__).parent / "benchmarks"
    shipped = sorted(folder.glob("*_benchmark.jsonl"))
    assert shipped
    for path in shipped:
        benchmark = read_benchmark(path)
        assert benchmark.problems == ()
        for item in benchmark.items:
            if item.mode == "text":
                assert all(score_text(item, reference)[0] == "correct" for reference in item.references)
