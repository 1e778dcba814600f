"""From nvidia-smi's lines, and the agent's figures of a processor, to readings."""

from __future__ import annotations

from typing import Any

from remote.host import CPU_INDEX, Reading


def number(text: str) -> float | None:
    """A figure; None for `[N/A]`, `[Not Supported]`, `[GPU is lost]` and whatever else is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def gpu_reading(host: str, line: str, at: float) -> Reading | None:
    """One line of `count, index, name, utilization, memory used, memory total, temperature, power`.

    Figures are counted from the end, for a name may hold a comma. None if it is no such line.
    """
    fields = [field.strip() for field in line.split(",")]
    if len(fields) < 8 or not fields[1].isdigit():
        return None
    utilization, used, total, temperature, power = (number(field) for field in fields[-5:])
    name = ", ".join(fields[2:-5])
    return Reading(host, int(fields[1]), name, utilization, used, total, temperature, power, at)


def readings_of(host: str, fields: dict[str, Any], at: float) -> list[Reading]:
    """The readings of one sample of the agent."""
    if "cpu" in fields:
        cpu = fields["cpu"]
        used, total = cpu["used_mib"], cpu["total_mib"]
        return [Reading(host, CPU_INDEX, cpu["name"], cpu["utilization"], used, total, None, None, at)]
    parsed = (gpu_reading(host, line, at) for line in fields["smi"])
    return [reading for reading in parsed if reading is not None]
