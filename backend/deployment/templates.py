"""From a model's Hugging Face chat template to what Ollama needs: its Go template and its stop words.

The families are told apart by the marks in the template itself, as llama.cpp and Ollama do. A template that
is none of them is left to Ollama, which reads the one inside the GGUF.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from remote import Host, HostError

_MARK = "HAFS-USER-TURN"


@dataclass(frozen=True, slots=True)
class ServerTemplate:
    """`template` in Ollama's Go syntax, and the words at which an answer ends. `system_turn` finds the text of
    a system turn in a rendered prompt."""

    family: str
    template: str
    stop: tuple[str, ...]
    system_turn: str


_CHATML = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
_LLAMA3 = """{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>

"""
_GEMMA = """{{- range .Messages }}<start_of_turn>{{ if eq .Role "assistant" }}model{{ else }}user{{ end }}
{{ .Content }}<end_of_turn>
{{ end }}<start_of_turn>model
"""
_MISTRAL = (
    '{{- range .Messages }}{{ if eq .Role "assistant" }} {{ .Content }}</s>'
    "{{ else }}[INST] {{ .Content }} [/INST]{{ end }}{{ end }}"
)

_FAMILIES: tuple[tuple[str, ServerTemplate], ...] = (
    (
        "<|im_start|>",
        ServerTemplate(
            "chatml", _CHATML, ("<|im_start|>", "<|im_end|>"), r"<\|im_start\|>system\n(.*?)<\|im_end\|>"
        ),
    ),
    (
        "<|start_header_id|>",
        ServerTemplate(
            "llama3",
            _LLAMA3,
            ("<|start_header_id|>", "<|eot_id|>"),
            r"system<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>",
        ),
    ),
    ("<start_of_turn>", ServerTemplate("gemma", _GEMMA, ("<start_of_turn>", "<end_of_turn>"), r"(?!)")),
    ("[INST]", ServerTemplate("mistral", _MISTRAL, ("[INST]", "[/INST]"), r"(?!)")),
)


def server_template(chat_template: str) -> ServerTemplate | None:
    """The family of a Jinja chat template, or None where it is none that is known here."""
    return next((known for mark, known in _FAMILIES if mark in chat_template), None)


def default_system(chat_template: str, family: ServerTemplate) -> str:
    """The system text that a chat template gives where the caller gives none; "" where it gives none, or
    cannot be rendered. Trained with it, a model must be served with it. The template runs in a sandbox."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        prompt = environment.from_string(chat_template).render(
            messages=[{"role": "user", "content": _MARK}],
            add_generation_prompt=True,
            bos_token="",
            eos_token="",
        )
    except TemplateError:
        return ""
    found = re.search(family.system_turn, prompt.partition(_MARK)[0], re.DOTALL)
    return found[1].strip() if found else ""


async def chat_template_of(host: Host, folder: str) -> str:
    """The chat template of a model's folder on a host: its own file, else that of tokenizer_config.json; ""
    where it has none. Raises HostError for a link that breaks."""
    try:
        return (await host.read(f"{folder}/chat_template.jinja")).decode("utf-8", "replace")
    except HostError:
        config = json.loads(await host.read(f"{folder}/tokenizer_config.json"))
    found = config.get("chat_template") if isinstance(config, dict) else None
    return found if isinstance(found, str) else ""
