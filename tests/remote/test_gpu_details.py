"""What nvidia-smi tells when somebody looks: limits, faults, MIG, and who uses the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote import GpuProcess
from remote.readings import details_of
from tests.remote.test_remote_readings import with_smi
from tests.servers.hosts import Place

# As nvidia-smi 535 prints it, of an A100 split into MIG devices beside a card that fell off the bus.
SMI = """
case "$*" in
*--query-gpu=index,uuid*)
  echo "0, GPU-aaaa, 400.00, 1410, [N/A], 0x0000000000000024, 2"
  echo "1, GPU-bbbb, [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost], [GPU is lost]" ;;
*--query-compute-apps*)
  echo "GPU-aaaa, 4711, 20480, /opt/py/python, with a comma"
  echo "GPU-aaaa, 4712, [N/A], C:\\\\ollama.exe" ;;
*-L*)
  echo "GPU 0: NVIDIA A100 (UUID: GPU-aaaa)"
  echo "  MIG 1g.5gb      Device  0: (UUID: MIG-1)"
  echo "GPU 1: Unable to determine the device handle" ;;
*) echo "NVIDIA A100"; echo "?" ;;
esac
"""


async def test_details_of_each_card(place: Place, tmp_path: Path) -> None:
    with_smi(place, tmp_path / "bin", SMI)
    first, lost = await place.open().gpu_details()
    assert (first.power_limit_w, first.clock_mhz, first.fan_percent, first.ecc_errors) == (
        400.0,
        1410.0,
        None,
        2.0,
    )
    assert first.throttled == ("power cap", "heat")
    assert first.mig == ("MIG 1g.5gb      Device  0",)
    assert first.processes == (
        GpuProcess(4711, "/opt/py/python, with a comma", 20480.0),
        GpuProcess(4712, "C:\\ollama.exe", None),
    )
    assert (lost.index, lost.power_limit_w, lost.throttled, lost.processes) == (1, None, (), ())


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_field_that_the_driver_does_not_know_costs_no_other(place: Place, tmp_path: Path) -> None:
    script = """
case "$*" in
*--query-gpu=*clocks_throttle_reasons.active*) echo 'Field "x" is not a valid field to query.'; exit 2 ;;
*--query-gpu=index\\ *) echo 0 ;;
*--query-gpu=uuid\\ *) echo GPU-aaaa ;;
*--query-gpu=power.limit\\ *) echo 300.00 ;;
*--query-gpu=*) echo "[N/A]" ;;
esac
"""
    with_smi(place, tmp_path / "bin", script)
    (card,) = await place.open().gpu_details()
    assert (card.uuid, card.power_limit_w, card.throttled) == ("GPU-aaaa", 300.0, ())


async def test_no_driver_is_no_error(place: Place, tmp_path: Path) -> None:
    with_smi(place, tmp_path / "bin", 'echo "NVIDIA-SMI has failed because ..."\nexit 9\n')
    assert await place.open().gpu_details() == []


def test_an_error_in_place_of_a_table_gives_no_detail_and_no_crash() -> None:
    told = {
        "gpus": [
            ["NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."],
            ["No devices were found"],
        ],
        "processes": [["Failed to query"]],
        "listed": ["No devices were found"],
    }
    assert details_of(told) == []
