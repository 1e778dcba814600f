"""Readings: what nvidia-smi says, what it does not say, and what stands in for it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from remote import CPU_INDEX, Host, Reading
from remote.readings import gpu_reading
from tests.servers.hosts import Place

LINES = [
    ("2, 0, NVIDIA H100 80GB HBM3, 97, 40321, 81559, 61, 688.42", (97, 40321, 81559, 61, 688.42)),
    ("2, 1, NVIDIA A100, 40GB, [N/A], 12, 40960, 33, [Not Supported]", (None, 12, 40960, 33, None)),
    (
        "2, 1, GPU, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [Unknown Error]",
        (None,) * 5,
    ),
    (
        "1, 0, NVIDIA GeForce RTX 5060 Ti, 3, 512, 16311, 40, [Insufficient Permissions]",
        (3, 512, 16311, 40, None),
    ),
    ("1, 0, Odd, nan, inf, 1, 2, 3", (None, None, 1, 2, 3)),
]


@pytest.mark.parametrize(("line", "figures"), LINES)
def test_a_line_becomes_a_reading(line: str, figures: tuple[float | None, ...]) -> None:
    reading = gpu_reading("box", line, at=5.0)
    assert reading is not None
    assert reading.index == int(line.split(", ")[1])
    assert figures == (
        reading.utilization,
        reading.memory_used_mib,
        reading.memory_total_mib,
        reading.temperature_c,
        reading.power_w,
    )
    assert (reading.host, reading.at, reading.stale_s) == ("box", 5.0, 0.0)


@pytest.mark.parametrize(
    "line", ["", "Unable to determine the device handle for GPU", "1, x, a, b, c, d, e, f"]
)
def test_words_are_no_reading(line: str) -> None:
    assert gpu_reading("box", line, at=0.0) is None


def test_a_comma_in_a_name_stays_in_it() -> None:
    reading = gpu_reading("box", "1, 0, NVIDIA A100, 40GB, 1, 2, 3, 4, 5", at=0.0)
    assert reading is not None
    assert reading.name == "NVIDIA A100, 40GB"


def with_smi(place: Place, folder: Path, script: str) -> None:
    """Give the host an nvidia-smi: its Python is a script that puts one on PATH first."""
    folder.mkdir()
    smi, python = folder / "nvidia-smi", folder / "python"
    smi.write_text("#!/bin/sh\n" + script)
    python.write_text(f'#!/bin/sh\nPATH="{folder}:$PATH" exec {sys.executable} "$@"\n')
    smi.chmod(0o755)
    python.chmod(0o755)
    place.config = replace(place.config, python=str(python))


async def take(host: Host, count: int, interval_s: float = 0.1) -> list[list[Reading]]:
    taken: list[list[Reading]] = []
    async for readings in host.gpus(interval_s):
        taken.append(readings)
        if len(taken) == count:
            break
    return taken


async def test_every_card_is_in_every_sample(place: Place, tmp_path: Path) -> None:
    with_smi(
        place,
        tmp_path / "bin",
        f"echo $$ > {tmp_path}/pid\n"
        'case "$*" in *-lms*) while :; do\n'
        "printf '2, 0, NVIDIA L40S, 5, 100, 46068, 40, 80.5\\n2, 1, NVIDIA L40S, [N/A], 7, 46068, [N/A], [N/A]\\n'\n"
        "sleep 0.1; done;; *) printf 'NVIDIA L40S\\nNVIDIA L40S\\n';; esac\n",
    )
    host = place.open()
    assert (await host.probe()).gpus == ("NVIDIA L40S", "NVIDIA L40S")
    for readings in await take(host, 3):
        assert [(reading.index, reading.utilization) for reading in readings] == [(0, 5.0), (1, None)]
        assert readings[0].host == place.config.name
    await host.aclose()
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_driver_that_fails_leaves_the_processor(place: Place, tmp_path: Path) -> None:
    with_smi(
        place,
        tmp_path / "bin",
        'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."\nexit 9\n',
    )
    host = place.open()
    probe = await host.probe()
    assert probe.gpus == ()
    assert "couldn't communicate" in probe.gpu_problem
    for [reading] in await take(host, 2):
        assert reading.index == CPU_INDEX
        assert reading.name
        assert reading.utilization is None or 0 <= reading.utilization <= 100
        assert reading.memory_used_mib is not None
        assert reading.memory_total_mib is not None
        assert 0 < reading.memory_used_mib < reading.memory_total_mib
        assert (reading.temperature_c, reading.power_w) == (None, None)


async def test_an_nvidia_smi_that_dies_is_started_again(place: Place, tmp_path: Path) -> None:
    with_smi(place, tmp_path / "bin", "echo '1, 0, Card, 1, 2, 3, 4, 5'\n")
    assert [readings[0].name for readings in await take(place.open(), 3)] == ["Card"] * 3


async def test_readings_grow_stale_while_the_link_is_down_and_come_back(place: Place) -> None:
    host = place.open()
    fresh = stale = back = False
    async for [reading] in host.gpus(0.1):
        if not fresh:
            fresh = reading.stale_s == 0
            place.away()
        elif not stale:
            stale = reading.stale_s > 0.5
            if stale:
                place.back()
        elif reading.stale_s == 0:
            back = True
            break
    assert (fresh, stale, back) == (True, True, True)
