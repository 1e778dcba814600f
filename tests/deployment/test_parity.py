"""Template parity: each fault that is planted is caught by the real llama.cpp, and the right template passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gguf import GGUFReader

from backend.deployment.gate import DeploymentRefused, Terms
from backend.deployment.go_template import NotUnderstood, render_go
from backend.deployment.ollama import deploy_ollama, said_by
from backend.deployment.parity import CONVERSATIONS, Parity, check_llama_cpp, trained_on
from backend.deployment.serving import deployments, serve_gguf
from backend.deployment.templates import server_template
from backend.providers import Message
from backend.providers.embedded import EmbeddedServer, bundled_gguf
from backend.registry.catalog import register, show_model
from backend.settings import Workspace
from tests.servers.ollama_server import OllamaServer

UNJUDGED = Terms(unevaluated="a test of parity")
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(bundled_gguf(), "small", context=512, parallel=1) as server:
        yield server


def folder_with(small_model: Path, place: Path, old: str, new: str) -> Path:
    """The model's folder, with something else in its chat template."""
    shutil.copytree(small_model, place)
    template = place / "chat_template.jinja"
    text = template.read_text()
    assert old in text
    template.write_text(text.replace(old, new))
    return place


async def checked(ws: Workspace, folder: Path, server: EmbeddedServer) -> Parity:
    await register(ws, "folder", "base", str(folder), "local")
    await register(ws, "small", "gguf", str(bundled_gguf()), "local", parent="folder")
    trained = await trained_on(ws, await show_model(ws, "small"))
    assert not isinstance(trained, str), trained
    return await check_llama_cpp(trained, server.base_url)


async def test_the_right_template_passes(ws: Workspace, small_model: Path, engine: EmbeddedServer) -> None:
    parity = await checked(ws, small_model, engine)
    assert parity.differences == ()
    assert parity.checked == len(CONVERSATIONS)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (SYSTEM, "You are a pirate", "system"),
        ("<|im_end|>' + '\n'}}", "<|im_end|>'}}", "newline"),
        ("+ '\n' + message['content']", "+ ' ' + message['content']", "newline"),
        ("message['content'] + '<|im_end|>'", "message['content'] | trim + '<|im_end|>'", "newline"),
        ("<|im_start|>assistant", "<|im_start|>model", "token"),
        ("message['content'] + '<|im_end|>'", "message['content'] + '<file_sep>'", "stop"),
    ],
)
async def test_a_planted_fault_is_caught_by_llama_cpp(
    ws: Workspace,
    small_model: Path,
    engine: EmbeddedServer,
    tmp_path: Path,
    old: str,
    new: str,
    fault: str,
) -> None:
    parity = await checked(ws, folder_with(small_model, tmp_path / "other", old, new), engine)
    assert fault in {one.fault for one in parity.differences}, parity.words


def with_bos(place: Path, bos: int) -> Path:
    """The small model's GGUF, made to put a BOS of that id before every prompt."""
    shutil.copy(bundled_gguf(), place)
    reader = GGUFReader(str(place), "r+")
    for key, value in (("add_bos_token", True), ("bos_token_id", bos)):
        field = reader.fields[f"tokenizer.ggml.{key}"]
        field.parts[field.data[0]][0] = value
    reader.data.flush()
    return place


async def test_a_bos_that_training_had_not_is_caught_and_nothing_is_published(
    ws: Workspace, small_model: Path, tmp_path: Path
) -> None:
    doubled = with_bos(tmp_path / "doubled.gguf", 0)
    await register(ws, "folder", "base", str(small_model), "local")
    await register(ws, "doubled", "gguf", str(doubled), "local", parent="folder")
    with pytest.raises(DeploymentRefused, match="another number of BOS") as refused:
        async with serve_gguf(ws, "doubled", name="coder", terms=UNJUDGED):
            pass
    assert refused.value.exit_code == 3
    assert [row.state for row in await deployments(ws)] == ["failed"]
    told = Terms(unevaluated="a test", allow_template="it was trained so by hand")
    async with serve_gguf(ws, "doubled", name="coder", terms=told) as served:
        kept = served.deployment.details["parity"]
        assert kept["reason"] == "it was trained so by hand"
        assert "another number of BOS" in kept["words"]


