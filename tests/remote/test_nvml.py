"""NVML's readings, against a library of NVML's name and functions that this test builds and loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Two cards: one that tells all, one that has fallen off the bus (15) but for its handle.
_LIBRARY = r"""
#include <string.h>
typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;
static int handles[2] = {0, 1};
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "mock"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **card) { *card = &handles[index]; return 0; }
static int lost(void *card) { return *(int *)card; }
int nvmlDeviceGetName(void *card, char *name, unsigned int length) {
  if (lost(card)) return 15;
  strncpy(name, "NVIDIA GeForce RTX 4070 Ti SUPER", length); return 0;
}
int nvmlDeviceGetUtilizationRates(void *card, Utilization *use) {
  if (lost(card)) return 15;
  use->gpu = 37; use->memory = 5; return 0;
}
int nvmlDeviceGetMemoryInfo(void *card, Memory *memory) {
  if (lost(card)) return 15;
  memory->total = 16376ULL << 20; memory->used = 9000ULL << 20; memory->free = memory->total - memory->used; return 0;
}
int nvmlDeviceGetTemperature(void *card, int sensor, unsigned int *degrees) {
  if (lost(card)) return 15;
  *degrees = 61; return 0;
}
int nvmlDeviceGetPowerUsage(void *card, unsigned int *milliwatts) { return lost(card) ? 15 : 3; /* not supported */ }
"""

_READ = """
import asyncio, json, tempfile
from dataclasses import asdict
from pathlib import Path
from remote import HostConfig, open_host

async def main():
    host = open_host(HostConfig("here", "local", root=tempfile.mkdtemp()))
    async for readings in host.gpus(0.1):
        print(json.dumps([asdict(reading) for reading in readings]))
        break
    await host.aclose()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(_LIBRARY)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(folder / "nvml.c")],
        check=True,
    )
    return folder


def test_cards_are_read_and_what_they_do_not_tell_is_none(library: Path) -> None:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library)}
    done = subprocess.run(
        [sys.executable, "-c", _READ], capture_output=True, env=environment, text=True, timeout=60, check=True
    )
    whole, lost = json.loads(done.stdout)
    assert (whole["host"], whole["index"], whole["name"]) == ("here", 0, "NVIDIA GeForce RTX 4070 Ti SUPER")
    assert (whole["utilization"], whole["memory_used_mib"], whole["memory_total_mib"]) == (
        37.0,
        9000.0,
        16376.0,
    )
    assert (whole["temperature_c"], whole["power_w"]) == (61.0, None)
    assert lost["index"] == 1
    assert all(
        lost[figure] is None for figure in ("utilization", "memory_used_mib", "temperature_c", "power_w")
    )
