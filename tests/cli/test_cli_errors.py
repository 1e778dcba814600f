"""What goes wrong is told with its place and its remedy, by the exit code too, and loses nothing."""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
from pathlib import Path

import pytest

from backend.store.connection import migrations
from tests.cli.conftest import CAMPAIGN, Cli
from tests.servers.sshd import Sshd, free_port


def test_a_broken_settings_file_is_told_with_line_and_key(hafs: Cli) -> None:
    path = hafs.home / "config" / "settings.toml"
    path.write_text('# mine\n[campaign]\nparalel = 3\nseed = "x"\n')
    told = hafs("campaign", "list", code=1).err
    assert f"{path}:3: campaign.paralel: no such key" in told
    assert f"{path}:4: campaign.seed" in told
    assert "valid integer" in told
    path.write_text("[campaign\n")
    told = hafs("campaign", "list", code=1).err
    assert str(path) in told
    assert "line 1" in told
    (hafs.home / "config" / "hosts.toml").write_text("[hosts.box]\nadress = '1.2.3.4'\n")
    path.unlink()
    assert "hosts.toml:2: hosts.box.adress: no such key" in hafs("host", "list", code=1).err


@pytest.mark.parametrize(
    ("provider", "variable"), [("gemini", "GEMINI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")]
)
def test_a_missing_key_is_told_with_its_variable(hafs: Cli, provider: str, variable: str) -> None:
    hafs(
        "campaign",
        "create",
        "paid",
        "--provider",
        provider,
        "--model",
        "m",
        "--target",
        "4",
        "--domains",
        "words",
    )
    told = hafs("campaign", "run", "paid", code=1).err
    assert f"{provider}: there is no API key ({variable} is not set)" in told
    assert "keyring set" in told
    detached = hafs.process("campaign", "run", "paid", "--detach", code=1)
    assert variable in detached.err, "also where another process finds it out"
    assert hafs.json("campaign", "show", "paid")["state"] == "failed"


def test_a_server_that_is_down_pauses_the_campaign_and_fails(hafs: Cli) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    hafs("campaign", "create", "down", "--target", "4", "--base-url", url, *CAMPAIGN)
    ran = hafs("campaign", "run", "down", code=1)
    assert "Is the server running" in ran.out
    assert hafs.json("campaign", "show", "down")["state"] == "paused"


def test_a_budget_refuses_with_3(hafs: Cli) -> None:
    hafs(
        "campaign", "create", "dear", "--target", "12", "--budget-requests", "2", "--parallel", "1", *CAMPAIGN
    )
    assert "budget of 2 requests is spent" in hafs("campaign", "run", "dear", code=3).out


def test_an_unreachable_host_is_told_with_what_to_check(hafs: Cli) -> None:
    port = free_port()
    told = hafs("host", "add", "box", "--address", "127.0.0.1", "--port", str(port), code=1).err
    assert f"127.0.0.1:{port} refused the connection" in told
    assert "Is sshd running there" in told
    assert hafs("job", "launch", "box", "--", "true", code=1).err.startswith("error: box: ")
    assert hafs("host", "gpus").err.count("refused") == 1, "one host that is down hides no other"


def test_a_host_without_torch_trains_nothing_and_says_what_helps(
    hafs: Cli, sshd: Sshd, tmp_path: Path
) -> None:
    python = Path(sys.base_prefix, "bin", "python3")
    told = hafs(
        *("host", "add", "bare", "--address", "127.0.0.1", "--port", str(sshd.port), "--user", sshd.user),
        *("--key", str(sshd.user_key), "--root", str(tmp_path / "far"), "--python", str(python)),
        code=1,
    ).err
    assert "SHA256:" in told, "a key never seen is shown, to be compared"
    assert "--accept-new" in told
    assert "missing for training: torch" in hafs("host", "probe", "bare", "--accept-new").out
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"instruction": "Halt.", "output": "STP"}) + "\n")
    told = hafs(
        *("train", "sft", "--host", "bare", "--base_model", "hub:some/model", "--dataset", str(rows)), code=1
    ).err
    assert "host bare has no torch" in told
    assert "-m pip install torch" in told
    assert hafs.json("train", "list") == []


