"""The policy of hybrid campaigns: which requests go to one's own GPU and which to the API, and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from backend.settings import HybridSettings
from remote import Reading

Side = Literal["local", "api"]

HOTTEST_C = 85.0
FULLEST_VRAM = 0.95
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a request goes, the reason, and the reading that was looked at (None: there was none)."""

    side: Side
    reason: str
    reading: Reading | None

    def as_json(self) -> str:
        return json.dumps(
            {
                "to": self.side,
                "reason": self.reason,
                "reading": asdict(self.reading) if self.reading is not None else None,
            }
        )


def choose(reading: Reading | None, ordinal: int, now: float, settings: HybridSettings) -> Choice:
    """Where the request of this ordinal goes; `now` in Unix seconds, as the reading's `at`.

    To the GPU below the low threshold of utilisation, to the API above the high one, in proportion between
    them: the share of ordinals that goes to the GPU falls in a line from 1 to 0, and which ones do is fixed
    (the golden-ratio sequence spreads them evenly). To the API as well where the reading is missing or old,
    above 85 °C or above 95 % of video memory.
    """

    def to(side: Side, reason: str) -> Choice:
        return Choice(side, reason, reading)

    if not settings.enabled:
        return to("api", "hybrid routing is switched off")
    if reading is None or reading.utilization is None:
        return to("api", "there is no reading of the GPU")
    age = now - reading.at + reading.stale_s
    if age > settings.reading_max_age_sec:
        return to("api", f"the reading is {age:.0f} s old (limit {settings.reading_max_age_sec:g} s)")
    if reading.temperature_c is not None and reading.temperature_c > HOTTEST_C:
        return to("api", f"the GPU has {reading.temperature_c:g} °C (limit {HOTTEST_C:g} °C)")
    if reading.memory_used_mib is not None and reading.memory_total_mib:
        full = reading.memory_used_mib / reading.memory_total_mib
        if full > FULLEST_VRAM:
            return to("api", f"{full:.0%} of the video memory is used (limit {FULLEST_VRAM:.0%})")
    busy, low, high = reading.utilization, settings.gpu_threshold_low, settings.gpu_threshold_high
    if busy < low:
        return to("local", f"the GPU is {busy:g} % busy, below {low:g} %")
    if busy > high or high <= low:
        return to("api", f"the GPU is {busy:g} % busy, above {high:g} %")
    share = (high - busy) / (high - low)
    side: Side = "local" if (ordinal * _GOLDEN) % 1.0 < share else "api"
    return to(side, f"the GPU is {busy:g} % busy: {share:.0%} go to it, request {ordinal} to the {side}")
