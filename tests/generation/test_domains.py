"""Domains: the packaged ones work, a user's own file is enough, and a broken one is named by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.generation.campaigns import NewCampaign, create, named
from backend.generation.domains import load_domains
from backend.generation.plan import ordinals, question, split_target
from backend.settings import SettingsError, Workspace
from tests.fixtures.words_domain import write_domain

GOOD = 'name = "x"\ntitle = "X"\nseeds = "x.jsonl"\nprompt = "p"\ninstruction = "i"\n'


def test_every_packaged_domain_can_ask_about_every_one_of_its_seeds(tmp_path: Path) -> None:
    domains = load_domains(tmp_path)
    assert {"asm", "gigaleak", "oracle", "yaze", "errors", "text", "opcodes"} <= set(domains)
    for domain in domains.values():
        for seed in domain.seeds:
            request = domain.request(seed, "m", 0.7, None, 1)
            assert request.messages[-1].content.strip(), f"{domain.name}/{seed.id} asks nothing"
            assert domain.instruction_of(seed).strip()
    assert domains["yaze"].row_domain == "cpp"


def test_a_domain_is_added_by_adding_a_file(tmp_path: Path) -> None:
    write_domain(tmp_path, "mine")
    mine = load_domains(tmp_path / "config")["mine"]
    assert len(mine.seeds) == 40
    assert mine.gates.order == ("schema", "length", "reference", "duplicates")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "temprature = 1\n", "x.toml:6: temprature"),
        ('name = "x"\ntitle = "X"\nseeds = "x.jsonl"\nprompt = "p"\n', "instruction"),
        (GOOD.replace("x.jsonl", "no.jsonl"), "no.jsonl"),
        ('name = "x\n', "x.toml: not valid TOML"),
        (GOOD + "[gates.length]\nmax_chars = 0\n", "x.toml:7"),
    ],
)  # fmt: skip
def test_a_broken_domain_is_named_by_file_line_and_key(tmp_path: Path, text: str, words: str) -> None:
    folder = tmp_path / "domains"
    folder.mkdir()
    (folder / "x.toml").write_text(text)
    (folder / "x.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(SettingsError) as caught:
        load_domains(tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", ":2: not valid JSON"),
        ("[1]", ":2: a seed"),
        ('{"id": "1"}', "stands twice"),
        ('{"id": "2", "reference": 12}', ":2: reference: expected text, found 12"),
    ],
)
def test_a_broken_seed_is_named_by_its_line(tmp_path: Path, line: str, words: str) -> None:
    write_domain(tmp_path, "x")
    (tmp_path / "config" / "domains" / "x.jsonl").write_text('{"id": "1"}\n' + line + "\n")
    with pytest.raises(SettingsError, match=r"x\.jsonl") as caught:
        load_domains(tmp_path / "config")
    assert words in str(caught.value)


def test_a_template_cannot_leave_its_sandbox(tmp_path: Path) -> None:
    write_domain(tmp_path, "x")
    path = tmp_path / "config" / "domains" / "x.toml"
    path.write_text(
        path.read_text().replace("Repeat: {{ word }}", "{{ ''.__class__.__mro__[1].__subclasses__() }}")
    )
    domain = load_domains(tmp_path / "config")["x"]
    with pytest.raises(SettingsError, match="domain x: the template 'prompt'"):
        domain.request(domain.seeds[0], "m", 0.7, None, 1)


def test_a_file_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    write_domain(tmp_path, "x")
    seeds = tmp_path / "config" / "domains" / "x.jsonl"
    seeds.write_bytes(b'{"id": "caf\xe9"}\n')
    with pytest.raises(SettingsError, match=r"x\.jsonl: the seeds of domain x cannot be read"):
        load_domains(tmp_path / "config")
    seeds.with_suffix(".toml").write_bytes(b'name = "\xe9"\n')
    with pytest.raises(SettingsError, match=r"x\.toml: cannot be read"):
        load_domains(tmp_path / "config")


async def test_every_question_draws_a_number_that_every_provider_takes(ws: Workspace) -> None:
    write_domain(ws.home)
    await create(ws, NewCampaign("big", "gemini", "m", 5, domains=("words",), seed=2**40))
    campaign, domain = await named(ws, "big"), load_domains(ws.config)["words"]
    asked = [question(campaign, domain, n) for n in range(ordinals(domain))]
    draws = [one.request.seed for one in asked]
    assert all(draw is not None and 0 <= draw < 2**31 for draw in draws)
    assert len(set(draws)) == len(draws)
    assert {one.seed.id for one in asked[:40]} == {seed.id for seed in domain.seeds}, "a round asks each once"


def test_the_requests_two_campaigns_divide_as_they_did() -> None:
    six = ["asm", "gigaleak", "oracle", "yaze", "errors", "text"]
    assert split_target(100, six)["asm"] == 16
    assert split_target(200, six)["asm"] == 33


@given(st.integers(1, 10_000), st.integers(1, 40))
def test_a_target_is_divided_whole_and_evenly(target: int, count: int) -> None:
    names = [f"d{n}" for n in range(count)]
    if target < count:
        with pytest.raises(ValueError, match="cannot be divided"):
            split_target(target, names)
        return
    shares = split_target(target, names)
    assert sum(shares.values()) == target
    assert max(shares.values()) - min(shares.values()) <= 1
