"""Copies are whole or not there, go on where they stopped, and do not move what is there already."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from remote import Host, HostError, Refused
from tests.servers.hosts import Place

MIB = 1024 * 1024


async def test_a_file_goes_there_and_back_once(host: Host, place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3 * MIB + 17))
    source.chmod(0o755)
    seen: list[tuple[int, int]] = []
    sent = await host.put(source, "data/größe file.bin", lambda done, total: seen.append((done, total)))
    assert Path(sent.path) == place.root / "data" / "größe file.bin"
    assert Path(sent.path).read_bytes() == source.read_bytes()
    assert sent.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert sent.moved == sent.size == source.stat().st_size
    assert seen[-1] == (sent.size, sent.size)
    assert seen == sorted(seen)
    assert (await host.put(source, "data/größe file.bin")).moved == 0

    back = await host.get("data/größe file.bin", tmp_path / "back" / "copy.bin")
    assert Path(back.path).read_bytes() == source.read_bytes()
    assert os.access(sent.path, os.X_OK)
    assert os.access(back.path, os.X_OK)
    assert (await host.get("data/größe file.bin", tmp_path / "back" / "copy.bin")).moved == 0
    assert os.listdir(place.root / "data") == ["größe file.bin"]
    assert os.listdir(tmp_path / "back") == ["copy.bin"]


async def test_a_broken_copy_goes_on_where_it_stopped(host: Host, place: Place, tmp_path: Path) -> None:
    size = 24 * MIB
    source = tmp_path / "big.bin"
    source.write_bytes(os.urandom(size))
    cuts = 0

    def cut_in_the_middle(done: int, total: int) -> None:
        nonlocal cuts
        if cuts < 2 and done > total * (cuts + 1) // 3:
            cuts += 1
            place.cut()

    sent = await host.put(source, "big.bin", cut_in_the_middle)
    assert cuts == 2
    assert Path(sent.path).read_bytes() == source.read_bytes()
    assert size <= sent.moved < size * 1.6  # not from the start again
    assert os.listdir(place.root) == unordered(place, "big.bin")

    cuts = 0
    back = await host.get("big.bin", tmp_path / "back.bin", cut_in_the_middle)
    assert cuts == 2
    assert Path(back.path).read_bytes() == source.read_bytes()
    assert size <= back.moved < size * 1.6


def unordered(place: Place, *names: str) -> list[str]:
    """The root's listing if only our own folders and these names are in it."""
    listed = os.listdir(place.root)
    assert set(listed) - {"jobs", "agent"} == set(names)
    return listed


async def test_a_spoiled_part_is_found_and_sent_anew(host: Host, place: Place, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(MIB))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    place.root.mkdir()
    (place.root / f"file.bin.{digest[:16]}.part").write_bytes(b"not the beginning of it")
    sent = await host.put(source, "file.bin")
    assert Path(sent.path).read_bytes() == source.read_bytes()
    unordered(place, "file.bin")


async def test_another_file_of_the_same_name_is_replaced_whole(
    host: Host, place: Place, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"a" * MIB)
    second.write_bytes(b"b" * MIB)
    await host.put(first, "name")
    await asyncio.gather(*(host.put(second, "name") for _ in range(3)))
    assert (place.root / "name").read_bytes() == second.read_bytes()
    unordered(place, "name")


async def test_a_tree_goes_there_and_back(host: Host, place: Place, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for index in range(60):
        path = tree / f"d{index % 5}" / "über" / f"file {index}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * index)
    sent = await host.put(tree, "there")
    assert (sent.files, sent.size) == (60, sum(range(60)))
    (tree / "left.0123456789abcdef.part").write_text("of a copy that is not whole")
    (place.root / "there" / "left.0123456789abcdef.part").write_text("the same")
    back = await host.get("there", tmp_path / "back")
    assert back.sha256 == sent.sha256
    found = {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*") if path.suffix == ".txt"}
    got = {
        path.relative_to(tmp_path / "back"): path.read_bytes()
        for path in (tmp_path / "back").rglob("*")
        if path.is_file()
    }
    assert got == found
    assert (await host.put(tree, "there")).moved == 0


async def test_read_and_remove_and_what_they_refuse(host: Host, place: Place, tmp_path: Path) -> None:
    source = tmp_path / "small"
    source.write_bytes(b"\xff\x00text")
    await host.put(source, "deep/er/small")
    assert await host.read("deep/er/small") == b"\xff\x00text"
    with pytest.raises(HostError, match="nothing") as missing:
        await host.read("nothing")
    assert missing.value.remedy
    with pytest.raises(Refused, match="nothing"):
        await host.get("nothing", tmp_path / "never")
    assert not (tmp_path / "never").exists()
    await host.remove("deep")
    await host.remove("deep")
    assert not (place.root / "deep").exists()
    outside = tmp_path / "outside"
    outside.write_text("keep")
    for path in (str(outside), "../outside", "."):
        with pytest.raises(Refused, match="not removed"):
            await host.remove(path)
    assert outside.read_text() == "keep"


async def test_a_folder_that_cannot_be_written_is_an_error_in_words(host: Host, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    with pytest.raises(Refused, match="/proc/") as refusal:
        await host.put(source, "/proc/nothing/here")
    assert refusal.value.step == "copy"
