"""What a request cost, from the dated prices of `config/prices.toml`."""

from __future__ import annotations

import re
import time
import tomllib
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from backend.providers.base import Usage

FREE = frozenset({"embedded", "ollama"})
"""Providers that run on one's own machines: they charge nothing for tokens."""
_SNAPSHOT = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")


class PriceError(ValueError):
    """A price file that cannot be read: it says which file, which entry and what was expected."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens, from a day on; 0 means "free". The `long_` rates are those of a whole
    request whose prompt has more than `long_over` tokens (0: there is no such step)."""

    provider: str
    model: str
    from_day: date
    input: float
    output: float
    cached: float
    cache_write: float
    long_over: int
    long_input: float
    long_output: float
    long_cached: float
    long_cache_write: float

    def cost_usd(self, usage: Usage) -> float:
        """The cost of one request. Cached and cache-written tokens are parts of the prompt, charged at their
        own rates and not at the input's too."""
        is_long = 0 < self.long_over < usage.prompt_tokens
        input_, output, cached, cache_write = (
            (self.long_input, self.long_output, self.long_cached, self.long_cache_write)
            if is_long
            else (self.input, self.output, self.cached, self.cache_write)
        )
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens)
        dollars = (
            fresh * input_
            + usage.cached_tokens * cached
            + usage.cache_write_tokens * cache_write
            + usage.completion_tokens * output
        )
        return dollars / 1_000_000


def cost_usd(
    provider: str,
    model: str,
    usage: Usage,
    *,
    on: date | None = None,
    prices: tuple[Price, ...] | None = None,
) -> float | None:
    """What a request cost on the day `on` (default: today, UTC), in US dollars: 0 for one's own machines,
    None where the price is not known (an unknown price is not a price of nothing)."""
    if provider in FREE:
        return 0.0
    price = price_of(provider, model, on=on, prices=prices)
    return None if price is None else price.cost_usd(usage)


def price_of(
    provider: str, model: str, *, on: date | None = None, prices: tuple[Price, ...] | None = None
) -> Price | None:
    """The price that holds for a model on a day. A dated snapshot ("claude-haiku-4-5-20251001") costs what
    its model does. Lines given later win over earlier ones of the same day."""
    day = on or datetime.now(UTC).date()
    name = model.removeprefix("models/")
    table = packaged_prices() if prices is None else prices
    for candidate in (name, _SNAPSHOT.sub("", name)):
        lines = [p for p in table if (p.provider, p.model) == (provider, candidate) and p.from_day <= day]
        if lines:
            return max(enumerate(lines), key=lambda line: (line[1].from_day, line[0]))[1]
    return None


@cache
def packaged_prices() -> tuple[Price, ...]:
    """The prices that came with the program."""
    source = files("config") / "prices.toml"
    return _parse(source.read_text("utf-8"), "config/prices.toml")


def load_prices(home: Path) -> tuple[Price, ...]:
    """The packaged prices with those of `home`/config/prices.toml, where it exists, laid over them.

    Raises PriceError naming file, entry and key.
    """
    own = home / "config" / "prices.toml"
    try:
        stat = own.stat()
    except FileNotFoundError:
        return packaged_prices()
    return _laid_over(own, stat.st_mtime_ns, stat.st_size)


def current_prices(home: Path) -> tuple[Price, ...]:
    """`load_prices`, looking at the file at most once a second. Raises PriceError."""
    return _as_of(home, int(time.monotonic()))


@lru_cache(maxsize=4)
def _as_of(home: Path, second: int) -> tuple[Price, ...]:
    return load_prices(home)


@lru_cache(maxsize=4)
def _laid_over(own: Path, changed_ns: int, size: int) -> tuple[Price, ...]:
    """Read anew when the file has another time or size."""
    mine = _parse(own.read_text("utf-8"), str(own))
    replaced = {(p.provider, p.model, p.from_day) for p in mine}
    kept = tuple(p for p in packaged_prices() if (p.provider, p.model, p.from_day) not in replaced)
    return kept + mine


def _parse(text: str, where: str) -> tuple[Price, ...]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PriceError(f"{where}: {error}") from error
    unknown = set(table) - {"price"}
    if unknown:
        raise PriceError(f"{where}: unknown key {sorted(unknown)[0]!r}: only [[price]] entries are expected")
    return tuple(_price(entry, f"{where}: [[price]] {i}") for i, entry in enumerate(table["price"], start=1))


def _price(entry: dict[str, Any], where: str) -> Price:
    """One entry. Cached tokens without a rate of their own cost what fresh ones do; so do written ones."""
    known = {"from" if f.name == "from_day" else f.name for f in fields(Price)}
    for key in entry:
        if key not in known:
            raise PriceError(f"{where}: unknown key {key!r}: expected {', '.join(sorted(known))}")
    for key, kind in (("provider", str), ("model", str), ("from", date)):
        if not isinstance(entry.get(key), kind):
            raise PriceError(f"{where}: {key!r} must be a {kind.__name__}, not {entry.get(key)!r}")
    rates = {
        key: _rate(entry, key, where) for key in entry.keys() - {"provider", "model", "from", "long_over"}
    }
    for key in ("input", "output"):
        if key not in rates:
            raise PriceError(f"{where}: {key!r} is missing")
    long_over = entry.get("long_over", 0)
    if not isinstance(long_over, int) or long_over < 0:
        raise PriceError(f"{where}: 'long_over' must be a number of tokens, not {long_over!r}")
    long_input = rates.get("long_input", rates["input"])
    return Price(
        provider=entry["provider"],
        model=entry["model"],
        from_day=entry["from"],
        input=rates["input"],
        output=rates["output"],
        cached=rates.get("cached", rates["input"]),
        cache_write=rates.get("cache_write", rates["input"]),
        long_over=long_over,
        long_input=long_input,
        long_output=rates.get("long_output", rates["output"]),
        long_cached=rates.get("long_cached", long_input),
        long_cache_write=rates.get("long_cache_write", long_input),
    )


def _rate(entry: dict[str, Any], key: str, where: str) -> float:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
        raise PriceError(f"{where}: {key!r} must be dollars for a million tokens, not {value!r}")
    return float(value)
