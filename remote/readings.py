"""From nvidia-smi's lines, and the agent's figures of a processor, to readings."""

from __future__ import annotations

from typing import Any

from remote.host import CPU_INDEX, GpuDetail, GpuProcess, Reading

# The bits of nvmlClocksThrottleReasons; idling and the user's own clock settings hold nothing back.
THROTTLE = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "power brake",
}


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


def details_of(told: dict[str, Any]) -> list[GpuDetail]:
    """From the agent's tables: `gpus` and `processes` by column, `listed` as `nvidia-smi -L` prints it.

    nvidia-smi prints its errors where its tables are wanted: a line of another shape is none of a table.
    """
    details = []
    running = [row for row in told["processes"] if len(row) == 4]
    for row in told["gpus"]:
        if len(row) != 7:
            continue
        index, uuid, limit, clock, fan, throttled, ecc = row
        processes = [
            GpuProcess(int(pid), name, number(memory))
            for card, pid, memory, name in running
            if card == uuid and pid.isdigit()
        ]
        details.append(
            GpuDetail(
                index=int(index) if index.isdigit() else -1,
                uuid=uuid,
                power_limit_w=number(limit),
                clock_mhz=number(clock),
                fan_percent=number(fan),
                throttled=throttle_reasons(throttled),
                ecc_errors=number(ecc),
                mig=mig_devices(told["listed"], uuid),
                processes=tuple(processes),
            )
        )
    return details


def throttle_reasons(mask: str) -> tuple[str, ...]:
    """Of a mask such as `0x0000000000000004`; none of what is no number."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return ()
    return tuple(words for bit, words in THROTTLE.items() if bits & bit)


def mig_devices(listed: list[str], uuid: str) -> tuple[str, ...]:
    """The MIG lines below the line of a GPU."""
    found: list[str] = []
    inside = False
    for line in listed:
        if line.startswith("GPU "):
            inside = uuid in line
        elif inside and line.strip().startswith("MIG "):
            found.append(line.strip().partition(":")[0])
    return tuple(found)
