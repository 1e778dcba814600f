"""Scripts read the command line's JSON: one document on standard output, with the keys of the contract."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import CAMPAIGN, Cli

ITEMS = (
    {"id": "sep", "instruction": "Make A 8 bits wide.", "output": "SEP #$20", "category": "asm"},
    {"id": "rep", "instruction": "Make A 16 bits wide.", "output": "REP #$20", "category": "asm"},
)


def holds(document: dict[str, object], keys: str) -> bool:
    missing = set(keys.split()) - set(document)
    assert not missing, f"{sorted(missing)} are not in {sorted(document)}"
    return True


def write_lines(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_campaign(house: Cli) -> None:
    shown = house.json("campaign", "show", "pilot")
    assert holds(shown, "name state target accepted rejected requests cost_usd eta_s domains")
    assert (shown["name"], shown["state"], shown["target"], shown["accepted"]) == ("pilot", "done", 12, 12)
    assert shown["domains"] == [
        {"name": "words", "target": 12, "accepted": 12, "rejected": 0, "exhausted": False}
    ]
    assert "pilot" in [one["name"] for one in house.json("campaign", "list")]
    exported = house.json("campaign", "export", "pilot")
    assert exported == {"path": str(house.home / "training" / "pilot" / "samples.jsonl"), "rows": 12}
    assert len(house.json("campaign", "decisions", "pilot")["decisions"]) == 12
    assert house.json("campaign", "rescore", "pilot")["judged"] == 12


def test_two_campaigns_are_compared(house: Cli) -> None:
    house("campaign", "create", "second", "--target", "2", *CAMPAIGN)
    assert house.json("campaign", "run", "second")["state"] == "done"
    sides = house.json("campaign", "compare", "pilot", "second")["campaigns"]
    assert [(side["name"], side["accepted"]) for side in sides] == [("pilot", 12), ("second", 2)]


def test_a_sample(house: Cli) -> None:
    shown = house.json("samples", "show", "1")
    assert holds(
        shown, "id campaign domain state instruction input output score gates provider model decisions"
    )
    assert (shown["campaign"], shown["domain"], shown["state"]) == ("pilot", "words", "approved")
    assert shown["model"] == "test-model"
    assert all(holds(gate, "name passed figure reason") for gate in shown["gates"])
    found = house.json("samples", "list", "--state", "pending", "--campaign", "pilot")
    assert [one["id"] for one in found] == [12, 11]
    word = shown["output"].removeprefix("the word is ")
    assert [one["id"] for one in house.json("samples", "search", word, "--campaign", "pilot")] == [1]


def test_deciding_and_undoing(house: Cli) -> None:
    assert house.json("samples", "reject", "11", "--reason", "wrong") == [{"id": 11, "state": "rejected"}]
    assert house.json("samples", "edit", "11", "--output", "LDA #$12")["revision"] == 2
    assert house.json("samples", "show", "11")["output"] == "LDA #$12"
    undone = house.json("samples", "undo", "2")
    assert [one["id"] for one in undone] == [11, 11]
    shown = house.json("samples", "show", "11")
    assert shown["state"] == "pending"
    assert shown["output"].startswith("the word is ")


def test_all_that_a_filter_shows(house: Cli) -> None:
    every = ("samples", "approve", "--all", "--campaign", "pilot")
    assert house.json(*every, "--dry-run") == {"would_decide": 2}
    assert house.json("samples", "show", "11")["state"] == "pending"
    done = house.json(*every)
    assert done["decided"] == 2
    assert house.json("samples", "show", "12")["state"] == "approved"
    assert house.json("samples", "undo-bulk") == {"bulk": done["bulk"], "undone": 2}
    assert house.json("samples", "show", "12")["state"] == "pending"
    assert house.json("samples", "undo-bulk") == {"undone": 0}
    house("samples", "approve", code=2)
    house("samples", "approve", "1", "--all", code=2)
    house("samples", "approve", "1", "--campaign", "pilot", code=2)


def test_flagging_rating_skipping_and_doing_again(house: Cli) -> None:
    assert house.json("samples", "flag", "12", "--reason", "ask") == [{"id": 12, "state": "flagged"}]
    assert house.json("samples", "rate", "12", "4") == {"id": 12, "rating": 4, "state": "flagged"}
    assert house.json("samples", "skip", "12") == [{"id": 12, "state": "flagged"}]
    assert [one["state"] for one in house.json("samples", "undo", "3")] == ["flagged", "flagged", "pending"]
    again = house.json("samples", "redo", "3")
    assert [one["state"] for one in again] == ["flagged", "flagged", "flagged"]
    shown = house.json("samples", "show", "12")
    assert shown["state"] == "flagged"
    assert house("samples", "rate", "12", "9", code=2).err, "a rating is 1 to 5"
    assert "no sample" in house("samples", "flag", "12", "999999", code=1).err
    house("samples", "undo", "3")


def test_samples_go_out_and_come_in(house: Cli, tmp_path: Path) -> None:
    path = tmp_path / "approved.jsonl"
    assert house.json("samples", "export", str(path), "--state", "approved")["rows"] == 10
    again = house.json("samples", "import", str(path))
    assert (again["inserted"], again["known"]) == (0, 10)
    new = write_lines(tmp_path / "new.jsonl", {"instruction": "Halt.", "output": "STP"})
    with new.open("a") as file:
        file.write("no JSON\n")
    came = house.json("samples", "import", str(new), "--domain", "words")
    assert (came["inserted"], came["bad"]) == (1, 1)
    assert came["problems"][0]["line"] == 2


def test_a_dataset(house: Cli, tmp_path: Path) -> None:
    built = house.json("dataset", "build", "set", "--campaign", "pilot")
    assert holds(built, "id name version path content_hash train val test")
    assert built["train"] + built["val"] + built["test"] == 10
    assert house.json("dataset", "show", "set")["stats"]["total"] == 10
    assert house.json("dataset", "check", "set@1")["leaks"] == []
    out = house.json("dataset", "export", "set", str(tmp_path / "out"))
    assert out["train"] == built["train"]
    came = house.json("dataset", "import", str(tmp_path / "out"), "--name", "again")
    assert came["train"] == built["train"]
    assert {one["name"] for one in house.json("dataset", "list")} == {"set", "again"}


def test_a_host_and_its_readings(house: Cli) -> None:
    assert house.json("host", "list")[0]["name"] == "local"
    assert holds(house.json("host", "probe", "local"), "host probe libraries missing remedy")
    readings = house.json("host", "gpus", "local")
    assert readings
    keys = "host index name utilization memory_used_mib memory_total_mib temperature_c power_w at stale_s"
    assert all(holds(reading, keys) for reading in readings)


def test_a_job(house: Cli) -> None:
    job = house.json("job", "launch", "local", "--", "/bin/sh", "-c", "echo out; exit 4", code=1)
    assert holds(job, "id host state exit_code started_at ended_at log_path")
    assert (job["host"], job["state"], job["exit_code"]) == ("local", "failed", 4)
    assert Path(job["log_path"]).read_text() == "out\n"
    assert house.json("job", "show", job["id"]) == job
    assert house.json("job", "follow", job["id"], code=1) == job
    assert job["id"] in [one["id"] for one in house.json("job", "list")]


def test_files_go_to_a_host_and_back(house: Cli, tmp_path: Path) -> None:
    write_lines(tmp_path / "data" / "rows.jsonl", *ITEMS)
    there = house.json("host", "put", "local", str(tmp_path / "data"), "parcels/data")
    assert there["files"] == 1
    back = house.json("host", "get", "local", "parcels/data", str(tmp_path / "back"))
    assert back["sha256"] == there["sha256"]
    assert (tmp_path / "back" / "rows.jsonl").read_text() == (tmp_path / "data" / "rows.jsonl").read_text()


def test_an_evaluation_and_a_comparison(house: Cli, tmp_path: Path) -> None:
    write_lines(house.home / "training" / "benchmarks" / "widths_benchmark.jsonl", *ITEMS)
    output, report = tmp_path / "results.json", tmp_path / "report.md"
    first = house.json(
        *("eval", "run", "--model", "api:openai/test-model", "--benchmarks", "widths"),
        *("--heldout", str(write_lines(tmp_path / "held.jsonl", *ITEMS)), "--output", str(output)),
    )
    assert holds(first, "id model benchmarks perplexity items")
    assert [(b["name"], b["items"], b["passed"], b["score"]) for b in first["benchmarks"]] == [
        ("widths", 2, 1, 0.5)
    ]
    low, high = first["benchmarks"][0]["interval"]
    assert 0 < low < 0.5 < high < 1
    assert holds(first["perplexity"], "word_rolling byte_rolling word_stride reason")
    assert first["perplexity"]["word_rolling"] is None
    assert "log-probabilities" in first["perplexity"]["reason"]
    assert {item["id"]: item["outcome"] for item in first["items"]} == {"sep": "correct", "rep": "wrong"}
    assert all(holds(item, "id outcome detail") for item in first["items"])
    assert json.loads(output.read_text()) == first
    assert house.json("eval", "show", str(first["id"])) == first

    second = house.json("eval", "run", "--model", "api:openai/other", "--benchmarks", "widths")
    compared = house.json(
        *("eval", "compare", "--baseline", "api:openai/test-model", "--finetuned", "api:openai/other"),
        *("--report", str(report)),
    )
    assert holds(compared, "baseline finetuned verdict items_needed benchmarks")
    assert compared["verdict"] == "cannot_tell"
    assert compared["finetuned"] == second["model"]
    assert [group["name"] for group in compared["benchmarks"]] == ["widths"]
    assert "Can't tell" in report.read_text()
    text = house("eval", "compare", "--baseline", str(first["id"]), "--finetuned", str(second["id"])).out
    assert "can't tell" in text
    assert {one["id"] for one in house.json("eval", "list")} == {first["id"], second["id"]}


def test_a_benchmark_that_contradicts_itself_is_found(house: Cli, tmp_path: Path) -> None:
    sound = write_lines(
        tmp_path / "sound.jsonl",
        {**ITEMS[0], "alternates": ["sep #$20"], "near_miss": ["REP #$20"], "broken": "SEP 20"},
        {"id": "open", "instruction": "Explain OAM."},
    )
    report = house.json("eval", "check", str(sound))
    assert report["holds"] is True
    assert all(holds(case, "id outcome detail") for case in report["outcomes"])
    assert [case["outcome"] for case in report["outcomes"]] == ["correct", "correct", "wrong", "wrong"]
    assert report["unchecked"] == ["open"]
    wrong = write_lines(tmp_path / "wrong.jsonl", {**ITEMS[0], "near_miss": "SEP  #$20"})
    assert "near_miss came out as correct" in house("eval", "check", str(wrong), code=1).out


def test_a_pair(house: Cli, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}", "source": "me"} for n in range(2)
    ]
    assert house.json("preferences", "import", str(write_lines(tmp_path / "p.jsonl", *rows)))["inserted"] == 2
    first, second = house.json("preferences", "list")
    assert all(holds(pair, "id prompt chosen rejected margin scorer source") for pair in (first, second))
    seen = house.json("preferences", "show", str(first["id"]))
    side = "left" if seen["left"] == "bad 0" else "right"
    decided = house.json("preferences", "choose", str(first["id"]), side)
    assert (decided["chosen"], decided["rejected"], decided["state"]) == ("bad 0", "good 0", "decided")
    path = tmp_path / "out.jsonl"
    assert house.json("preferences", "export", str(path))["rows"] == 1
    assert json.loads(path.read_text())["chosen"] == "bad 0"
    assert house.json("preferences", "undo")["state"] == "pending"
    assert house.json("preferences", "choose", str(second["id"]), "tie")["state"] == "tie"


def test_pairs_left_to_a_person_are_no_failure(house: Cli, tmp_path: Path) -> None:
    output = tmp_path / "pairs.jsonl"
    ran = house(
        *(
            "preferences",
            "generate",
            "--model",
            "api:openai/test-model",
            "--num-samples",
            "2",
            "--batch",
            "mine",
        ),
        *("--candidates-per-prompt", "2", "--scorer", "human", "--output", str(output)),
    )
    export = f"hafs-tui preferences export {output} --batch mine"
    assert export in ran.out, "it says how the decided pairs come into the file"
    assert not output.exists()
    waiting = house.json("preferences", "list", "--batch", "mine")
    assert [pair["state"] for pair in waiting] == ["pending"] * len(waiting)
    house("preferences", "choose", str(waiting[0]["id"]), "left")
    house(*export.split()[1:])
    (row,) = output.read_text().splitlines()
    assert json.loads(row)["prompt"] == waiting[0]["prompt"]


def test_candidates_are_scored_by_reference(house: Cli, tmp_path: Path) -> None:
    made = house.json(
        *(
            "preferences",
            "generate",
            "--model",
            "api:openai/test-model",
            "--num-samples",
            "3",
            "--batch",
            "scored",
        ),
        *("--candidates-per-prompt", "3", "--scorer", "reference", "--output", str(tmp_path / "pairs.jsonl")),
    )
    assert made["generation"]["candidates"] == 9
    assert (
        made["rows"]
        == made["pairing"]["pairs"]
        == len((tmp_path / "pairs.jsonl").read_text().splitlines())
        > 0
    )


def test_a_deployment(house: Cli) -> None:
    assert house.json("deploy", "status") == []
    said = house.json("deploy", "chat", "api:openai/test-model", "--message", "hello")
    assert said["reply"].strip() == "SEP #$20"
    talk = house("--json", "deploy", "chat", "api:openai/test-model", stdin="one\n\ntwo\n").document
    assert [turn["message"] for turn in talk["messages"]] == ["one", "two"]


def test_lineage_and_models(house: Cli) -> None:
    found = house.json("lineage", "sample:1")
    assert [step["name"] for step in found["steps"] if step["kind"] == "campaign"] == ["pilot"]
    assert house.json("models", "list") == []


def test_the_doctor_says_what_brings_what_is_missing(house: Cli) -> None:
    checks = house.json("doctor", "--host", "local")["checks"]
    missing = [check for check in checks if not check["found"]]
    assert {check["name"] for check in missing} >= {"gemini key", "anthropic key"}
    assert all(check["remedy"] and check["feature"] for check in missing)


@pytest.mark.parametrize("position", [("--json", "campaign", "list"), ("campaign", "list", "--json")])
def test_the_real_program_writes_one_document(house: Cli, position: tuple[str, ...]) -> None:
    done = house.process(*position)
    assert done.document[0]["name"]
    assert done.err == ""
