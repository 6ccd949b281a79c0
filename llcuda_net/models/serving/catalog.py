"""Which models a server runs itself: those of --model, of [[model]] tables, and of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from llcuda_net.config.models import ModelSpec, check_names, with_defaults
from llcuda_net.config.settings import Settings
from llcuda_net.errors import ConfigError
from llcuda_net.models.files.folder import default_folder, models_of, scan
from llcuda_net.models.files.local_file import LocalFile
from llcuda_net.models.pull.resolve import short_names
from llcuda_net.models.serving.instance import Described
from llcuda_net.upstream.model.gguf import read_model_file

log = structlog.get_logger(__name__)


def describe_all(settings: Settings, demo: Path | None = None) -> list[Described]:
    """The models of a server, the default one first. Reads the headers of files.

    Args:
        settings: whose `--model` names files, or models in the folder of `--models`.
        demo: a model to run where the settings name none and no folder.

    Raises:
        ConfigError: a name means no file, or two models have one name.
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
        if name not in taken and file.path not in used:
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


def _in_folder(folder: Path) -> Mapping[str, LocalFile]:
    if not folder.is_dir():
        raise ConfigError(f"the models folder {folder} does not exist; make it, or name another")
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
    model = there.model if there is not None else None
    return Described(spec, path, model or read_model_file(path))


def changed(
    before: Iterable[Described], now: Iterable[Described]
) -> tuple[list[str], list[Described]]:
    """Names of models that are gone or different, and those that are new or different."""
    old, new = {one.name: one for one in before}, {one.name: one for one in now}
    same = {name for name in old if name in new and old[name].same(new[name])}
    return [n for n in old if n not in same], [one for n, one in new.items() if n not in same]
