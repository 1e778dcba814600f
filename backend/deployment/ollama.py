"""Option A: a model in an Ollama server, made through its API: blobs uploaded, `create` called, a tag for each
version, and the name given to a version only after it has answered.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from backend.deployment.answering import OLLAMA_PORT
from backend.deployment.folders import published
from backend.deployment.gate import STANDARD, Terms, require_parity, require_verdict
from backend.deployment.gguf import convert_to_gguf
from backend.deployment.parity import Parity, check_ollama, trained_on
from backend.deployment.steps import DeploymentFailed, smoke
from backend.deployment.templates import ServerTemplate, chat_template_of, default_system, server_template
from backend.hosts.catalog import open_named_host
from backend.hosts.mirror import OnEvent
from backend.hosts.placing import fetch_file
from backend.providers import ProviderError
from backend.providers.embedded import EmbeddedServer
from backend.registry.catalog import register
from backend.registry.references import ModelReferenceError, weights_of
from backend.settings import Workspace
from backend.store import deployments as rows
from backend.store.deployments import Deployment
from backend.store.models import Model

# Ollama quotes a text once where it has a newline or space at an end, three times where it has quotes too.
_SYSTEM = re.compile(r'''^SYSTEM (?:"""(.*?)"""|"([^"]*)"|([^"\n][^\n]*))$''', re.MULTILINE | re.DOTALL)

OnCreate = Callable[[str, int, int], None]
"""Called with (what the server says, done, in all) while it makes a model."""


async def deploy_ollama(
    ws: Workspace,
    model: str,
    tag: str,
    *,
    host: str = "local",
    base_url: str | None = None,
    name: str | None = None,
    system: str = "",
    parameters: Mapping[str, Any] | None = None,
    outtype: str = "f16",
    terms: Terms = STANDARD,
    on_progress: OnCreate | None = None,
    on_event: OnEvent | None = None,
) -> Deployment:
    """Make a model in the Ollama of a host (or at `base_url`) and give it the name `tag`, which is the name of
    the deployment too unless one is given. Each version keeps a tag of its own (`<tag>-v<version>`) for
    `rollback`.

    Template, stop words and system text are those that the model was trained with, from its folder; `system`
    and `parameters` lie over them. What the server then says that it would send is compared with what the model
    was trained on before the name is given. Raises DeploymentRefused by the gate or that comparison,
    DeploymentFailed, ModelReferenceError, TrainingRefused, HostError.
    """
    verdict = await require_verdict(ws, model, terms)
    gguf = await convert_to_gguf(ws, model, outtype=outtype, on_event=on_event)
    file = Path(gguf.location) if gguf.host == "local" else await fetch_file(ws, gguf.host, gguf.location)
    template, trained_system = await trained_template(ws, gguf)
    options: dict[str, Any] = {"stop": list(template.stop)} if template else {}
    options |= dict(parameters or {})
    name = name or tag
    older = await rows.current(ws.db, name)
    async with ws.db.transaction() as transaction:
        number = await rows.insert(
            transaction, name=name, kind="ollama", model=gguf.name, host=host, details="{}"
        )
        row = await rows.by_id(transaction, number)
    version_tag = versioned(tag, row.version if row else number)
    details = {
        "tag": tag,
        "version_tag": version_tag,
        "template": template.family if template else "the GGUF's own",
        "system": system or trained_system,
        "parameters": options,
        "gate": verdict,
    }
    try:
        async with ollama_at(ws, host, base_url) as server:
            digest = await server.upload_blob(file)
            steps = server.create_model(
                version_tag,
                files={file.name: digest},
                template=template.template if template else None,
                system=system or trained_system or None,
                parameters=options or None,
            )
            async for step in steps:
                if on_progress is not None:
                    on_progress(step.status, step.completed, step.total)
            parity = await _parity(ws, server, version_tag, gguf, file, system)
            details["parity"] = require_parity(parity, terms)
            await smoke(server, version_tag)
            await point(server, tag, version_tag)
    except BaseException as error:
        async with ws.db.transaction() as transaction:
            await rows.update(
                transaction,
                number,
                "failed",
                error=str(error) or type(error).__name__,
                details=json.dumps(details),
            )
        if isinstance(error, ProviderError):
            raise DeploymentFailed(f"{tag} could not be made in Ollama: {error}") from error
        raise
    async with ws.db.transaction() as transaction:
        await rows.update(
            transaction,
            number,
            "starting",
            endpoint=base_url,
            details=json.dumps({**details, "digest": digest}),
        )
    await register(ws, tag, "ollama", tag, host, parent=gguf.name, details={"digest": digest})
    return await published(ws, number, older)


async def _parity(
    ws: Workspace, server: Any, version_tag: str, gguf: Model, file: Path, asked_system: str
) -> Parity:
    """What the server says that it would send, compared; its GGUF is loaded by llama.cpp here to tokenise."""
    trained = await trained_on(ws, gguf)
    if isinstance(trained, str):
        return Parity(0, notes=(trained,))
    shown = await server.show(version_tag)
    system, stops = said_by(shown)
    async with EmbeddedServer(file, gguf.name, context=512, parallel=1) as engine:
        return await check_ollama(
            trained,
            str(shown.get("template") or ""),
            system,
            stops,
            asked_system=asked_system,
            base_url=engine.base_url,
        )


def said_by(shown: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The system text and the stop words of what `/api/show` tells of a model. Its parameters are lines of a
    name and a value, in quotes where it is text; the system text stands in its Modelfile only (Ollama's
    Python library drops the field)."""
    stops = []
    for line in str(shown.get("parameters") or "").splitlines():
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if key == "stop":
            stops.append(str(json.loads(value)) if value.startswith('"') else value)
    found = _SYSTEM.findall(str(shown.get("modelfile") or ""))
    return next((text for text in found[-1] if text), "") if found else "", tuple(stops)


