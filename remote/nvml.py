"""This machine's GPUs through NVML, where it has any: no process, and nothing to parse.

The calls block for a millisecond or so each: run them in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from remote.host import Reading

T = TypeVar("T")
_MIB = 1024 * 1024


def cards() -> int:
    """How many GPUs NVML shows here; 0 where there is no driver, no library or no card."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def read(host: str) -> list[Reading]:
    """A reading of each card, in NVML's order. What a card does not tell is None; a card that fell off the
    bus keeps its place, without figures. `cards` has found some before."""
    import pynvml

    def told(ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except pynvml.NVMLError:
            return None

    def reading(index: int) -> Reading:
        at = time.time()
        card = told(lambda: pynvml.nvmlDeviceGetHandleByIndex(index))
        if card is None:
            return Reading(host, index, "not answering", None, None, None, None, None, at)
        name = told(lambda: pynvml.nvmlDeviceGetName(card))
        use = told(lambda: pynvml.nvmlDeviceGetUtilizationRates(card))
        memory = told(lambda: pynvml.nvmlDeviceGetMemoryInfo(card))
        temperature = told(lambda: pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU))
        milliwatts = told(lambda: pynvml.nvmlDeviceGetPowerUsage(card))
        return Reading(
            host=host,
            index=index,
            name=name.decode(errors="replace") if isinstance(name, bytes) else str(name or "GPU"),
            utilization=None if use is None else float(use.gpu),
            memory_used_mib=None if memory is None else memory.used / _MIB,
            memory_total_mib=None if memory is None else memory.total / _MIB,
            temperature_c=None if temperature is None else float(temperature),
            power_w=None if milliwatts is None else milliwatts / 1000,
            at=at,
        )

    return [reading(index) for index in range(int(pynvml.nvmlDeviceGetCount()))]
