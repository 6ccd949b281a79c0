"""Save a slot's state as the built-in engine writes it: ``python -m tools.planes_bench.state``.

A process of its own: the engine's types are set when it starts, and native code ends with it.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from llcuda_net.util.terminal import echo

#: ggml's names of the types that a cache may have, as xllamacpp has them.
TYPES = {"f16": "GGML_TYPE_F16", "q8_0": "GGML_TYPE_Q8_0", "q4_0": "GGML_TYPE_Q4_0"}


def main(model: str, kind: str, file: str, text: str, tokens: str) -> None:
    """Read `tokens` of a text with a model, and save what its cache holds."""
    import xllamacpp

    p = xllamacpp.CommonParams()
    p.model.path = model
    p.n_parallel = 1
    p.n_ctx = int(tokens) + 64
    p.cache_type_k = p.cache_type_v = getattr(xllamacpp.ggml_type, TYPES[kind])
    # without it values are stored the other way round, and cannot be quantised
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    p.slot_save_path = str(Path(file).parent.resolve()) + "/"
    server = xllamacpp.Server(p)  # it serves for as long as it is held
    url = server.listening_address

    def ask(path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    words = ask("/tokenize", {"content": Path(text).read_text("utf-8")})["tokens"][: int(tokens)]
    read = ask("/completion", {"prompt": words, "n_predict": 1, "id_slot": 0, "temperature": 0})
    saved = ask("/slots/0?action=save", {"filename": Path(file).name})
    found = {
        "cells": saved["n_saved"], "bytes": saved["n_written"],
        "save_ms": saved["timings"]["save_ms"], "read_ms": read["timings"]["prompt_ms"],
    }  # fmt: skip
    echo(json.dumps(found), flush=True)
    os._exit(0)  # native threads are at work: end without waiting for them


if __name__ == "__main__":
    main(*sys.argv[1:])
