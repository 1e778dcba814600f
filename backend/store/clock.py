"""The time that rows carry: Unix seconds."""

import time


def now() -> float:
    return time.time()
