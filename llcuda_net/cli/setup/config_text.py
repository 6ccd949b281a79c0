"""The config file that `llcuda setup` writes: what was chosen, and why one would change it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llcuda_net.util.terminal import one_line

_HEAD = """\
# Settings of llcuda-server, first written by `llcuda setup`. Change them by hand as you like: setup
# shows what it would change, and asks. An option (--port 9000) or a variable (LLCUDA_PORT=9000)
# comes before what stands here. All settings: llcuda-server --help.
"""

_LISTEN = """
# Where clients come in. 127.0.0.1: for this machine alone; 0.0.0.0: for every network, with tokens.
# Where systemd opens the port, what llcuda.socket says counts: `llcuda setup` changes both.
host = {host}
port = {port}
"""

_TOKENS = """
# Who may use the server: a line per token, with its user and their limits (docs/operating.md). It
# is read again on SIGHUP (systemctl --user reload llcuda).
auth_token_file = {tokens}
"""

_NO_TOKENS = """
# Who may use the server: a line per token, such as `6b0c...e1 name=ann`. Needed where others than
# this machine can reach it.
# auth_token_file = {tokens}
"""

_TLS = """
# Texts and tokens are sent as they are, unless there is a certificate:
# tls_cert = "cert.pem"
# tls_key = "key.pem"
"""

_FOLDER = """
# Models: each file of this folder is loaded when a request names it.
models = {folder}
"""

_MODEL = """\
# One that is loaded at once, and the default where only one is served.
model = {model}
"""

_DEMO = """
# Models: each file of a folder is loaded when a request names it; `model` at once. Without both,
# there is the demonstration model, which knows one manual. A small real one:
# `llcuda models pull smollm2`, and then
# models = {folder}
# model = "smollm2"
"""

_UPSTREAM_HINT = """\
# In place of models, llama-servers that run already:
# upstream = ["http://127.0.0.1:8080"]
"""

_UPSTREAM = """
# The llama-servers that answer; what is of models (slots, ctx, engine ...) is theirs to say.
upstream = {upstream}
"""

_ENGINE = """
# What runs models: "builtin", the path of a llama-server, or "auto".
# Found here: {found}
{engine}
# Requests at once on a model, and tokens of context for each; the more, the more memory.
# slots = 4
# ctx = 4096
# What all models that are loaded may take; what needs more takes the place of one that is idle.
# memory = "24G"
# gpu_memory = "20G"
"""

_REST = """
# What was asked and answered: the journal, and the results.
data_dir = {data}

# Figures for Prometheus, and /healthz and /readyz, on a port of their own.
# metrics_port = 9001

# Seconds that running requests get when the server stops; what has not ended goes on at the next
# start.
# drain_seconds = 30
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be written.

    Attributes:
        config: the config file.
        host, port: where to listen.
        data: the data directory.
        folder: of our models.
        model: the one to load at once, by its name in that folder, or a short name; None: none.
        pull: whether that one is not here yet.
        file: its file, where that is somewhere else.
        mmproj: the projector of that file.
        upstream: URLs of llama-servers, in place of models.
        engine: the setting of that name; None: the default, which finds what there is.
        found: what runs models here, in words.
        tokens: the token file; None: none is needed.
    """

    config: Path
    host: str
    port: int
    data: Path
    folder: Path
    model: str | None = None
    pull: bool = False
    file: Path | None = None
    mmproj: Path | None = None
    upstream: tuple[str, ...] = ()
    engine: str | None = None
    found: str = ""
    tokens: Path | None = None


def config_text(chosen: Chosen) -> str:
    """The config file, in TOML. The same choice gives the same text."""
    parts = [_HEAD, _LISTEN.format(host=toml(chosen.host), port=chosen.port)]
    if chosen.tokens is None:
        parts.append(_NO_TOKENS.format(tokens=toml(str(chosen.config.with_name("tokens")))))
    else:
        parts += [_TOKENS.format(tokens=toml(str(chosen.tokens))), _TLS]
    if chosen.upstream:
        parts.append(_UPSTREAM.format(upstream=f"[{', '.join(map(toml, chosen.upstream))}]"))
    else:
        parts += _models(chosen)
    parts.append(_REST.format(data=toml(str(chosen.data))))
    if chosen.file is not None and not chosen.upstream:  # what stands behind a table is of it
        parts.append(_table(chosen))
    return "".join(parts)


def _models(chosen: Chosen) -> Iterator[str]:
    folder = toml(str(chosen.folder))
    if chosen.model is None:
        yield _DEMO.format(folder=folder)
    else:
        yield _FOLDER.format(folder=folder)
        if chosen.file is None:
            yield _MODEL.format(model=toml(chosen.model))
    yield _UPSTREAM_HINT
    engine = '# engine = "auto"' if chosen.engine is None else f"engine = {toml(chosen.engine)}"
    yield _ENGINE.format(found=one_line(chosen.found), engine=engine)


def _table(chosen: Chosen) -> str:
    lines = [
        "",
        "# A model that is elsewhere on this machine.",
        "[[model]]",
        f"name = {toml(chosen.model or '')}",
        f"file = {toml(str(chosen.file))}",
    ]
    if chosen.mmproj is not None:
        lines.append(f"mmproj = {toml(str(chosen.mmproj))}")
    return "\n".join([*lines, "preload = true", ""])


def toml(text: str) -> str:
    """A string of TOML. JSON's are, but for DEL, which TOML wants written as a number."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
