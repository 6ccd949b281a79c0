"""llama.cpp's server from the xllamacpp wheel, alone on a fixed port: a real upstream to be killed.

    python tools/chaos/real_engine.py --port 8081

Set up as llcuda-server's built-in engine is, with the demonstration model, and without a key. It
prints "listening on HOST:PORT" and ends when its stdin does.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere, without being installed

import xllamacpp

from llcuda_net.cli.common import Parser
from llcuda_net.upstream.engine import child
from llcuda_net.upstream.engine.context_size import prompt_cache
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.engine.process import ChildSettings
from llcuda_net.upstream.model.gguf import read_model_file
from llcuda_net.util.terminal import echo

MODEL = ROOT / "llcuda_net" / "data" / "demo.gguf"


def main() -> None:
    """Serve until stdin ends."""
    options = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--port", type=int, default=0, help="0 (the default): any free one")
    options.add_argument("--slots", type=int, default=4)
    options.add_argument("--ctx", type=int, default=1024, help="tokens of context for each slot")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--gguf", type=Path, default=MODEL, metavar="FILE")
    options.add_argument("--model", metavar="NAME", help="its name (default: of the file)")
    args = options.parse_args()
    settings = ChildSettings(
        model=str(args.gguf),
        alias=args.model or args.gguf.stem,
        ctx=args.ctx,
        slots=args.slots,
        threads=args.threads,
        gpu_layers=0,
        pooling=None,
        prompt_cache=prompt_cache(
            read_model_file(args.gguf), args.ctx, EngineOptions(args.gguf, slots=args.slots)
        ),
        api_key="",
    )
    params = child._params(xllamacpp, asdict(settings))
    params.api_keys = []
    params.port = args.port
    server = xllamacpp.Server(params)
    echo(f"listening on {urlsplit(server.listening_address).netloc}", flush=True)
    while os.read(0, 4096):
        pass
    os._exit(0)  # native threads are in the middle of things: leave without asking them


if __name__ == "__main__":
    main()
