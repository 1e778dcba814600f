"""A libretro SNES core through ctypes: load a ROM, write its WRAM, run frames. Only the child imports it.

The interface is libretro.h (API version 1). Standard library only.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

WRAM_BYTES = 128 * 1024
_MEMORY_SYSTEM_RAM = 2

Offsets = Sequence[tuple[int, bytes]]


class CoreError(Exception):
    """The core cannot be used, or takes the ROM for none."""


class _GameInfo(ctypes.Structure):
    _fields_ = (
        ("path", ctypes.c_char_p),
        ("data", ctypes.c_char_p),
        ("size", ctypes.c_size_t),
        ("meta", ctypes.c_char_p),
    )


class _SystemInfo(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("version", ctypes.c_char_p),
        ("extensions", ctypes.c_char_p),
        ("need_fullpath", ctypes.c_bool),
        ("block_extract", ctypes.c_bool),
    )


_ENVIRONMENT = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint, ctypes.c_void_p)
_INPUT_STATE = ctypes.CFUNCTYPE(ctypes.c_int16, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)


class Core:
    """One core in this process. Raises CoreError where the file is none."""

    def __init__(self, path: str) -> None:
        try:
            self._library = library = ctypes.CDLL(path)
            if library.retro_api_version() != 1:
                raise CoreError(f"{path} speaks another version of libretro")
        except (OSError, AttributeError) as error:
            raise CoreError(f"{path} is no libretro core: {error}") from error
        info = _SystemInfo()
        library.retro_get_system_info(ctypes.byref(info))
        self.name = (info.name or b"").decode("utf-8", "replace")
        self.version = (info.version or b"").decode("utf-8", "replace")
        # Sound and picture go nowhere. A function of the C library takes them, because the core calls it for
        # every sample and a Python callback costs as much as the emulation; `labs` does nothing to anything.
        nowhere = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p)
        self._kept = (_ENVIRONMENT(lambda command, data: False), _INPUT_STATE(lambda *_: 0))
        library.retro_set_environment(self._kept[0])
        library.retro_set_video_refresh(nowhere)
        library.retro_set_audio_sample(nowhere)
        library.retro_set_audio_sample_batch(nowhere)
        library.retro_set_input_poll(nowhere)
        library.retro_set_input_state(self._kept[1])
        library.retro_get_memory_data.restype = ctypes.c_void_p
        library.retro_get_memory_size.restype = ctypes.c_size_t
        library.retro_load_game.restype = ctypes.c_bool
        library.retro_init()
        _use_large_pages()
        self._loaded = False

    def load(self, rom: bytes) -> None:
        """Put the ROM in and switch on. Raises CoreError where the core refuses it."""
        if self._loaded:
            self._library.retro_unload_game()
        self._loaded = False
        if not self._library.retro_load_game(ctypes.byref(_GameInfo(b"rom.sfc", rom, len(rom), None))):
            raise CoreError("the core takes this for no ROM")
        self._loaded = True
        size = self._library.retro_get_memory_size(_MEMORY_SYSTEM_RAM)
        if size != WRAM_BYTES:
            raise CoreError(f"the core shows {size} bytes of WRAM, not {WRAM_BYTES}")
        self._wram = self._library.retro_get_memory_data(_MEMORY_SYSTEM_RAM)

    def run(self, wram: bytes, frames: int, done: Offsets) -> int | None:
        """Write the whole WRAM and run until the bytes of `done` stand at the end of a frame; the number of
        that frame from 1, or None where they did not. Without `done` all frames are run: then `frames`."""
        ctypes.memmove(self._wram, wram, WRAM_BYTES)
        run, string_at, address = self._library.retro_run, ctypes.string_at, self._wram
        for frame in range(1, frames + 1):
            run()
            if done and all(string_at(address + offset, len(value)) == value for offset, value in done):
                return frame
        return None if done else frames

    def wram(self) -> bytes:
        return ctypes.string_at(self._wram, WRAM_BYTES)


_MADV_HUGEPAGE = 14
_LARGE_TABLE = 8 * 1024 * 1024


def _use_large_pages() -> None:
    """Ask Linux for large pages under this process's large tables. Loading writes 80 MB of them, and after
    each fork every page costs a fault again: 20,000 small ones took as long as the loading itself."""
    if sys.platform != "linux":
        return
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            fields = line.split()
            first, last = (int(address, 16) for address in fields[0].split("-"))
            if fields[1] == "rw-p" and len(fields) == 5 and last - first > _LARGE_TABLE:
                # Advice: a kernel without large pages refuses it, and all stays as it was.
                ctypes.CDLL(None).madvise(
                    ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_HUGEPAGE
                )
