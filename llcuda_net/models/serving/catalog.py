"""Which models a server runs itself: those of --model, of [[model]] tables, and of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from llcuda_net.config.models import ModelSpec, check_names, with_defaults
from llcuda_net.config.settings import Settings
from llcuda_net.config.upstreams import COMPLETIONS, EMBEDDINGS, RERANK, ROLES
from llcuda_net.errors import ConfigError
from llcuda_net.models.files.folder import default_folder, models_of, scan
from llcuda_net.models.files.local_file import LocalFile
from llcuda_net.models.pull.resolve import short_names
from llcuda_net.models.serving.instance import Described
from llcuda_net.upstream.model.gguf import Kind, read_model_file
from llcuda_net.upstream.model.header import show_path

log = structlog.get_logger(__name__)

#: What a model is used for that was made for one thing, where its table does not say.
_ROLES_OF = {Kind.EMBEDDINGS: frozenset({EMBEDDINGS}), Kind.RERANK: frozenset({RERANK})}


def describe_all(settings: Settings, demo: Path | None = None) -> list[Described]:
    """The models of a server, the default one first. Reads the headers of files.

    Args:
        settings: whose `--model` names files, or models in the folder of `--models`.
        demo: a model to run where the settings name none and no folder.

    Raises:
        ConfigError: a name means no file or no model, or two models have one name.
        EngineError: a file that is named cannot be used.
    """
    folder = {} if settings.models is None else _in_folder(Path(settings.models).expanduser())
    specs = settings.model
    if not specs and settings.models is None and demo is not None:
        specs = (ModelSpec("demo", str(demo), preload=True),)
        _say_what_is_not_served()
    found = [_describe(spec, folder, settings) for spec in specs]
    taken = {name for one in found for name in (one.name, *one.spec.aliases)}
    used = {one.file for one in found}
    short = {} if settings.models is None else short_names(Path(settings.models).expanduser())
    for name, file in folder.items():
        if file.path in used:
            continue
        if name in taken:
            reason = f"another model has its name, {name}: give it one in a [[model]] table"
            log.warning("model_file_not_used", path=str(file.path), reason=reason)
        else:
            alias = short.get(file.path)
            aliases = () if alias is None or alias in taken or alias in folder else (alias,)
            spec = ModelSpec(name, str(file.path), aliases)
            found.append(_described(spec, file.path, file, settings))
    check_names(tuple(one.spec for one in found), "models")
    if not found:
        raise ConfigError(
            f"there is no model in {settings.models}: llcuda models pull gets some, or name one "
            "with --model"
        )
    _check_default(settings.default_model, found)
    return sorted(found, key=lambda one: not one.spec.preload)


def _say_what_is_not_served() -> None:
    """Whoever has pulled models may expect them where only the demonstration model is served."""
    folder = default_folder()
    if there := models_of(scan(folder)):
        log.info(
            "models_folder_not_served",
            folder=str(folder),
            models=len(there),
            remedy=f"--models {folder} serves them, --model NAME one of them",
        )


def _check_default(name: str | None, found: list[Described]) -> None:
    """Raises ConfigError where no model could answer in place of others."""
    there = [one for one in found if COMPLETIONS in one.spec.roles]
    if name is not None and not any(name in (one.name, *one.spec.aliases) for one in there):
        names = ", ".join(one.name for one in there)[:300] or "none"
        raise ConfigError(f"--default-model {name}: no model for completions is called so: {names}")


def _in_folder(folder: Path) -> Mapping[str, LocalFile]:
    if not folder.is_dir():
        wrong = "is no folder; name the one that its files are in"
        if not folder.exists():
            wrong = "does not exist; make it, or name another"
        raise ConfigError(f"the models folder {folder} {wrong}")
    files = scan(folder)
    for file in files:
        if file.problem:
            log.warning("model_file_not_used", path=str(file.path), reason=file.problem)
    return models_of(files)


def _describe(spec: ModelSpec, folder: Mapping[str, LocalFile], settings: Settings) -> Described:
    """A model that the settings name."""
    named = spec.file or spec.name
    there = folder.get(named)
    if there is not None and not Path(named).is_file():
        return _described(spec, there.path, there, settings)
    path = Path(named).expanduser()
    there = next((file for file in folder.values() if file.path == path), None)
    return _described(spec, path, there, settings)


def _described(
    spec: ModelSpec, path: Path, there: LocalFile | None, settings: Settings
) -> Described:
    if there is not None and there.mmproj is not None and spec.mmproj is None:
        spec = replace(spec, mmproj=str(there.mmproj))
    spec = with_defaults(
        spec,
        engine=settings.engine,
        ctx=settings.ctx,
        slots=settings.slots,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        idle_seconds=settings.idle_seconds,
    )
    spec = replace(spec, file=str(path), options=spec.options or settings.engine_options)
    spec = _with_companions(spec)
    model = (there.model if there is not None else None) or read_model_file(path)
    if spec.roles == frozenset(ROLES):  # none is given
        spec = replace(spec, roles=_ROLES_OF.get(model.kind, spec.roles))
    return Described(spec, path, model)


def _with_companions(spec: ModelSpec) -> ModelSpec:
    """The spec with the paths of the files that are loaded beside the model's.

    Raises:
        ConfigError: one is not there. That it is of the wrong kind its load says.
    """

    def path(key: str, name: str) -> str:
        found = Path(name).expanduser()
        if not _is_file(found):
            raise ConfigError(
                f"model {spec.name}: {key}: {show_path(found)} does not exist, or is no file"
            )
        return str(found)

    one_each = ("mmproj", "draft", "chat_template")
    named: dict[str, Any] = {
        key: path(key, name) for key in one_each if (name := getattr(spec, key)) is not None
    }
    return replace(
        spec, lora=tuple((path("lora", one), scale) for one, scale in spec.lora), **named
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no rights, too long a name, or a NUL in it
        return False


def changed(
    before: Iterable[Described], now: Iterable[Described]
) -> tuple[list[str], list[Described]]:
    """Names of models that are gone or different, and those that are new or different."""
    old, new = {one.name: one for one in before}, {one.name: one for one in now}
    same = {name for name in old if name in new and old[name].same(new[name])}
    return [n for n in old if n not in same], [one for n, one in new.items() if n not in same]