async def point(server: Any, tag: str, version_tag: str) -> None:
    """Give the name to a version: a model made from it, of the same blobs. Raises ProviderError."""
    async for _ in server.create_model(tag, from_=version_tag):
        pass


def versioned(tag: str, version: int) -> str:
    """The tag of one version: `hafs-coder:14b-v3`, and `hafs-coder:v3` for a name without a tag."""
    name, _, mark = tag.partition(":")
    return f"{name}:{mark}-v{version}" if mark else f"{name}:v{version}"


@asynccontextmanager
async def ollama_at(ws: Workspace, host: str, base_url: str | None) -> AsyncIterator[Any]:
    """The Ollama at an address, of this machine's settings, or of a host through a forwarded port.

    Gives a `providers.ollama_client.Ollama`, which is imported when it is needed: its SDK is slow to load.
    """
    from backend.providers.ollama_client import Ollama

    settings = ws.settings.provider("ollama")
    if base_url is None and host not in ("", "local"):
        async with open_named_host(ws, host) as remote:
            port = await remote.forward(OLLAMA_PORT)
            async with ollama_at(ws, "local", f"http://127.0.0.1:{port}") as server:
                yield server
        return
    server = Ollama(base_url or settings.base_url or "", settings.timeout_s)
    try:
        yield server
    finally:
        await server.aclose()


async def trained_template(ws: Workspace, gguf: Model) -> tuple[ServerTemplate | None, str]:
    """The template of the folder that a GGUF was made from and its default system text; (None, "") where the
    registry knows no folder, or the template is of no known family."""
    try:
        source = await weights_of(ws, gguf.parent or f"gguf:{gguf.location}")
    except ModelReferenceError:
        return None, ""
    if source.kind == "hub":
        return None, ""
    async with open_named_host(ws, source.host or "local") as host:
        chat_template = await chat_template_of(host, source.location)
    family = server_template(chat_template)
    return family, default_system(chat_template, family) if family else ""
