"""`llcuda models show`: all that is known of a model before it is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llcuda_net.cli.common import CommandError, Exit, Parser, fail
from llcuda_net.cli.models import weights
from llcuda_net.cli.models.facts import (
    TITLES,
    Machine,
    add_load_options,
    context,
    document,
    estimates,
    fits,
    memory_document,
    parameters_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llcuda_net.models.files.local_file import LocalFile
    from llcuda_net.upstream.model.gguf import ModelFile

HELP = "show what is in a model, and the memory that it needs at several contexts"
EPILOG = """\
examples:
  llcuda models show smollm2
  llcuda models show ollama:llama3.2:1b
  llcuda models show --slots 1 ~/Downloads/model.gguf
  llcuda models show --check smollm2

A NAME is one that `llcuda models list` shows, with SOURCE: before it where two sources have it
(models, huggingface, lmstudio, ollama, llama.cpp); or the path of a GGUF file.

--check reads every weight, on a GPU where that is faster, and exits with 1 where some are NaN,
infinite, or a thousand times greater than their neighbours: the file is damaged or badly made.
"""
_CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536, 131072)


def add_options(parser: Parser) -> None:
    """Add this subcommand's options."""
    parser.add_argument("name", metavar="NAME", help="the model's name, or a file")
    add_load_options(parser)
    parser.add_argument(
        "--check", action="store_true", help="read all of its weights, and say what is in them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Run `llcuda models show`; returns its exit code."""
    from llcuda_net.cli.json_documents import line
    from llcuda_net.cli.models.command import models_folder
    from llcuda_net.cli.tables import fields, table
    from llcuda_net.util.terminal import echo

    file = _find(arguments.name, models_folder(arguments))
    if file.model is None:
        fail(f"{file.name}: {file.problem}", Exit.REFUSED)
    machine = Machine.here()
    ctx = context(file.model, arguments)
    contexts = _contexts(file.model, arguments.ctx)
    checked = weights.check(file) if arguments.check else []
    if arguments.json:
        out = document(file, ctx, arguments.slots, machine)
        out["kv_bytes_per_token"] = _per_token(file)
        if file.is_model:
            out["contexts"] = [
                memory_document(file, each, arguments.slots, machine) for each in contexts
            ]
        if arguments.check:
            out["weights"] = weights.document(checked)
        echo(line(out))
        return weights.verdict(checked, file.name)
    for text in fields(_facts(file), indent=""):
        echo(text)
    if file.is_model:
        slots = "1 slot" if arguments.slots == 1 else f"{arguments.slots} slots"
        echo()
        echo(f"memory, estimated, for {slots}:")
        heads = ("CONTEXT", "KV CACHE", "IN HOST MEMORY", "OR: ON A GPU", "AND IN HOST", "FITS")
        rows = (_row(file, each, arguments.slots, machine) for each in contexts)
        for text in table(heads, rows, right=frozenset(range(5))):
            echo(text, styled=True)
    if arguments.check:
        weights.show(checked)
    return weights.verdict(checked, file.name)


def _find(name: str, folder: Path) -> LocalFile:
    import difflib

    from llcuda_net.models.files.elsewhere import everything, find
    from llcuda_net.models.files.local_file import look, name_of
    from llcuda_net.models.pull.resolve import pulled_as

    files = everything(folder)
    found = find(name, files) or _at(pulled_as(name, folder), files)
    if found is not None:
        return found
    path = Path(name).expanduser()
    if path.exists() or name.endswith(".gguf"):
        return look(path, name_of(path), "file")
    near = difflib.get_close_matches(name, [file.name for file in files], 1)
    hint = f"; did you mean {near[0]}?" if near else ": see llcuda models list"
    raise CommandError(f"there is no model {name} on this machine{hint}", Exit.REFUSED)


def _at(path: Path | None, files: list[LocalFile]) -> LocalFile | None:
    return next((file for file in files if file.path == path), None)


def _facts(file: LocalFile) -> Iterator[tuple[str, str]]:
    from llcuda_net.cli.units import bytes_text

    model = file.model
    assert model is not None
    number = model.number
    yield "name", file.name
    yield "title", model.name
    yield "from", TITLES[file.source]
    for part in model.parts:
        yield "file" if part == model.parts[0] else "", str(part)
    if file.mmproj:
        yield "projector", str(file.mmproj)
    yield "kind", str(model.kind)
    yield "size", f"{bytes_text(model.size)} ({model.size:,} bytes)"
    yield "architecture", model.architecture or "?"
    yield "parameters", f"{parameters_text(model.parameters)} ({model.parameters:,})"
    yield "quantisation", model.quantisation or "?"
    yield "layers", str(model.layers)
    yield "width", str(model.embedding_length)
    yield "attention heads", _heads(model)
    if experts := number("expert_count"):
        yield "experts", f"{experts}, of which {number('expert_used_count')} work at a time"
    if window := number("attention.sliding_window"):
        yield "sliding window", f"{window:,} tokens"
    yield "vocabulary", f"{model.vocabulary:,} tokens"
    yield "trained context", f"{model.trained_context:,} tokens" if model.trained_context else "?"
    yield "chat template", "yes" if model.chat_template else "no"
    if file.is_model:
        yield "KV per token", f"{bytes_text(_per_token(file))} at 16 bits"
    if file.note:
        yield "note", file.note


def _heads(model: ModelFile) -> str:
    heads = model.per_layer("attention.head_count")
    kept = model.per_layer("attention.head_count_kv", max(heads, default=0))

    def text(counts: tuple[int, ...]) -> str:
        least, most = min(counts, default=0), max(counts, default=0)
        return str(most) if least == most else f"{least} to {most}"

    return f"{text(heads)}, with keys and values of {text(kept)}"


def _per_token(file: LocalFile) -> int:
    """Bytes that a context takes for each token more, where it is long."""
    from llcuda_net.models.files.kv_cache import bytes_by_layer

    assert file.model is not None
    short, long = (
        sum(bytes_by_layer(file.model, ctx=tokens, slots=1, batch=512))
        for tokens in (1 << 20, 1 << 21)
    )
    return (long - short) >> 20


def _contexts(model: ModelFile, asked: int | None) -> list[int]:
    if asked is not None:
        return [asked]
    trained = model.trained_context or 4096
    return sorted({trained, *(each for each in _CONTEXTS if each < trained)})


def _row(file: LocalFile, ctx: int, slots: int, machine: Machine) -> list[Any]:
    from llcuda_net.cli.units import bytes_text

    host, gpu = estimates(file, ctx, slots)
    return [
        f"{ctx:,}",
        bytes_text(host.cache.host),
        bytes_text(host.host),
        bytes_text(gpu.gpu),
        bytes_text(gpu.host),
        fits(host, gpu, machine) or "?",
    ]
