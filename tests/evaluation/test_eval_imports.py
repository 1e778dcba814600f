"""What reading these rooms costs a command that compares nothing."""

from __future__ import annotations

import subprocess
import sys


def test_no_numeric_stack_is_imported_before_it_is_used() -> None:
    rooms = (
        "backend.evaluation.report, backend.similarity.minhash, backend.quality.run, backend.datasets.splits"
    )
    code = f"import sys, {rooms}; print(*sorted({{'scipy', 'datasketch', 'sacrebleu', 'torch'}} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
