"""Load a model with a llama-server, and set its log and its memory beside the estimate."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.models.files.machine import measured
from llcuda_net.models.files.memory import estimate
from llcuda_net.upstream.model.gguf import read_model_file
from llcuda_net.util.terminal import echo

_MIB = 1 << 20
_PROMPT = 512
_SECONDS = 300

HEADS = """\
| model | context * slots, cache | weights | KV cache | compute | all: estimate / process |
|---|---|---|---|---|---|"""


@dataclass(frozen=True, slots=True)
class Case:
    """How a model is loaded."""

    ctx: int
    slots: int
    type_: str
    unified: bool = True

    @property
    def options(self) -> list[str]:
        """For a llama-server."""
        whole = str(self.ctx * self.slots)
        cache = "--kv-unified" if self.unified else "--no-kv-unified"
        types = ["--cache-type-k", self.type_, "--cache-type-v", self.type_]
        return ["--ctx-size", whole, "--parallel", str(self.slots), cache, *types]


CASES = (Case(2048, 1, "f16"), Case(4096, 4, "f16"), Case(4096, 8, "q8_0", unified=False))


def compare(program: str, path: Path, case: Case) -> bool:
    """Print a line of the table; False where the model was not loaded."""
    model = read_model_file(path)
    expected = estimate(
        model,
        ctx=case.ctx,
        slots=case.slots,
        cache_type_k=case.type_,
        cache_type_v=case.type_,
        unified=case.unified,
    )
    command = [program, "--model", str(path), "--host", "127.0.0.1", "--port", "0"]
    command += ["--offline", "--log-verbosity", "4", "--cache-ram", "0", *case.options]
    log: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as server:
        assert server.stdout is not None
        timer = threading.Timer(_SECONDS, server.kill)
        timer.start()
        try:
            port = None
            for line in server.stdout:
                log.append(line)
                found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
                port = int(found[1]) if found else port
                if "all slots are idle" in line:
                    break
            if port is None:
                echo(f"{path.name} was not loaded: {log[-1] if log else 'no output'}")
                return False
            threading.Thread(target=server.stdout.read, daemon=True).start()
            _prompt(port)
            taken = measured(server.pid, expected)
        finally:
            timer.cancel()
            server.kill()
    text = "".join(log)
    # A copy in another order counts, and the embedding that is looked up beside it.
    weights = max(_logged(text, "Mapped model buffer"), _logged(text, "REPACK model buffer"))
    cache = _logged(text, "KV buffer") + _logged(text, "RS buffer")
    compute = _logged(text, "compute buffer")
    kind = f"{case.ctx} * {case.slots}, {case.type_}"
    process = "?" if taken is None else f"{taken / _MIB:.0f}"
    error = "" if taken is None else f" ({expected.host / taken - 1:+.0%})"
    echo(
        f"| {path.stem} | {kind}"
        f" | {expected.weights.host / _MIB:.0f} / {weights:.0f}"
        f" | {expected.cache.host / _MIB:.0f} / {cache:.0f}"
        f" | {expected.compute.host / _MIB:.0f} / {compute:.0f}"
        f" | {expected.host / _MIB:.0f} / {process}{error} |",
        flush=True,
    )
    return True


def _prompt(port: int) -> None:
    """Have all of the compute buffer touched."""
    body = {"prompt": [5 + number % 200 for number in range(_PROMPT)], "n_predict": 1}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/completion",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            answer.read()
    except (urllib.error.URLError, OSError):
        pass  # zeros may make numbers that cannot be sampled: the prompt was read nevertheless


def _logged(text: str, what: str) -> float:
    return sum(float(size) for size in re.findall(rf"{what} size\s*=\s*([\d.]+) MiB", text))
