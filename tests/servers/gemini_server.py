"""A server that speaks the Gemini API: generateContent, streamGenerateContent, models."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from tests.servers.faults import FakeApi, Fault, What, sse, words

_ENDS = {"truncation": "MAX_TOKENS", "refusal": "SAFETY", "no_end": None}
_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"} | {
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class GeminiServer(FakeApi):
    """Its address for a provider is `base_url`. A fault's `retry_after` is sent as Gemini does: as RetryInfo
    in the body, not as a header."""

    @property
    def base_url(self) -> str:
        return self.url

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/{version}/models/{call}", self._generate),
            web.get("/{version}/models", self._models),
        ]

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        model, _, verb = request.match_info["call"].partition(":")
        body = await request.json() | {"model": model}
        return await self.ask(request, body, stream=verb == "streamGenerateContent")

    async def _models(self, request: web.Request) -> web.Response:
        self.note(request, {}, is_paid=False)
        verbs = ["generateContent", "countTokens"]
        listed = [{"name": f"models/{name}", "supportedGenerationMethods": verbs} for name in self.models]
        return web.json_response({"models": listed})

    def prompt(self, body: dict[str, Any]) -> str:
        return str(body["contents"][-1]["parts"][0]["text"])

    def answer(self, body: dict[str, Any], text: str, fault: What | None) -> dict[str, Any]:
        shown = {"surrogate": "half \ud83d pair"}.get(fault or "", text)
        parts = [{"text": "Let me think.", "thought": True}, {"text": shown}]
        if fault == "no_text":
            parts = parts[:1]
        candidate: dict[str, Any] = {"index": 0}
        if fault != "refusal":
            candidate["content"] = {"role": "model", "parts": parts}
        if fault != "no_end":
            candidate["finishReason"] = _ENDS.get(fault or "", "STOP")
        return {
            "candidates": [candidate],
            "usageMetadata": self._usage(body, text),
            "modelVersion": body["model"],
        }

    def _usage(self, body: dict[str, Any], text: str) -> dict[str, int]:
        prompt_tokens = words(self.prompt(body))
        return {
            "promptTokenCount": prompt_tokens,
            "candidatesTokenCount": words(text),
            "thoughtsTokenCount": 3,
            "cachedContentTokenCount": 1,
            "totalTokenCount": prompt_tokens + words(text) + 3,
        }

    def pieces(self, body: dict[str, Any], text: str, fault: What | None) -> list[bytes]:
        def chunk(word: str) -> dict[str, Any]:
            return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": word}]}}]}

        chunks = [chunk(word + " ") for word in text.split()]
        if fault == "error_inside":
            return [sse(chunks[0]), sse(self.error(Fault("status", 503)))]
        if fault != "no_end":
            chunks[-1]["candidates"][0]["finishReason"] = _ENDS.get(fault or "", "STOP")
        return [sse(c) for c in chunks]

    def error(self, fault: Fault) -> dict[str, Any]:
        error: dict[str, Any] = {"code": fault.status, "message": fault.message}
        error["status"] = _STATUS.get(fault.status, "INTERNAL")
        if fault.retry_after:
            info = "type.googleapis.com/google.rpc.RetryInfo"
            error["details"] = [{"@type": info, "retryDelay": f"{fault.retry_after}s"}]
        return {"error": error}

    def _error(self, fault: Fault) -> web.Response:
        return web.json_response(self.error(fault), status=fault.status)