async def test_a_bos_that_the_template_writes_is_doubled_by_ollama_alone(
    ws: Workspace, ollama: OllamaServer, small_model: Path, tmp_path: Path
) -> None:
    """llama.cpp's chat takes the template's own BOS away where it adds one; Ollama does not."""
    file = with_bos(tmp_path / "doubled.gguf", 1)
    await register(ws, "folder", "base", str(small_model), "local")
    await register(ws, "doubled", "gguf", str(file), "local", parent="folder")
    async with serve_gguf(ws, "doubled", name="coder", terms=UNJUDGED) as served:
        assert "6 conversations agree" in served.deployment.details["parity"]["words"]
    with pytest.raises(DeploymentRefused, match="another number of BOS"):
        await deploy_ollama(ws, "gguf:doubled", "coder:1", base_url=ollama.base_url, terms=UNJUDGED)


@pytest.fixture
async def ollama() -> AsyncIterator[OllamaServer]:
    async with OllamaServer() as server:
        yield server


async def publish(ws: Workspace, server: OllamaServer, small_model: Path, system: str = "") -> str:
    await register(ws, "folder", "base", str(small_model), "local")
    await register(ws, "small", "gguf", str(bundled_gguf()), "local", parent="folder")
    made = await deploy_ollama(
        ws, "gguf:small", "coder:1", base_url=server.base_url, system=system, terms=UNJUDGED
    )
    return str(made.details["parity"]["words"])


async def test_what_ollama_would_send_is_what_was_trained_on(
    ws: Workspace, ollama: OllamaServer, small_model: Path
) -> None:
    assert "6 conversations agree" in await publish(ws, ollama, small_model)
    assert "6 conversations agree" in await publish(ws, ollama, small_model, 'Say "yes".\nOr no. ')


CHATML = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({"system": "You are a pirate."}, "another system text"),
        ({"system": ""}, "another system text"),
        ({"template": CHATML.replace("<|im_end|>\n", "<|im_end|>")}, "other white space"),
        ({"template": CHATML.replace(".Content", ".Role")}, "another token"),
        ({"template": "<|im_start|>" + CHATML}, "another number of BOS"),
        ({"template": '{{ template "x" . }}'}, "cannot be checked"),
    ],
)
async def test_what_ollama_made_otherwise_is_refused(
    ws: Workspace, ollama: OllamaServer, small_model: Path, shown: dict[str, str], words: str
) -> None:
    ollama.shown = shown
    with pytest.raises(DeploymentRefused, match=words):
        await publish(ws, ollama, small_model)
    assert "coder:1" not in ollama.created, "the name is not given"


def test_go_templates_render_as_ollama_does() -> None:
    turns = [Message("system", "S"), Message("user", "a"), Message("user", "b"), Message("assistant", "c")]
    gemma = server_template("<start_of_turn>")
    assert gemma is not None
    assert render_go(gemma.template, turns) == (
        "<start_of_turn>user\nS<end_of_turn>\n<start_of_turn>user\na\n\nb<end_of_turn>\n"
        "<start_of_turn>model\nc<end_of_turn>\n<start_of_turn>model\n"
    )
    old = "{{ if .System }}<s>{{ .System }}{{ end }}"
    old += '{{- if and .Prompt (ne .Prompt "x") }} {{ .Prompt }}{{ else }}-{{ end }}'
    assert render_go(old, turns) == "<s>S a\n\nb"
    for unknown in (
        "{{ range .Tools }}{{ end }}",
        "{{ if .System }}",
        "{{ end }}",
        "{{ .Nothing }}",
        "{{ eq }}",
    ):
        with pytest.raises(NotUnderstood):
            render_go(unknown, turns)


def test_what_show_tells_is_read() -> None:
    shown = {
        "parameters": f'{"stop":<30} "<|im_end|>"\nstop  plain\ntemperature 0.7',
        "modelfile": f"FROM x\nTEMPLATE {json.dumps('SYSTEM no')}\nSYSTEM Be brief.\nPARAMETER stop x\n",
    }
    assert said_by(shown) == ("Be brief.", ("<|im_end|>", "plain"))
    assert said_by({"modelfile": 'SYSTEM """a\n"b" """\n'})[0] == 'a\n"b" '
    assert said_by({}) == ("", ())
