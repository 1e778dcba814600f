"""Runs every benchmark, or those named, and prints a line for each figure: `python -m tests.benchmarks [NAME ...]`.

A ratio compares two things in the same run, because machines differ and are noisy. "ideal" says what the
ratio would be if our part cost nothing.
"""

from __future__ import annotations

import asyncio
import sys

from tests.benchmarks import constancy, decisions, engine, events, execution, review, startup, transfer

BENCHMARKS = {
    "engine": engine.run,
    "constancy": constancy.run,
    "decisions": decisions.run,
    "events": events.run,
    "execution": execution.run,
    "review": review.run,
    "startup": startup.run,
    "transfer": transfer.run,
}


async def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    for name in names or list(BENCHMARKS):
        print(f"== {name}", flush=True)
        async for line in BENCHMARKS[name]():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
