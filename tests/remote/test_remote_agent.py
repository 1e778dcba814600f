"""The agent must run where nothing of ours is: one file, the standard library, an old Python."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import remote

AGENT = Path(remote.__file__).with_name("agent.py")


def test_it_is_python_3_9_and_standard_library_only() -> None:
    tree = ast.parse(AGENT.read_text(), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_it_runs_alone_from_any_folder(tmp_path: Path) -> None:
    copy = tmp_path / "agent.py"
    copy.write_bytes(AGENT.read_bytes())
    hello = (
        b'{"id": 0, "op": "hello", "nonce": "abc", "root": "'
        + str(tmp_path / "root").encode()
        + b'", "n": 0}\n'
    )
    done = subprocess.run(
        [sys.executable, "-I", str(copy), "serve"], input=hello, capture_output=True, check=True, timeout=30
    )
    assert done.stdout.startswith(b"\nHAFS-AGENT abc\n")
    assert done.stderr == b""


def test_importing_hosts_does_not_import_ssh() -> None:
    code = "import sys, remote; sys.exit('asyncssh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
