"""The child process: one llama.cpp server on a free port of this machine, until its parent goes.

Reads one line of JSON (what to load), writes one (`{"url"}` or `{"error"}`), then waits for the end of its input.
"""

import json
import os
import sys


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engine prints is no answer
    try:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = asked["file"]
        settings.model_alias = {asked["name"]}
        settings.hostnames, settings.port = ["127.0.0.1"], asked["port"]
        settings.n_parallel, settings.n_ctx = asked["slots"], asked["slots"] * asked["context"]
        settings.n_gpu_layers = asked["gpu_layers"]
        if asked["threads"]:
            settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = asked["threads"]
        settings.endpoint_metrics, settings.endpoint_slots = True, False
        settings.verbosity, settings.warmup, settings.ui = -1, False, True
        server = xllamacpp.Server(settings)
        print(json.dumps({"url": server.listening_address}), file=answer, flush=True)
    except Exception as error:
        print(json.dumps({"error": str(error)[:500]}), file=answer, flush=True)
        os._exit(1)
    sys.stdin.read()  # ends with the parent, however that ends
    os._exit(0)


if __name__ == "__main__":
    main()
