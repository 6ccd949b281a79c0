"""A server's local models: the folder is followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from llcuda_net.config.settings import Settings
from llcuda_net.errors import ConfigError
from llcuda_net.models.serving import local
from llcuda_net.models.serving.local import LocalModels

A, B, B_LONGER = ("a.gguf", 1, 1), ("b.gguf", 1, 2), ("b.gguf", 2, 3)


class _EndError(Exception):
    pass


async def test_a_file_that_is_copied_is_taken_in_when_it_is_whole(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    looks = iter([{A}, {A, B}, {A, B_LONGER}, {A, B_LONGER}, {A, B_LONGER}, {B_LONGER}])
    looked: list[Path] = []
    reloaded: list[int] = []

    def stamp(folder: Path) -> frozenset[tuple[str, int, int]]:
        looked.append(folder)
        if (found := next(looks, None)) is None:
            raise _EndError
        return frozenset(found)

    async def reload(settings: Settings) -> None:
        reloaded.append(len(looked))
        if len(reloaded) == 1:
            raise ConfigError("which does not end it")

    models = LocalModels(Settings(models="/folder"))
    monkeypatch.setattr(local, "stamp", stamp)
    monkeypatch.setattr(models, "_reload", reload)
    with pytest.raises(_EndError):
        await models._follow_folder()
    assert reloaded == [4, 5, 6]  # what could not be read is tried again
    assert set(looked) == {Path("/folder")}


async def test_a_bug_at_what_is_in_the_folder_does_not_end_the_server(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    looks = iter([{A}, {A, B}, {A, B}, {A, B}])
    reloaded: list[int] = []

    def stamp(folder: Path) -> frozenset[tuple[str, int, int]]:
        if (found := next(looks, None)) is None:
            raise _EndError
        return frozenset(found)

    async def reload(settings: Settings) -> None:
        reloaded.append(1)
        raise ValueError("a bug")

    models = LocalModels(Settings(models="/folder"))
    monkeypatch.setattr(local, "stamp", stamp)
    monkeypatch.setattr(models, "_reload", reload)
    with pytest.raises(_EndError):
        await models._follow_folder()
    assert reloaded == [1]  # the same files would show the same bug
