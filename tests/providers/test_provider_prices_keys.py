"""What requests cost, and where keys come from."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked

from backend.providers import ProviderError, Usage
from backend.providers.keys import resolve_key
from backend.providers.pricing import PriceError, cost_usd, load_prices, price_of

DAY = date(2026, 11, 24)
MILLION = 1_000_000


def test_cached_tokens_are_charged_once_and_at_their_own_rate() -> None:
    usage = Usage(prompt_tokens=MILLION // 10, completion_tokens=MILLION, cached_tokens=MILLION // 20)
    cost = cost_usd("gemini", "gemini-3-flash-preview", usage, on=DAY)
    assert cost == pytest.approx(0.05 * 0.50 + 0.05 * 0.05 + 3.00)


def test_claude_charges_what_is_written_to_the_cache_dearer() -> None:
    usage = Usage(100_000, 0, cached_tokens=40_000, cache_write_tokens=10_000)
    cost = cost_usd("anthropic", "claude-haiku-4-5", usage, on=DAY)
    assert cost == pytest.approx(0.05 * 1.00 + 0.04 * 0.10 + 0.01 * 1.25)


def test_a_long_prompt_raises_the_rates_of_the_whole_request() -> None:
    short = cost_usd("gemini", "gemini-3-pro-preview", Usage(200_000, 1000), on=DAY)
    long = cost_usd("gemini", "gemini-3-pro-preview", Usage(200_001, 1000), on=DAY)
    assert short == pytest.approx(0.2 * 2 + 0.001 * 12)
    assert long == pytest.approx(0.200001 * 4 + 0.001 * 18)


def test_a_price_holds_from_its_day() -> None:
    usage = Usage(MILLION, 0, cached_tokens=MILLION)
    before = cost_usd("anthropic", "claude-sonnet-5-5", usage, on=date(2026, 10, 6))
    after = cost_usd("anthropic", "claude-sonnet-5-5", usage, on=date(2026, 10, 7))
    assert (before, after) == (0.20, 0.10)
    assert cost_usd("anthropic", "claude-sonnet-5-5", usage, on=date(2026, 1, 1)) is None


def test_an_unknown_price_is_not_nothing_and_ones_own_machine_is() -> None:
    assert cost_usd("openai", "some-model", Usage(10, 10)) is None
    assert cost_usd("gemini", "gemini-99", Usage(10, 10)) is None
    assert cost_usd("ollama", "qwen3:4b", Usage(10, 10)) == 0
    assert cost_usd("embedded", "smollm2-135m-instruct", Usage(10, 10)) == 0


def test_a_dated_snapshot_costs_what_its_model_does() -> None:
    snapshot = price_of("anthropic", "claude-haiku-4-5-20251001", on=DAY)
    assert snapshot == price_of("anthropic", "claude-haiku-4-5", on=DAY)
    assert snapshot is not None
    assert price_of("gemini", "models/gemini-3-flash-preview", on=DAY) is not None


def own_prices(home: Path, text: str) -> Path:
    (home / "config").mkdir()
    (home / "config" / "prices.toml").write_text(text)
    return home


def test_ones_own_prices_lie_over_the_packaged_ones(tmp_path: Path) -> None:
    line = 'provider = "{}"\nmodel = "{}"\nfrom = {}\ninput = 9\noutput = 9\n'
    text = "[[price]]\n" + line.format("gemini", "gemini-3-flash-preview", "2025-12-17")
    text += "[[price]]\n" + line.format("openai", "mine", "2026-01-01")
    prices = load_prices(own_prices(tmp_path, text))
    assert cost_usd("gemini", "gemini-3-flash-preview", Usage(MILLION), on=DAY, prices=prices) == 9
    assert cost_usd("openai", "mine", Usage(MILLION), on=DAY, prices=prices) == 9
    assert cost_usd("gemini", "gemini-2.5-flash", Usage(MILLION), on=DAY, prices=prices) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[price", "prices.toml: "),
        ("[[cost]]\na = 1", "unknown key 'cost'"),
        ('[[price]]\nprovider = "a"\nmodel = "b"\nfrom = 2026-01-01\ninptu = 1', "1: unknown key 'inptu'"),
        ('[[price]]\nprovider = "a"\nmodel = "b"\nfrom = 2026-01-01\ninput = 1', "'output' is missing"),
        (
            '[[price]]\nprovider = "a"\nmodel = "b"\nfrom = "x"\ninput = 1\noutput = 1',
            "'from' must be a date",
        ),
        (
            '[[price]]\nprovider = "a"\nmodel = "b"\nfrom = 2026-01-01\ninput = -1\noutput = 1',
            "'input' must be",
        ),
    ],
)
def test_a_broken_price_file_says_what_and_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PriceError) as caught:
        load_prices(own_prices(tmp_path, text))
    assert said in str(caught.value)
    assert "prices.toml" in str(caught.value)


class Ring(KeyringBackend):
    """A keyring that holds what it is told, or is locked."""

    priority = 1  # type: ignore[assignment]

    def __init__(self, held: dict[str, str] | None) -> None:
        super().__init__()
        self.held = held

    def get_password(self, service: str, username: str) -> str | None:
        if self.held is None:
            raise KeyringLocked("locked")
        return self.held.get(username) if service == "hafs-tui" else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    ring = Ring({})
    monkeypatch.setattr(keyring, "get_password", ring.get_password)
    return ring


def test_the_environment_wins_over_the_keyring(ring: Ring) -> None:
    ring.held = {"GEMINI_API_KEY": "ring"}
    assert resolve_key("gemini", environ={"GOOGLE_API_KEY": " env "}) == "env"
    assert resolve_key("gemini", environ={}) == "ring"


@pytest.mark.parametrize(
    ("kind", "variable"),
    [("gemini", "GEMINI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY"), ("openai", "OPENAI_API_KEY")],
)
def test_a_missing_key_names_the_variable_and_the_provider(ring: Ring, kind: str, variable: str) -> None:
    with pytest.raises(ProviderError, match=rf"{kind}: .*{variable} is not set") as caught:
        resolve_key(kind, environ={})
    assert caught.value.stops_provider
    assert variable in caught.value.remedy


def test_an_address_of_ones_own_needs_no_key(ring: Ring) -> None:
    assert resolve_key("openai", "http://127.0.0.1:8000/v1", environ={}) == ""
    assert resolve_key("ollama", environ={}) == ""
    assert resolve_key("embedded", environ={}) == ""
    with pytest.raises(ProviderError):
        resolve_key("openai", "https://api.openai.com/v1", environ={})


def test_a_locked_keyring_is_said_only_where_its_key_is_needed(ring: Ring) -> None:
    ring.held = None
    assert resolve_key("openai", "http://127.0.0.1:8000/v1", environ={}) == ""
    with pytest.raises(ProviderError, match="keyring cannot be read"):
        resolve_key("anthropic", environ={})
