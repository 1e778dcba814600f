"""llama.cpp's HTTP server as a process of its own, started by `embedded.EmbeddedServer`.

It is not run inside the app because loading a model holds the interpreter's lock (0.3-0.7 s for 135M
parameters, more for larger ones), its log goes to the process's stderr, which is the app's screen, and a
failed assertion in it aborts the process. It imports nothing of ours, prints one line of JSON with
its address on stdout, and lives until its stdin is closed: its owner's death ends it too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys


def main() -> None:
    """Serves one GGUF on a free loopback port until stdin ends."""
    options = _options()
    owner = os.dup(1)
    os.dup2(2, 1)  # what llama.cpp prints goes to the log: the owner's pipe is read no further
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.gguf
    params.model_alias = {options.alias}
    params.n_ctx = options.context * options.parallel
    params.n_parallel = options.parallel
    params.n_gpu_layers = options.gpu_layers
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # builds without OpenMP: sleep, do not spin
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.verbosity = 1
    params.ui = False
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(str(error))
    os.write(owner, json.dumps({"url": server.listening_address}).encode() + b"\n")
    sys.stdin.buffer.read()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="embedded_server")
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--context", type=int, required=True, help="tokens of each slot")
    parser.add_argument("--parallel", type=int, required=True, help="slots")
    parser.add_argument("--gpu-layers", type=int, default=-1, help="-1: as many as fit")
    parser.add_argument("--threads", type=int, required=True, help="-1: llama.cpp's choice")
    return parser.parse_args()


if __name__ == "__main__":
    main()
