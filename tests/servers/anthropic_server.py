"""A server that speaks Anthropic's Messages API."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tests.servers.faults import FakeApi, Fault, What, sse, words

_ENDS = {"truncation": "max_tokens", "refusal": "refusal", "no_end": None}
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"} | {
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class AnthropicServer(FakeApi):
    """Its address for a provider is `base_url`."""

    @property
    def base_url(self) -> str:
        return self.url

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v1/messages", self._messages), web.get("/v1/models", self._models)]

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self.ask(request, body, stream=bool(body.get("stream")))

    async def _models(self, request: web.Request) -> web.Response:
        self.note(request, {}, is_paid=False)
        data = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
            for name in self.models
        ]
        first, last = (self.models[0], self.models[-1]) if self.models else (None, None)
        return web.json_response({"data": data, "has_more": False, "first_id": first, "last_id": last})

    def prompt(self, body: dict[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        return content if isinstance(content, str) else str(content[0]["text"])

    def answer(self, body: dict[str, Any], text: str, fault: What | None) -> dict[str, Any]:
        shown = {"surrogate": "half \ud83d pair"}.get(fault or "", text)
        content = [] if fault in ("refusal", "no_text") else [{"type": "text", "text": shown}]
        return self._message(body, content, _ENDS.get(fault or "", "end_turn"), words(text))

    def _message(
        self, body: dict[str, Any], content: list[dict[str, str]], end: str | None, tokens: int
    ) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": end,
            "stop_sequence": None,
            "usage": {
                "input_tokens": words(self.prompt(body)),
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 2,
                "output_tokens": tokens,
            },
        }

    def pieces(self, body: dict[str, Any], text: str, fault: What | None) -> list[bytes]:
        def event(kind: str, **data: Any) -> bytes:
            return sse({"type": kind, **data}, kind)

        out = [
            event("message_start", message=self._message(body, [], None, 0)),
            event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ]
        for word in text.split():
            delta = {"type": "text_delta", "text": word + " "}
            out.append(event("content_block_delta", index=0, delta=delta))
        if fault == "error_inside":
            return [*out[:3], sse(self.error(Fault("status", 529)), "error")]
        out.append(event("content_block_stop", index=0))
        if fault == "no_end":
            return out
        end = {"stop_reason": _ENDS.get(fault or "", "end_turn"), "stop_sequence": None}
        out.append(event("message_delta", delta=end, usage={"output_tokens": words(text)}))
        return [*out, event("message_stop")]

    def error(self, fault: Fault) -> dict[str, Any]:
        kind = _TYPES.get(fault.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": fault.message}, "request_id": "req_1"}
