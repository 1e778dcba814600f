"""From an adapter to what answers: a folder, a GGUF served by llama.cpp, a tag in Ollama."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from backend.deployment.answering import open_answering
from backend.deployment.chat import chat, open_chat, rate
from backend.deployment.folders import deploy_folder
from backend.deployment.gate import Terms
from backend.deployment.gguf import convert_to_gguf
from backend.deployment.merging import merge_adapter
from backend.deployment.ollama import deploy_ollama, versioned
from backend.deployment.rollback import rollback, serve_again
from backend.deployment.serving import deployments, find_deployment, serve_gguf, serve_until_stopped, stop
from backend.deployment.steps import DeploymentFailed, unsafe_files
from backend.deployment.templates import default_system, server_template
from backend.providers import Message, ProviderError
from backend.providers.embedded import bundled_gguf
from backend.registry.catalog import register
from backend.registry.references import ModelReferenceError
from backend.settings import Workspace
from backend.store import jobs
from backend.store.deployments import Deployment
from tests.fixtures.workspace_hosts import Loop
from tests.servers.faults import in_order, status
from tests.servers.ollama_server import OllamaServer

UNJUDGED = Terms(unevaluated="a test of serving")


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.05)


async def states(ws: Workspace) -> list[tuple[str, int, str]]:
    return [(row.name, row.version, row.state) for row in reversed(await deployments(ws))]


@pytest.fixture
async def server() -> AsyncIterator[OllamaServer]:
    async with OllamaServer() as made:
        yield made


@pytest.fixture
def bundled() -> str:
    """A real small model that is a GGUF already."""
    return f"gguf:{bundled_gguf()}"


async def test_an_adapter_on_a_host_becomes_folder_gguf_and_tag(
    ws: Workspace,
    loop_host: Loop,
    small_model: Path,
    small_adapter: Path,
    server: OllamaServer,
    tmp_path: Path,
) -> None:
    await register(ws, "tuned", "adapter", str(small_adapter), "loop", parent=f"path:{small_model}")
    target = tmp_path / "out"
    folder = await deploy_folder(ws, "tuned", target, name="as-folder", terms=UNJUDGED)
    assert (folder.state, folder.version) == ("published", 1)
    assert json.loads((target / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert (target / "model.safetensors").is_file()
    assert "model (adapter): `tuned`" in (target / "README.md").read_text()
    assert unsafe_files(target) == []
    with pytest.raises(DeploymentFailed, match="holds files that are no deployment of ours"):
        await deploy_folder(ws, "tuned", target, name="another", terms=UNJUDGED)

    async with (
        serve_gguf(ws, "tuned", name="coder", terms=UNJUDGED) as served,
        open_chat(ws, "coder", max_tokens=6) as talk,
    ):
        reply = [piece async for piece in talk.say("hello")]
        assert "".join(reply).strip()
        assert served.endpoint.startswith("http://127.0.0.1:")
        assert await ws.db.fetch_value("SELECT reply FROM exchanges") == "".join(reply)
    made = sorted((job.kind, job.host) for job in await jobs.every(ws.db))
    assert made == [("convert", "loop"), ("merge", "loop")], (
        "what was merged for the folder is not merged again"
    )

    tag = await deploy_ollama(ws, "tuned", "hafs-coder:14b", base_url=server.base_url, terms=UNJUDGED)
    assert tag.state == "published"
    assert tag.details["template"] == "chatml"
    made_from = server.created["hafs-coder:14b-v1"]
    assert made_from["parameters"]["stop"] == ["<|im_start|>", "<|im_end|>"]
    assert "named SmolLM" in made_from["system"], "the system text that the model was trained with"
    (digest,) = made_from["files"].values()
    assert server.blobs[digest][:4] == b"GGUF"
    async with chat(ws, "hafs-coder:14b", "Load A with 18") as answer:
        assert "".join([piece async for piece in answer]).strip() == "You said: Load A with 18"
    assert len(await jobs.every(ws.db)) == 2, "and what was converted is not converted again"


async def test_serving_is_told_truly(ws: Workspace, bundled: str) -> None:
    async with serve_gguf(ws, bundled, name="small", terms=UNJUDGED) as served:
        assert await states(ws) == [("small", 1, "serving")]
        async with open_answering(ws, "deployment:small") as answering:
            assert await answering.provider.models() == ["small"]
        assert served.deployment.endpoint == served.endpoint
    assert await states(ws) == [("small", 1, "stopped")]


SERVE = """
import asyncio, sys
from pathlib import Path
from backend.deployment.gate import Terms
from backend.deployment.serving import serve_until_stopped
from backend.settings import open_workspace

