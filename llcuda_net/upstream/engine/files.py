"""The files that are loaded beside a model: a look at each, before an engine is started with them.

llama.cpp finds the same, but says it late, and often without naming the file.
"""

from __future__ import annotations

from pathlib import Path

from llcuda_net.errors import EngineError
from llcuda_net.upstream.engine.options import EngineOptions
from llcuda_net.upstream.model.gguf import ModelFile, read_model_file, show_path

#: The architecture in the header of every projector.
_PROJECTOR = "clip"
#: Bytes of a chat template; the longest known have a tenth of it.
_LONGEST_TEMPLATE = 1 << 20


def check_files(options: EngineOptions, model: ModelFile) -> None:
    """Refuse files that cannot be what they are given for.

    Raises:
        EngineError: one is missing, unreadable, cut short, or something else; one line that names
            the option and the file.
    """
    if options.mmproj is not None:
        found = _read("mmproj", options.mmproj)
        if found.architecture != _PROJECTOR:
            raise EngineError(
                f"mmproj: {show_path(options.mmproj)} is no projector but a model of the "
                f"architecture {found.architecture or 'unknown'}; its name often has mmproj in it"
            )
    if model.architecture == _PROJECTOR:
        raise EngineError(
            f"{show_path(options.model)} is a projector for images: give it as mmproj of its model"
        )
    if options.draft is not None:
        _read("draft", options.draft)
    for path, _ in options.lora:
        adapter = _read("lora", path)
        if adapter.architecture != model.architecture:
            raise EngineError(
                f"lora: {show_path(path)} is of the architecture "
                f"{adapter.architecture or 'unknown'}, and the model of {model.architecture}"
            )
    if options.chat_template is not None:
        shown = show_path(options.chat_template)
        try:
            size = options.chat_template.stat().st_size
            if size > _LONGEST_TEMPLATE:
                raise EngineError(f"chat_template: {shown} has {size:,} bytes: that is no template")
            if not options.chat_template.read_text(encoding="utf-8").strip():
                raise EngineError(f"chat_template: {shown} is empty")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise EngineError(f"chat_template: {shown} cannot be read: {why}") from None


def _read(what: str, path: Path) -> ModelFile:
    try:
        return read_model_file(path)
    except EngineError as error:
        raise EngineError(f"{what}: {str(error).removeprefix('model ')}") from None