def test_a_full_disk_is_told_and_nothing_is_lost(house: Cli, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""

    def limit(size: int) -> dict[str, object]:
        return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}

    before = house.json("samples", "show", "12")
    told = house.process("samples", "approve", "12", code=1, **limit(1024)).err
    assert "the disk cannot be read or written" in told
    assert "free space" in told
    target = tmp_path / "all.jsonl"
    target.write_text("kept\n")
    told = house.process("samples", "export", str(target), code=1, **limit(2048)).err
    assert told.startswith("error: ")
    assert "Traceback" not in told
    assert target.read_text() == "kept\n", "what was there stays whole"
    assert house.json("samples", "show", "12") == before
    assert house.json("samples", "approve", "12") == [{"id": 12, "state": "approved"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [("newer", "made by a newer hafs-tui"), ("noise", "not a database, or damaged")],
)
def test_a_database_that_is_not_ours_is_left_as_it_is(hafs: Cli, content: str, words: str) -> None:
    path = hafs.home / "training" / "hafs.db"
    if content == "newer":
        hafs("campaign", "list")
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA user_version = {migrations()[-1][0] + 1}")
        connection.close()
    else:
        path.parent.mkdir()
        path.write_bytes(b"noise" * 4096)
    before = path.read_bytes()
    told = hafs.process("campaign", "list", code=1).err
    assert str(path) in told
    assert words in told
    assert "--home" in told
    assert path.read_bytes() == before


UNKNOWN = [
    ("campaign show none", "there are: pilot"),
    ("campaign run none", "there are: pilot"),
    ("campaign create other --provider none --model m --target 1", "gemini, anthropic, ollama, openai, embedded"),
    ("campaign create other --provider openai --model m --target 1 --domains none", ", opcodes, "),
    ("samples list --campaign none", "there are: pilot"),
    ("samples show 999", "samples list"),
    ("dataset show none", "dataset build"),
    ("dataset build other --campaign none", "there are: pilot"),
    ("host probe none", "known: local"),
    ("host remove none", "known: local"),
    ("host shell none", "known: local"),
    ("job show none", "job list"),
    ("train show none", "there are: "),
    ("train sft --base_model hub:a/b --dataset none", "datasets: "),
    ("train sft --base_model hub:a/b --dataset none --preset none", "qlora-16gb"),
    ("eval show 999", "eval list"),
    ("eval run --model api:openai/m --benchmarks none", "opcodes"),
    ("eval check none", "opcodes"),
    ("preferences show 999", "preferences list"),
    ("deploy stop none", "there are: "),
    ("models show none", "registered: "),
]  # fmt: skip


@pytest.mark.parametrize(("command", "words"), UNKNOWN, ids=[command for command, _ in UNKNOWN])
def test_an_unknown_name_is_told_with_those_there_are(house: Cli, command: str, words: str) -> None:
    done = house(*command.split(), code=1)
    assert words in done.err
    assert done.err.startswith("error: ")
    assert done.out == ""


def test_nothing_is_decided_where_one_of_many_is_unknown(house: Cli) -> None:
    before = house.json("samples", "show", "11")["state"]
    house("samples", "reject", "11", "999", code=1)
    assert house.json("samples", "show", "11")["state"] == before


@pytest.mark.parametrize(
    "command",
    [
        "nothing",
        "campaign nothing",
        "campaign create",
        "samples show one",
        "samples list --state nothing",
        "train dpo --beta x --sft_model run:a",
        "job launch local",
        "preferences choose 1 middle",
    ],
)
def test_wrong_use_is_2(house: Cli, command: str) -> None:
    assert "Usage: hafs-tui" in house(*command.split(), code=2).err


def test_a_fault_of_the_program_shows_no_secret(house: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken by sk-very-secret")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setattr("backend.registry.catalog.list_models", broken)
    told = house("models", "list", code=1).err
    assert "RuntimeError" in told
    assert "very-secret" not in told
    assert "fault of the program" in told