async def main():
    async with open_workspace(Path(sys.argv[1])) as ws:
        await serve_until_stopped(
            ws, sys.argv[2], name="small", terms=Terms(unevaluated="a test"),
            on_ready=lambda served: print("ready", flush=True),
        )

asyncio.run(main())
"""


async def test_a_killed_server_is_found_gone(ws: Workspace, bundled: str) -> None:
    argv = [sys.executable, "-c", SERVE, str(ws.home), bundled]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
    assert await states(ws) == [("small", 1, "serving")]
    async with chat(ws, "small", "Say hello.", max_tokens=8) as answer:
        assert "".join([piece async for piece in answer])
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert await states(ws) == [("small", 1, "failed")]
    assert "its process is gone" in str((await find_deployment(ws, "small")).error)


async def test_stop_ends_what_another_task_serves(ws: Workspace, bundled: str) -> None:
    ready = asyncio.Event()
    serving = asyncio.create_task(
        serve_until_stopped(ws, bundled, name="small", terms=UNJUDGED, on_ready=lambda served: ready.set())
    )
    await ready.wait()
    assert (await stop(ws, "small")).state == "stopped"
    ended = await serving
    assert ended.state == "stopped"
    assert ended.endpoint is not None
    async with open_answering(ws, "deployment:small") as answering:
        assert answering.model == "small", "a stopped one is served again for as long as it is asked"


async def test_a_newer_version_takes_the_place_and_rollback_brings_it_back(
    ws: Workspace, bundled: str
) -> None:
    ready = asyncio.Event()
    older = asyncio.create_task(
        serve_until_stopped(ws, bundled, name="small", terms=UNJUDGED, on_ready=lambda served: ready.set())
    )
    await ready.wait()
    async with serve_gguf(ws, bundled, name="small", terms=UNJUDGED):
        assert (await older).state == "replaced"
        assert await states(ws) == [("small", 1, "replaced"), ("small", 2, "serving")]
        back = await rollback(ws, "small")
    assert (back.version, back.state, back.details["version_of"]) == (3, "stopped", 1)
    assert [row[2] for row in await states(ws)] == ["replaced", "replaced", "stopped"]
    assert (await find_deployment(ws, "small")).version == 3
    with pytest.raises(DeploymentFailed, match="no version before 1"):
        await rollback(ws, "small")


async def test_what_cannot_be_served_leaves_the_running_one(
    ws: Workspace, bundled: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    async with serve_gguf(ws, bundled, name="small", terms=UNJUDGED):
        with pytest.raises(DeploymentFailed, match="cannot be served"):
            async with serve_gguf(ws, f"gguf:{broken}", name="small", terms=UNJUDGED):
                pass
        assert await states(ws) == [("small", 1, "serving"), ("small", 2, "failed")]
        assert (await find_deployment(ws, "small")).version == 1


def _telling(ready: asyncio.Event) -> Callable[[object], None]:
    return lambda served: ready.set()


async def test_a_rollback_is_served_by_the_process_that_serves(ws: Workspace, bundled: str) -> None:
    async with asyncio.TaskGroup() as group:
        for version in (1, 2):
            ready = asyncio.Event()
            task = group.create_task(
                serve_until_stopped(ws, bundled, name="small", terms=UNJUDGED, on_ready=_telling(ready))
            )
            await ready.wait()
            assert (await find_deployment(ws, "small")).version == version
        back = await rollback(ws, "small")
        assert (back.version, back.state, back.details["version_of"]) == (3, "serving", 1)
        assert await states(ws) == [
            ("small", 1, "replaced"),
            ("small", 2, "replaced"),
            ("small", 3, "serving"),
        ]
        async with chat(ws, "small", "Say hello.", max_tokens=8) as answer:
            assert "".join([piece async for piece in answer])
        await stop(ws, "small")
        assert (await task).version == 3


async def test_a_rollback_that_cannot_be_served_leaves_the_newer(
    ws: Workspace, bundled: str, tmp_path: Path
) -> None:
    from shutil import copy

    from backend.providers.embedded import bundled_gguf

    older = tmp_path / "older.gguf"
    copy(bundled_gguf(), older)
    async with serve_gguf(ws, f"gguf:{older}", name="small", terms=UNJUDGED):
        pass
    older.write_bytes(b"GGUF" + bytes(100))
    async with asyncio.TaskGroup() as group:
        ready = asyncio.Event()
        group.create_task(
            serve_until_stopped(
                ws, bundled, name="small", terms=UNJUDGED, on_ready=lambda served: ready.set()
            )
        )
        await ready.wait()
        with pytest.raises(DeploymentFailed, match="stays at version 2"):
            await rollback(ws, "small")
        assert await states(ws) == [("small", 1, "stopped"), ("small", 2, "serving"), ("small", 3, "failed")]
        await stop(ws, "small")


async def test_a_rollback_whose_server_is_gone_is_served_again(ws: Workspace, bundled: str) -> None:
    for _ in range(2):
        async with serve_gguf(ws, bundled, name="small", terms=UNJUDGED):
            pass
    back = await rollback(ws, "small")
    assert back.state == "stopped"
    async with asyncio.TaskGroup() as group:
        ready = asyncio.Event()
        task = group.create_task(serve_again(ws, back, on_ready=lambda served: ready.set()))
        await ready.wait()
        assert (await find_deployment(ws, "small")).state == "serving"
        assert (await find_deployment(ws, "small")).details["version_of"] == 1
        await stop(ws, "small")
        assert (await task).state == "stopped"


async def published_twice(ws: Workspace, server: OllamaServer, model: str) -> Deployment:
    await deploy_ollama(ws, model, "coder:1", base_url=server.base_url, terms=UNJUDGED)
    return await deploy_ollama(
        ws, model, "coder:1", base_url=server.base_url, system="Be brief.", terms=UNJUDGED
    )


async def test_ollama_versions_and_rollback(ws: Workspace, server: OllamaServer, tmp_path: Path) -> None:
    gguf = tmp_path / "small.gguf"
    gguf.write_bytes(b"GGUF and the rest")
    told: list[str] = []
    newest = await published_twice(ws, server, f"gguf:{gguf}")
    assert newest.details["version_tag"] == "coder:1-v2"
    assert server.created["coder:1"]["from"] == "coder:1-v2"
    assert server.created["coder:1-v2"]["system"] == "Be brief."
    back = await rollback(ws, "coder:1")
    assert server.created["coder:1"]["from"] == "coder:1-v1"
    assert (back.version, back.details["version_of"]) == (3, 1)
    assert [row[2] for row in await states(ws)] == ["replaced", "replaced", "published"]

    server.script = in_order(*[None] * len(server.paid), status(500, message="out of memory"))
    with pytest.raises(DeploymentFailed, match="does not answer a first question"):
        await deploy_ollama(
            ws, f"gguf:{gguf}", "coder:1", base_url=server.base_url, terms=UNJUDGED,
            on_progress=lambda what, done, total: told.append(what),
        )  # fmt: skip
    assert "success" in told
    assert server.created["coder:1"]["from"] == "coder:1-v1", "the name stays with what answered before"
    assert (await find_deployment(ws, "coder:1")).version == 3


async def test_a_server_that_is_away_is_named(ws: Workspace, tmp_path: Path) -> None:
    gguf = tmp_path / "small.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(DeploymentFailed, match="could not be made in Ollama"):
        await deploy_ollama(ws, f"gguf:{gguf}", "coder", base_url="http://127.0.0.1:9", terms=UNJUDGED)
    assert await states(ws) == [("coder", 1, "failed")]


async def test_folder_versions_and_rollback(ws: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "out"
    for number in (1, 2):
        model = tmp_path / f"model{number}"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"version": number}))
        await register(ws, f"model{number}", "merged", str(model), "local")
        await deploy_folder(ws, f"model{number}", target, name="folder", terms=UNJUDGED)

    def current() -> int:
        return int(json.loads((target / "config.json").read_text())["version"])

    assert current() == 2
    await rollback(ws, "folder")
    assert current() == 1
    await deploy_folder(ws, "model2", target, name="folder", terms=UNJUDGED)
    assert current() == 2
    await rollback(ws, "folder")
    assert current() == 1, "a rollback after a rollback finds its folder"

    unsafe = tmp_path / "unsafe"
    unsafe.mkdir()
    (unsafe / "config.json").write_text("{}")
    (unsafe / "pytorch_model.bin").write_bytes(b"pickle")
    await register(ws, "unsafe", "merged", str(unsafe), "local")
    with pytest.raises(DeploymentFailed, match=r"pytorch_model\.bin"):
        await deploy_folder(ws, "unsafe", target, name="folder", terms=UNJUDGED)
    assert current() == 1


async def test_a_conversation_keeps_its_turns_and_takes_a_rating(ws: Workspace, server: OllamaServer) -> None:
    server.created["coder:1"] = {}
    async with open_chat(ws, "ollama:coder:1") as first:
        assert first.history == []
    async with ws.db.transaction() as transaction:
        from backend.store import deployments as rows

        number = await rows.insert(
            transaction, name="coder", kind="ollama", model="x", host="local", details='{"tag": "coder:1"}'
        )
        await rows.update(transaction, number, "published", endpoint=server.base_url)
    async with open_chat(ws, "coder", system="Be brief.") as talk:
        for message in ("one", "two"):
            assert "".join([piece async for piece in talk.say(message)]).strip() == f"You said: {message}"
        assert [turn.role for turn in talk.history] == ["system", "user", "assistant", "user", "assistant"]
        assert talk.history[1] == Message("user", "one")
        assert talk.exchange_id is not None
        await rate(ws, talk.exchange_id, 1)
        async with aclosing(talk.say("three")) as left:
            await anext(left)
        assert len(talk.history) == 5, "a reply that was left is not remembered"
        server.script = in_order(*[None] * len(server.paid), status(500))
        with pytest.raises(ProviderError):
            [piece async for piece in talk.say("four")]
    assert [len(request.body["messages"]) for request in server.paid] == [2, 4, 6, 6]
    exchanges = await ws.db.fetch_all("SELECT message, rating, deployment_id FROM exchanges ORDER BY id")
    assert [tuple(row) for row in exchanges] == [("one", None, number), ("two", 1, number)]
    ended = await ws.db.fetch_all("SELECT state FROM requests WHERE purpose = 'chat' ORDER BY id")
    assert [row[0] for row in ended] == ["answered", "answered", "unanswered", "failed"]


async def test_what_has_no_place_in_a_step_is_refused(ws: Workspace, small_model: Path) -> None:
    with pytest.raises(DeploymentFailed, match="it needs no merging"):
        await merge_adapter(ws, f"path:{small_model}")
    with pytest.raises(DeploymentFailed, match="a name on a hub"):
        await convert_to_gguf(ws, "hub:Qwen/Qwen2.5")
    with pytest.raises(ModelReferenceError, match="does not know what it was made from"):
        await convert_to_gguf(ws, "ollama:coder")
    with pytest.raises(ModelReferenceError, match="no server serves"):
        async with open_answering(ws, f"path:{small_model}"):
            pass
    with pytest.raises(DeploymentFailed, match="no deployment named x; there are: none yet"):
        await rollback(ws, "x")


def test_templates_are_told_apart() -> None:
    chatml = (
        "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
        "{% endif %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    )
    family = server_template(chatml)
    assert family is not None
    assert family.family == "chatml"
    assert default_system(chatml, family) == "Be kind."
    assert default_system("{{ raise_exception('no') }}", family) == ""
    assert default_system("{{ ''.__class__.__mro__ }}<|im_start|>", family) == "", "it runs in a sandbox"
    assert server_template("### Instruction: {{ x }}") is None
    marks = ("<|start_header_id|>", "<start_of_turn>", "[INST]")
    assert [getattr(server_template(mark), "family", None) for mark in marks] == [
        "llama3",
        "gemma",
        "mistral",
    ]


def test_each_version_has_a_tag_of_its_own() -> None:
    assert versioned("hafs-coder:14b", 3) == "hafs-coder:14b-v3"
    assert versioned("hafs-coder", 3) == "hafs-coder:v3"
