"""A stand-in for the `vllm` program: it records how it was started, and speaks its OpenAI wire format.

vLLM's own build for a CPU takes 3.5 GB, so the tests do not start it. Like vLLM it wants `Authorization:
Bearer` where VLLM_API_KEY is set, serves the names of --served-model-name and --lora-modules, and ends where
an adapter's rank is above --max-lora-rank.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from aiohttp import web

PROGRAM = f"#!{sys.executable}\n" + Path(__file__).read_text() if __name__ != "__main__" else ""


def install(folder: Path) -> Path:
    """The program in a folder; it writes `started.json` beside itself."""
    program = folder / "vllm"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return program


def option(argv: list[str], name: str, default: str = "") -> str:
    return argv[argv.index(name) + 1] if name in argv else default


async def main(argv: list[str]) -> None:
    key = os.environ.get("VLLM_API_KEY", "")
    record = {"argv": argv, "has_key": bool(key), "key_in_argv": any(key in one for one in argv)}
    Path(sys.argv[0]).with_name("started.json").write_text(json.dumps(record))
    names = [option(argv, "--served-model-name", argv[1])]
    module = option(argv, "--lora-modules")
    if module:
        name, _, folder = module.partition("=")
        names.append(name)
        rank = json.loads((Path(folder) / "adapter_config.json").read_text())["r"]
        if rank > int(option(argv, "--max-lora-rank", "16")):
            raise SystemExit(f"ValueError: LoRA rank {rank} is greater than max_lora_rank")

    @web.middleware
    async def authorised(request: web.Request, handler: object) -> web.StreamResponse:
        if key and request.headers.get("Authorization") != f"Bearer {key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)  # type: ignore[operator,no-any-return]

    async def models(request: web.Request) -> web.Response:
        return web.json_response(
            {"object": "list", "data": [{"id": one, "object": "model"} for one in names]}
        )

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        text = f"You said: {body['messages'][-1]['content']}"
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
            return web.json_response({"id": "1", "model": body["model"], "choices": [choice], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece, end in ((text, None), ("", "stop")):
            part = {"index": 0, "delta": {"content": piece}, "finish_reason": end}
            await response.write(
                b"data: " + json.dumps({"model": body["model"], "choices": [part]}).encode() + b"\n\n"
            )
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application(middlewares=[authorised])
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, option(argv, "--host"), int(option(argv, "--port"))).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
