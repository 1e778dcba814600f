"""Every known row format is read, written and read again; bad lines are named and cost nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.contract.rows import training_messages
from backend.datasets.formats import (
    format_of,
    parse_preference,
    parse_row,
    partition,
    read_preferences,
    read_rows,
)
from backend.datasets.rows import (
    BadRow,
    PreferenceRow,
    Rejection,
    Row,
    Turn,
    chat_record,
    content_hash,
    dump_line,
    origin_record,
    preference_record,
    prompt_completion_record,
    write_jsonl,
)

STORABLE = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.none() | STORABLE
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | STORABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STORABLE, inner, max_size=3),
    max_leaves=5,
)
RESERVED = {
    "_metadata", "metadata", "instruction", "input", "output", "messages", "history", "prompt", "chosen", "rejected",
    "sample_id", "domain", "source", "quality_score", "timestamp", "family", "rejection_reason", "rejection_details",
    "text", "category",
}  # fmt: skip
EXTRA = st.dictionaries(STORABLE.filter(lambda key: key not in RESERVED), JSON, max_size=3)
TURNS = st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), STORABLE), max_size=3).map(
    tuple
)
ROWS = st.builds(
    Row,
    instruction=STORABLE,
    output=STORABLE,
    input=STORABLE,
    history=TURNS,
    sample_id=NAMES,
    domain=NAMES,
    family=NAMES,
    source=NAMES,
    quality_score=st.none() | st.floats(0, 1),
    timestamp=NAMES,
    rejection=st.none() | st.builds(Rejection, STORABLE, JSON),
    extra=EXTRA,
)
IN_TMP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def _record(text: str) -> dict[str, Any]:
    record = json.loads(text)
    assert isinstance(record, dict)
    return record


@IN_TMP
@given(st.lists(ROWS, max_size=5))
def test_rows_written_in_the_origins_format_are_read_as_they_were(tmp_path: Path, rows: list[Row]) -> None:
    path = tmp_path / "train.jsonl"
    assert write_jsonl(path, map(origin_record, rows)) == len(rows)
    assert list(read_rows(path)) == rows


@IN_TMP
@given(st.lists(ROWS, max_size=5))
def test_chat_rows_keep_what_is_asked_and_answered(tmp_path: Path, rows: list[Row]) -> None:
    path = tmp_path / "chat.jsonl"
    write_jsonl(path, map(chat_record, rows))
    again, bad = partition(read_rows(path))
    assert not bad
    for before, after in zip(rows, again, strict=True):
        assert after.instruction == before.prompt
        assert (after.output, after.history, after.extra) == (before.output, before.history, before.extra)
        assert (after.sample_id, after.quality_score) == (before.sample_id, before.quality_score)


@IN_TMP
@given(st.lists(st.builds(PreferenceRow, STORABLE, STORABLE, STORABLE, NAMES, EXTRA), max_size=5))
def test_preferences_are_read_as_they_were_written(tmp_path: Path, rows: list[PreferenceRow]) -> None:
    path = tmp_path / "preferences.jsonl"
    write_jsonl(path, map(preference_record, rows))
    assert list(read_preferences(path)) == rows


@IN_TMP
@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_bad_rows(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.jsonl"
    path.write_bytes(content)
    lines = [line for line in content.split(b"\n") if line.strip()]
    for row in read_rows(path):
        assert isinstance(row, BadRow)
        assert row.reason
        assert row.raw.strip(b"\r\n") in content
    assert len(list(read_rows(path))) <= len(lines)


def test_the_origins_row_and_its_legacy_key() -> None:
    row = parse_row(
        _record(
            '{"instruction": "Load A.", "output": "LDA #$12", "_metadata": {"sample_id": "asm-1", "domain": "asm", '
            '"source": "vanilla", "quality_score": 0.8, "timestamp": "2025-12-21T10:00:00", "kg": ["x"]}}'
        )
    )
    assert row == Row(
        "Load A.", "LDA #$12", sample_id="asm-1", domain="asm", source="vanilla", quality_score=0.8,
        timestamp="2025-12-21T10:00:00", extra={"kg": ["x"]},
    )  # fmt: skip
    legacy = parse_row({"instruction": "a", "output": "b", "input": None, "metadata": {"domain": "oracle"}})
    assert (legacy.domain, legacy.input) == ("oracle", "")


def test_keys_beside_the_text_are_metadata_too_and_none_is_lost() -> None:
    row = parse_row(
        {
            "instruction": "a",
            "output": "b",
            "domain": "asm",
            "note": 1,
            "_metadata": {"domain": "cpp", "note": 2},
        }
    )
    assert row.domain == "cpp"
    assert row.extra == {"note": 2, "row_domain": "asm", "row_note": 1}


def test_a_rejected_row_keeps_why() -> None:
    record = {
        "instruction": "a",
        "output": "b",
        "rejection_reason": "quality",
        "rejection_details": {"score": 0.2},
    }
    assert format_of(record) == "rejected"
    assert parse_row(record).rejection == Rejection("quality", {"score": 0.2})


def test_conversations_keep_their_earlier_turns() -> None:
    row = parse_row(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Load "}, {"type": "text", "text": "A."}],
                },
                {"role": "assistant", "content": "LDA #$12"},
            ]
        }
    )
    assert (row.instruction, row.output) == ("Load A.", "LDA #$12")
    assert [turn.role for turn in row.history] == ["system", "user", "assistant"]
    assert chat_record(row)["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_row_with_a_history_is_trained_on_with_it() -> None:
    row = Row(
        "Now X.", "LDX #$01", input="$01", history=(Turn("user", "Load A."), Turn("assistant", "LDA #$01"))
    )
    prompt, completion = training_messages(origin_record(row))
    assert [message["content"] for message in prompt] == ["Load A.", "LDA #$01", "Now X.\n\n$01"]
    assert completion == [{"role": "assistant", "content": "LDX #$01"}]
    assert parse_row(origin_record(row)) == row


def test_messages_that_say_something_else_than_the_columns_win_and_nothing_is_lost() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = parse_row({"instruction": "x", "output": "y", "messages": messages})
    assert (row.instruction, row.output, row.extra) == ("a", "b", {"instruction": "x", "output": "y"})


def test_alpaca_rows_with_and_without_their_columns() -> None:
    text = "Below is an instruction.\n\n### Instruction:\nLoad A.\n\n### Input:\n$12\n\n### Response:\nLDA #$12\n"
    alone = parse_row({"text": text})
    assert (alone.instruction, alone.input, alone.output) == ("Load A.", "$12", "LDA #$12")
    whole = parse_row({"instruction": "Load A.", "input": "$12", "output": "LDA #$12", "text": text})
    assert (whole.instruction, whole.input, whole.extra) == ("Load A.", "$12", {"text": text})


def test_a_benchmark_row_keeps_its_category() -> None:
    record = {"instruction": "a", "input": "", "output": "b", "category": "asm"}
    assert format_of(record) == "benchmark"
    assert parse_row(record).extra == {"category": "asm"}


def test_trl_rows_train_on_the_answer_only() -> None:
    row = Row("Load A.", "LDA #$12", input="$12")
    assert prompt_completion_record(row) == {
        "prompt": [{"role": "user", "content": "Load A.\n\n$12"}],
        "completion": [{"role": "assistant", "content": "LDA #$12"}],
    }
    assert prompt_completion_record(row, chat=False) == {"prompt": "Load A.\n\n$12", "completion": "LDA #$12"}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "import it as preferences"),
        ({"question": "a"}, "its keys are question"),
        ({"instruction": "a", "output": 3}, "'output' is a number"),
        ({"instruction": None, "output": "b"}, "'instruction' is null"),
        ({"messages": "a"}, "'messages' is text, not a list"),
        ({"messages": [{"role": "user", "content": "a"}]}, "does not end with the assistant"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "no user's message"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0] has the role 'tool'"),
        ({"text": "just prose"}, "not in Alpaca's form"),
        (
            {"instruction": "a", "output": "b", "_metadata": {"quality_score": "high"}},
            "'quality_score' is text",
        ),
    ],
)
def test_a_record_that_is_no_row_is_refused_with_its_key(record: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("[", r"\[").replace("]", r"\]")):
        parse_row(record)


def test_a_preference_row_without_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="rejected missing"):
        parse_preference({"prompt": "a", "chosen": "b"})


def test_bad_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    good = b'{"instruction": "a", "output": "b"}'
    path = tmp_path / "samples.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + good + b"\r\n"  # 1: byte order mark and CRLF
        b"\r\n"  # 2: empty
        b'{"instruction": "\xff", "output": "b"}\n'  # 3
        b"[1, 2]\n"  # 4
        b'{"instruction": "half \\ud83d", "output": "b"}\n'  # 5
        b'{"instruction": "a", "output": "b", "_metadata": {"quality_score": NaN, "big": 1e999}}\n'  # 6
         + b"[" * 100_000 + b"\n"  # 7
        b'{"instruction": "a", "output": ' + b"9" * 5_000 + b"}\n"  # 8
        b'{"instruction": "a\\u2028b", "output": "c\xe2\x80\xa8d"}\n'  # 9: a line separator ends no line
        b'{"instruction": "a", "outp'  # 10: cut while it was written
    )
    rows, bad = partition(read_rows(path))
    assert rows[0] == Row("a", "b")
    assert rows[1] == Row("a", "b", extra={"big": None})
    assert rows[2] == Row("a\u2028b", "c\u2028d")
    assert len(rows) == 3
    reasons = {row.line: row.reason for row in bad}
    assert list(reasons) == [3, 4, 5, 7, 8, 10]
    assert "not UTF-8: byte 18 of the line is 0xFF" in reasons[3]
    assert "not a JSON object but a list" in reasons[4]
    assert "'instruction' holds half a character (lone surrogate U+D83D)" in reasons[5]
    assert "nested too deeply" in reasons[7]
    assert "may have been cut" in reasons[10]
    assert bad[0].raw == b'{"instruction": "\xff", "output": "b"}\n'


def test_a_file_from_powershells_redirect_is_named_for_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes('{"instruction": "a", "output": "b"}\r\n'.encode("utf-16"))
    _, bad = partition(read_rows(path))
    assert [row.line for row in bad] == [1]
    assert "save it as UTF-8" in bad[0].reason


def test_emoji_written_as_escapes_are_whole_characters(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"instruction": "\\ud83d\\ude00", "output": "b"}\n')
    assert list(read_rows(path)) == [Row("😀", "b")]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [{"a": 1}])
    with pytest.raises(ValueError, match="JSON"):
        write_jsonl(path, [{"a": 2}, {"a": float("nan")}])
    assert path.read_bytes() == b'{"a": 1}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["train.jsonl"]


def test_half_a_character_is_written_as_an_escape() -> None:
    assert dump_line({"a": "é"}) == '{"a": "é"}\n'.encode()
    assert dump_line({"a": "\ud800"}) == b'{"a": "\\ud800"}\n'


@settings(deadline=None)
@given(st.lists(ROWS, max_size=5), st.randoms())
def test_the_content_hash_is_of_what_is_taught(rows: list[Row], rng: Any) -> None:
    shuffled = list(rows)
    rng.shuffle(shuffled)
    assert content_hash(shuffled) == content_hash(rows)
    assert content_hash([*rows, Row("one", "more")]) != content_hash(rows)
    if rows:
        relabelled = [Row(row.instruction, row.output, row.input, row.history) for row in rows]
        assert content_hash(relabelled) == content_hash(rows)


def test_the_content_hash_keeps_the_parts_apart() -> None:
    hashes = {
        content_hash([row]) for row in (Row("a", "b"), Row("b", "a"), Row("a", "b", "c"), Row("ab", ""))
    }
    assert len(hashes) == 4
