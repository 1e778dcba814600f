"""A server that speaks OpenAI's chat completions, as vLLM, llama.cpp and LM Studio do."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tests.servers.faults import FakeApi, Fault, What, sse, words

_ENDS = {"truncation": "length", "refusal": "content_filter", "no_end": None}


class OpenAIServer(FakeApi):
    """Its address for a provider is `base_url`."""

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/chat/completions", self._chat), web.get("/v1/models", self._models)]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self.ask(request, body, stream=bool(body.get("stream")))

    async def _models(self, request: web.Request) -> web.Response:
        self.note(request, {}, is_paid=False)
        data = [{"id": name, "object": "model"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    def prompt(self, body: dict[str, Any]) -> str:
        return str(body["messages"][-1]["content"])

    def answer(self, body: dict[str, Any], text: str, fault: What | None) -> dict[str, Any]:
        content: str | None = {"refusal": "", "no_text": "", "surrogate": "half \ud83d pair"}.get(
            fault or "", text
        )
        message = {"role": "assistant", "content": content}
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "finish_reason": _ENDS.get(fault or "", "stop"),
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": w, "logprob": -0.5} for w in text.split()]}
        prompt_tokens = sum(words(m["content"]) for m in body["messages"])
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [choice],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": words(text),
                "total_tokens": prompt_tokens + words(text),
                "prompt_tokens_details": {"cached_tokens": 1},
            },
        }

    def pieces(self, body: dict[str, Any], text: str, fault: What | None) -> list[bytes]:
        def chunk(delta: dict[str, Any], end: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": end}
            return sse({"object": "chat.completion.chunk", "model": body["model"], "choices": [choice]})

        out = [chunk({"role": "assistant", "content": ""})]
        out += [chunk({"content": word + " "}) for word in text.split()]
        if fault == "error_inside":
            return [*out[:2], sse({"error": {"message": "out of memory", "type": "server_error"}})]
        if fault == "no_end":
            return out
        return [*out, chunk({}, _ENDS.get(fault or "", "stop")), b"data: [DONE]\n\n"]

    def error(self, fault: Fault) -> dict[str, Any]:
        return {"error": {"message": fault.message, "type": "server_error", "code": str(fault.status)}}
