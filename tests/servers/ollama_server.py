"""A server that speaks Ollama's API: chat, and the models and blobs of a deployment."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.servers.faults import FakeApi, Fault, What, words

_ENDS = {"truncation": "length"}


def line(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"


@dataclass
class OllamaServer(FakeApi):
    """Its address for a provider is `base_url`. `created` holds the request that made each model, `blobs` the
    uploaded files by digest; a blob whose bytes do not have its digest is refused, as Ollama does. `shown` lies
    over what `/api/show` tells, for a server that made something else than it was asked for."""

    shown: dict[str, str] = field(default_factory=dict)
    created: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    stream_type = "application/x-ndjson"

    @property
    def base_url(self) -> str:
        return self.url

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/chat", self._chat),
            web.get("/api/tags", self._tags),
            web.get("/api/ps", self._tags),
            web.post("/api/show", self._show),
            web.post("/api/create", self._create),
            web.post("/api/pull", self._pull),
            web.delete("/api/delete", self._delete),
            web.head("/api/blobs/{digest}", self._has_blob),
            web.post("/api/blobs/{digest}", self._take_blob),
        ]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not self._known(body["model"]):
            self.note(request, body, is_paid=True)
            return _missing(body["model"])
        return await self.ask(request, body, stream=bool(body.get("stream", True)))

    async def _tags(self, request: web.Request) -> web.Response:
        self.note(request, {}, is_paid=False)
        return web.json_response({"models": [self._listed(name) for name in [*self.models, *self.created]]})

    def _listed(self, name: str) -> dict[str, Any]:
        sizes = [len(self.blobs[d]) for d in (self.created.get(name) or {}).get("files", {}).values()]
        digest = hashlib.sha256(name.encode()).hexdigest()
        return {"name": name, "model": name, "digest": digest, "size": sum(sizes)}

    async def _show(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.note(request, body, is_paid=False)
        if not self._known(body["model"]):
            return _missing(body["model"])
        made = self.created.get(_tagged(body["model"]), {})
        parameters = "\n".join(
            f"{name:<30} {json.dumps(one)}"
            for name, value in made.get("parameters", {}).items()
            for one in (value if isinstance(value, list) else [value])
        )
        told = {
            "template": made.get("template", ""),
            "system": made.get("system", ""),
            "parameters": parameters,
        }
        told |= self.shown
        modelfile = f'FROM {body["model"]}\nTEMPLATE """{told["template"]}"""\n'
        if told["system"]:
            modelfile += f"SYSTEM {_quoted(told['system'])}\n"
        return web.json_response({**told, "modelfile": modelfile, "model_info": {}, "details": {}})

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.note(request, body, is_paid=False)
        missing = [digest for digest in body.get("files", {}).values() if digest not in self.blobs]
        if body.get("adapters"):
            return web.json_response({"error": "adapters are not supported"}, status=400)
        if missing:
            return web.json_response({"error": f"blob {missing[0]} not found"}, status=400)
        response = web.StreamResponse(headers={"Content-Type": self.stream_type})
        await response.prepare(request)
        for status in ("parsing GGUF", "using existing layer", "writing manifest", "success"):
            await response.write(line({"status": status}))
        self.created[_tagged(body["model"])] = body
        return response

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        """From a registry that has every name but those with "missing" in them; each is of 3000 bytes."""
        body = await request.json()
        self.note(request, body, is_paid=False)
        name = _tagged(body["model"])
        response = web.StreamResponse(headers={"Content-Type": self.stream_type})
        await response.prepare(request)
        await response.write(line({"status": "pulling manifest"}))
        if "missing" in name:
            await response.write(line({"error": "pull model manifest: file does not exist"}))
            return response
        content = name.encode().ljust(3000, b".")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for done in (0, 1000, 2000, 3000):
            told = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": 3000, "completed": done}
            await response.write(line(told))
        self.blobs[digest] = content
        self.created[name] = {"model": name, "files": {"model.gguf": digest}}
        for status in ("verifying sha256 digest", "writing manifest", "success"):
            await response.write(line({"status": status}))
        return response

    async def _delete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.note(request, body, is_paid=False)
        if self.created.pop(_tagged(body["model"]), None) is None:
            return _missing(body["model"])
        return web.Response()

    async def _has_blob(self, request: web.Request) -> web.Response:
        self.note(request, {}, is_paid=False)
        return web.Response(status=200 if request.match_info["digest"] in self.blobs else 404)

    async def _take_blob(self, request: web.Request) -> web.Response:
        self.note(request, {}, is_paid=False)
        content = await request.read()
        digest = request.match_info["digest"]
        if digest != f"sha256:{hashlib.sha256(content).hexdigest()}":
            return web.json_response({"error": "digest mismatch, file must be downloaded again"}, status=400)
        self.blobs[digest] = content
        return web.Response(status=201)

    def _known(self, name: str) -> bool:
        return name in self.models or _tagged(name) in self.created

    def prompt(self, body: dict[str, Any]) -> str:
        return str(body["messages"][-1]["content"])

    def answer(self, body: dict[str, Any], text: str, fault: What | None) -> dict[str, Any]:
        shown = {"refusal": "", "no_text": "", "surrogate": "half \ud83d pair"}.get(fault or "", text)
        data: dict[str, Any] = {
            "model": body["model"],
            "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": shown},
            "done": fault != "no_end",
        }
        if fault != "no_end":
            counts = {"prompt_eval_count": words(self.prompt(body)), "eval_count": words(text)}
            data |= {"done_reason": _ENDS.get(fault or "", "stop"), **counts}
        return data

    def pieces(self, body: dict[str, Any], text: str, fault: What | None) -> list[bytes]:
        whole = self.answer(body, text, fault)
        parts = [
            line(
                {
                    "model": body["model"],
                    "created_at": "2026-01-01T00:00:00Z",
                    "message": {"role": "assistant", "content": word + " "},
                    "done": False,
                }
            )
            for word in text.split()
        ]
        if fault == "error_inside":
            return [parts[0], line({"error": "llama runner process has terminated"})]
        return [*parts, line(whole | {"message": {"role": "assistant", "content": ""}})]

    def error(self, fault: Fault) -> dict[str, Any]:
        return {"error": fault.message}


def _quoted(text: str) -> str:
    if "\n" not in text and text == text.strip():
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _missing(name: str) -> web.Response:
    return web.json_response({"error": f"model '{name}' not found"}, status=404)
