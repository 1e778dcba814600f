"""Hostile answers: each is its own outcome, touches nothing outside, and the next answer is judged as ever."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from backend.execution import assembling, pool
from backend.execution.assembling import assemble_answer, pieced_together, refusal
from backend.execution.items import judge_answer
from backend.execution.pool import Execution, open_execution
from backend.execution.sandbox import has_seccomp, landlock_version
from backend.execution.tools import ChildModule, Tools, child_environment
from tests.execution.roms import RIGHT, ROUTINE, task

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "line",
    [
        'incbin "/etc/passwd"', "INCSRC secret.asm", "  label: incbin x.bin", "include \"x\"", 'incbin "x" -> $8000',
        'db readfile1("x", 0)', "!a = readfile4(\"/etc/passwd\",0)", 'if canreadfile("x",0,1) : nop : endif',
        'dw filesize("rom.sfc")', "includefrom x.asm", "includeonce", 'table "x.tbl"', "nop : table x.tbl,ltr",
        "+ table x.tbl", 'incs\\\nrc "x"', 'db "\'" ; incbin "x"', ';[[ ]] incbin "x"', 'db "/etc/passwd"',
        'print "../secret"', "!p = \"C:\\secret\"", "reset bytes", "nop\0",
    ],
)  # fmt: skip
async def test_what_reads_files_is_refused_by_its_words(execution: Execution, line: str) -> None:
    assert refusal(line) is not None
    judged = await judge_answer(execution, task(), f"{RIGHT}\n{line}")
    assert (judged.outcome, judged.score) == ("refused", 0.0)


@pytest.mark.parametrize(
    "code",
    [
        "; a table of things to include, see incsrc", "Table:\n dw 1,2\n lda Table,x", "lda.l table,x : rts",
        "table:\n db 1", ".table\n dw .one", "jmp (table,x)", "lda table : sta $12", "lda #table : rts", "dl table+2",
        'db "a/b", "/", \'"\'', "included: rts", "!incsrc_done = 1", "jsr include_all",
    ],
)  # fmt: skip
async def test_what_reads_no_file_is_not_refused(code: str) -> None:
    assert refusal(code) is None


async def test_an_include_that_is_pieced_together_sees_no_file(execution: Execution, tmp_path: Path) -> None:
    """asar joins defines before it looks for commands: the words pass, and Landlock holds."""
    assert landlock_version() > 0, "this system has no Landlock"
    secret = tmp_path / "secret.asm"
    secret.write_text('error "THE SECRET"\n')
    slash = '!s = /\n!i = inc\nmacro read(word)\n<word>src "'
    parts = str(secret).strip("/").split("/")
    code = f'{RIGHT}\n{slash}!{{s}}{"!{s}".join(parts)}"\nendmacro\n%read(!i)'
    assert refusal(code) is None
    assert pieced_together(code)
    judged = await judge_answer(execution, task(), code)
    assert judged.outcome == "no_assembly"
    assert "THE SECRET" not in judged.detail + "".join(judged.warnings)
    secret.write_text("!known = 1\n")
    assert (await judge_answer(execution, task(), code)).outcome == "no_assembly"


async def test_without_landlock_pieces_are_not_run(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    child = "import backend.execution.sandbox as s, backend.execution.asar_child as c, sys\n"
    _stand_in(
        monkeypatch, asar_child=child + "s.landlock_version = lambda: 0\nc.main(sys.argv[1], sys.argv[2])"
    )
    async with open_execution(tools, 1) as execution:
        judged = await judge_answer(execution, task(), "!a = $10\n" + RIGHT)
        assert judged.outcome == "not_run"
        assert "no Landlock here" in judged.detail
        assert (await judge_answer(execution, task(), RIGHT)).outcome == "correct"


@pytest.mark.parametrize(
    ("code", "outcome", "said"),
    [
        ("while 1 == 1\n!x = 1\nendwhile", "time_out", "took too long"),
        ("macro again()\n%again()\nendmacro\n%again()", "no_assembly", "Recursion limit"),
        ("macro two()\n%two() : %two()\nendmacro\n%two()", "no_assembly", "Recursion limit"),
        ("while 1 == 1\n nop\nendwhile", "no_assembly", "bank border"),
        ("rep 2000000000 : nop", "no_assembly", "bank border"),
        ("padbyte $FF : pad $FFFFFF", "no_assembly", "bank border"),
        ("skip 4000000000\n nop", "no_assembly", "bank border"),
        ("!x = aaaaaaaa\n" + "!x := !x!x\n" * 60, "crash", "asar was ended by SIG"),
        ("norom\norg $FFFFF0\n db 1", "too_big", "the file that asar writes"),
        (
            '!n = 0\nwhile !n < 9000\nprint "' + "A" * 60 + '"\n!n #= !n+1\nendwhile',
            "too_big",
            "printed more",
        ),
        ("nop\n" * 70_000, "refused", "characters of source"),
    ],
)
async def test_what_would_take_all_time_disk_or_memory_is_ended(
    execution: Execution, code: str, outcome: str, said: str
) -> None:
    started = time.monotonic()
    judged = await judge_answer(execution, task(), f"{RIGHT}\n{code}")
    assert (judged.outcome, judged.score) == (outcome, 0.0)
    assert said in judged.detail
    assert time.monotonic() - started < 30
    assert (await judge_answer(execution, task(), RIGHT)).outcome == "correct"


async def test_verdicts_in_what_asar_prints_are_not_believed(execution: Execution) -> None:
    lies = 'print "correct"\nprint "answer.asm:1: warning: all cases passed"\nprint "0123456789abcdef 0"\n'
    wrong = await judge_answer(execution, task(), lies + "Answer:\n rts")
    assert wrong.outcome == "wrong"
    failed = await judge_answer(execution, task(), RIGHT + '\nerror "\x1b[2J correct, exit status 0"')
    assert failed.outcome == "no_assembly"
    assert "\x1b[2J" in failed.detail, "stored raw: whoever shows it cleans it"


async def test_an_answer_cannot_count_its_own_bytes(
    execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines that count carry a mark that is drawn anew each time."""
    monkeypatch.setattr(assembling.secrets, "token_hex", lambda _: "feed" * 6)
    code = RIGHT + f'\nprint "{"feed" * 6} 0"\nprint "{"feed" * 6} 1"'
    guessed = await assemble_answer(execution, code, source=ROUTINE, files={}, rom=None)
    assert guessed.emitted is None, "marks that were guessed count for nothing"


def _stand_in(monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Start another program in place of an execution child."""
    real = pool.child_command

    def command(module: ChildModule, tool: Path, folder: Path) -> list[str]:
        if module in programs:
            return [sys.executable, "-S", "-c", programs[module], str(tool), str(folder)]
        return real(module, tool, folder)

    monkeypatch.setattr(pool, "child_command", command)


CORE = """
import os, signal, socket, subprocess, sys, time
import backend.execution.core_child as child
class Core:
    name = version = "stand-in"
    def __init__(self, path): pass
    def load(self, rom): pass
    def run(self, wram, frames, done):
        BODY
    def wram(self): return bytes(self.seen).ljust(131072, b"\\0")
child.Core = Core
child.main("")
"""


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crash"),
        ("os._exit(3)", "crash"),
        ("time.sleep(600)", "time_out"),
        ("raise MemoryError", "not_run"),
    ],
)
async def test_a_core_that_dies_or_hangs_is_that_answers_outcome(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, body: str, outcome: str
) -> None:
    _stand_in(monkeypatch, core_child=CORE.replace("BODY", body))
    async with open_execution(tools, 1) as execution:
        judged = await judge_answer(execution, task(), RIGHT)
        assert judged.outcome == outcome
        assert not judged.right


async def test_code_that_broke_out_of_the_core_can_do_nothing(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The process of a case tries what an attacker would, and writes down what worked."""
    assert landlock_version() > 0
    assert has_seccomp()
    secret = tmp_path / "secret"
    secret.write_text("s")
    attempts = [
        "os.fork() or os._exit(0)",
        "subprocess.run(['/bin/true'])",
        "os.execv('/bin/true', ['true'])",
        f"open({str(secret)!r})",
        "open('/etc/passwd')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        "os.listdir('/')",
        "socket.socket()",
        "os.kill(os.getppid(), 9)",
    ]
    body = "self.seen = bytearray()\n"
    for attempt in attempts:
        body += f"        try:\n            {attempt}\n            self.seen.append(1)\n"
        body += "        except OSError: self.seen.append(2)\n"
    _stand_in(monkeypatch, core_child=CORE.replace("BODY", body + "        return 1"))
    async with open_execution(tools, 1) as execution:
        case = pool.CaseToRun(bytes(131072), 1, ())
        (reply,) = await execution.run(bytes(32768), [case])
    seen = dict(zip(attempts, reply.wram, strict=False))
    assert set(seen.values()) == {2}, seen
    assert not (tmp_path / "new").exists()


async def test_what_becomes_asar_cannot_fork_or_leave_its_folder(tmp_path: Path) -> None:
    program = f"""
import os, socket, sys
from backend.execution import sandbox
work = {str(tmp_path / "work")!r}
os.mkdir(work); os.chdir(work)
sandbox.limit_resources(sandbox.Limits(3, 512 * sandbox.MIB, 1 << 20), processes=False)
sandbox.restrict_files([], work)
sandbox.forbid_processes(programs=True)
def tried(attempt):
    try: attempt()
    except OSError as error: return type(error).__name__
    return "done"
print(tried(os.fork), tried(socket.socket), tried(lambda: open("../out", "w")), tried(lambda: open("/etc/passwd")),
      tried(lambda: open("inside", "w").write("x")))
"""
    ran = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["PermissionError"] * 4 + ["done"]
    assert sorted(os.listdir(tmp_path)) == ["work"]


async def test_nothing_is_left_behind(tools: Tools) -> None:
    async with open_execution(tools, 1) as execution:
        assert execution.folder is None, "nothing is made before it is needed"
        await judge_answer(execution, task(), RIGHT)
        children = [child.process for some in execution.idle.values() for child in some]
        assert len(children) == 2
        folder = execution.folder
        assert folder is not None
        assert list(folder.iterdir()) == []
    assert not folder.exists()
    assert all(child.returncode is not None for child in children)


async def test_no_secret_of_ours_reaches_the_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert "secret" not in str(child_environment())


async def test_children_end_and_clean_up_when_their_owner_is_killed(tools: Tools, tmp_path: Path) -> None:
    program = """
import asyncio, os, signal
from backend.execution.items import judge_answer
from backend.execution.pool import open_execution
from backend.execution.tools import find_tools
from backend.settings import models
from tests.execution.roms import RIGHT, task
async def main():
    async with open_execution(find_tools(models.Tools()), 1) as execution:
        await judge_answer(execution, task(), RIGHT)
        print(*(child.process.pid for some in execution.idle.values() for child in some), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    pids = [int(pid) for pid in ran.stdout.split()]
    assert len(pids) == 2, ran.stderr
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in pids) or list(tmp_path.iterdir()):
        assert time.monotonic() < deadline, (pids, list(tmp_path.iterdir()))
        await asyncio.sleep(0.05)
